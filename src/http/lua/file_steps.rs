//! The steps of responses that are files, for `files.lua`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use mlua::{AnyUserData, IntoLuaMulti, Lua, LuaString, MultiValue, Table, UserData, Value};
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use super::step::{SharedConnection, StepResult, problem, step, with};
use crate::binding::{self, Fault};
use crate::http::files::folder::{Found, Representation, Root, ServedFolder};
use crate::http::files::listing;
use crate::http::files::media_types::{MediaTypes, media_type};
use crate::http::files::opened::{FileKind, OpenedFile};
use crate::http::files::path::FilePath;
use crate::http::files::recent::RecentFiles;
use crate::http::files::reply::{FileOptions, FileReply, ReplyBody};
use crate::http::server::connection::HttpConnection;
use crate::http::server::request::Request;
use crate::http::server::usability::Problem;
use crate::http::wire::accept_encoding::AcceptEncoding;
use crate::io::stream::FileTail;
use crate::sys::lua::c_file;
use crate::sys::os::beneath::Links;
use crate::sys::os::error_text;

/// So many small files of a folder are kept open for a moment.
const MOST_RECENT: usize = 32;

struct LuaFolder(ServedFolder);

impl UserData for LuaFolder {}

/// Puts into the table:
///
/// * `served_folder(path, index, lists, serves_hidden, links, is_precompressed, types, keeps)`: a folder that is served,
///   or nil and what is wrong. `index` is a list of names, `links` "none", "inside" or "anywhere", `types` a table of
///   media types by extension; if it `keeps` files, small ones stay open for a moment;
/// * `close_folder(folder)`: closes one that is not used any more;
/// * `file_number(file)`: the number of the descriptor of an open file of Lua's io library;
/// * `describe(errno)`: the text of an error of the system.
pub fn functions(lua: &Lua, native: &Table) -> mlua::Result<()> {
    type Given =
        (LuaString, Vec<LuaString>, bool, bool, String, bool, HashMap<String, String>, bool);
    let folder = |lua: &Lua, given: Given| {
        let (path, index, lists, serves_hidden, links, is_precompressed, types, keeps) = given;
        let served = Root::new(&path.as_bytes()).map_err(Fault::from).map(|root| {
            let index = index.iter().map(|name| name.as_bytes().to_vec()).collect();
            let links = match links.as_str() {
                "none" => Links::None,
                "anywhere" => Links::Anywhere,
                _ => Links::Inside,
            };
            let types = types.into_iter().map(|(name, kind)| (name.into_bytes(), kind)).collect();
            let types = MediaTypes::new(types);
            let recent = RecentFiles::new(if keeps { MOST_RECENT } else { 0 });
            ServedFolder {
                root,
                index,
                lists,
                serves_hidden,
                links,
                is_precompressed,
                types,
                recent,
            }
        });
        match served {
            Ok(served) => lua.create_userdata(LuaFolder(served))?.into_lua_multi(lua),
            Err(fault) => binding::settle::<Value>(lua, Err(fault)),
        }
    };
    native.raw_set("served_folder", lua.create_function(folder)?)?;
    let close = |_: &Lua, folder: AnyUserData| folder.take::<LuaFolder>().map(drop);
    native.raw_set("close_folder", lua.create_function(close)?)?;
    native.raw_set(
        "file_number",
        lua.create_function(|lua, file: Value| c_file::number(lua, file))?,
    )?;
    native
        .raw_set("describe", lua.create_function(|_, errno: i32| Ok(error_text::describe(errno)))?)
}

/// Adds to the steps of a connection object:
///
/// * `find_file(folder, path, options)`: looks for what the path of a URI stands for in a folder. Returns a status, and
///   the reply is ready for `send_reply`; or nil if there is nothing; or false, a status code, a message and errno;
/// * `serve_file(folder, path, options)`: the same, and sends the reply: true, or the code of a problem with its text; nil
///   if there is nothing; or false, a status code (405 unless it is GET or HEAD), a message and errno;
/// * `open_file(path or descriptor, position, options)`: the same for a file of the application;
/// * `send_reply()`: sends the reply after its status.
///
/// `options` is a table with `content_type`, `attachment`, `cache_control` (strings) and `status`, all optional.
pub fn add(lua: &Lua, table: &Table, shared: &SharedConnection) -> mlua::Result<()> {
    let reply = Rc::new(RefCell::new(FileReply::default()));

    let place = reply.clone();
    type Wanted = (AnyUserData, LuaString, Option<Table>);
    step(lua, table, shared, "find_file", move |lua, c, (folder, path, options): Wanted| {
        let folder = folder.borrow::<LuaFolder>()?;
        let options = read_options(options.as_ref())?;
        let found = with(c, |c| find(&folder.0, &path.as_bytes(), &options, c))?;
        settle(lua, &place, found)
    })?;
    step(lua, table, shared, "serve_file", |lua, c, (folder, path, options): Wanted| {
        let folder = folder.borrow::<LuaFolder>()?;
        let options = read_options(options.as_ref())?;
        let found = with(c, |c| {
            let method = c.request.head.method.of(&c.request.bytes);
            if !matches!(method, b"GET" | b"HEAD") {
                return Ok(Served::Refused);
            }
            Ok(match find(&folder.0, &path.as_bytes(), &options, c)? {
                Some(reply) => Served::Sent(
                    c.exchange.send_status(reply.status.as_bytes()).and_then(|_| send(reply, c)),
                ),
                None => Served::Nothing,
            })
        })?;
        match found {
            Ok(Served::Sent(Ok(()))) => true.into_lua_multi(lua),
            Ok(Served::Sent(Err(error))) => problem(lua, error),
            Ok(Served::Nothing) => Ok(MultiValue::new()),
            Ok(Served::Refused) => (false, 405).into_lua_multi(lua),
            Err(error) => failure(lua, &error),
        }
    })?;
    let place = reply.clone();
    type Given = (Value, Option<u64>, Option<Table>);
    step(lua, table, shared, "open_file", move |lua, c, (file, position, options): Given| {
        let options = read_options(options.as_ref())?;
        let name = match &file {
            Value::String(path) => path.as_bytes().to_vec(),
            _ => Vec::new(),
        };
        let outcome = with(c, |c| {
            let position = position.unwrap_or(0);
            let opened = open(&file)?.from(position);
            let representation = Representation::plain(opened, media_type(&name));
            answer(representation, position, &options, &c.request).map(Some)
        })?;
        settle(lua, &place, outcome)
    })?;
    step(lua, table, shared, "send_reply", move |lua, c, (): ()| {
        let reply = reply.take();
        match with(c, |c| send(reply, c))? {
            Ok(()) => Ok(MultiValue::new()),
            Err(error) => problem(lua, error),
        }
    })
}

/// What has become of a request for a file of a folder.
enum Served {
    /// It was answered, as far as that was possible.
    Sent(Result<(), Problem>),
    /// There is nothing at its path.
    Nothing,
    /// It is neither GET nor HEAD.
    Refused,
}

/// Sends a reply after its status.
fn send(reply: FileReply, c: &mut HttpConnection) -> Result<(), Problem> {
    c.exchange.output.response.coding.withdraw();
    c.exchange.send_lines(&reply.lines, reply.length)?;
    match reply.body {
        ReplyBody::None => c.exchange.send_data(b"")?,
        ReplyBody::Bytes(bytes) => c.exchange.send_data(&bytes)?,
        ReplyBody::File(file, length) => c.exchange.send_file(FileTail::new(file, length))?,
    };
    Ok(())
}

/// What the application says of a file in a table.
fn read_options(table: Option<&Table>) -> mlua::Result<FileOptions> {
    let Some(table) = table else { return Ok(FileOptions::default()) };
    let text = |name: &str| -> mlua::Result<Option<Vec<u8>>> {
        let value: Option<LuaString> = table.raw_get(name)?;
        Ok(value.map(|value| value.as_bytes().to_vec()))
    };
    Ok(FileOptions {
        media_type: text("content_type")?,
        attachment: text("attachment")?,
        cache_control: text("cache_control")?,
        is_plain: table.raw_get::<Option<LuaString>>("status")?.is_some(),
    })
}

/// Tells Lua what was found, and keeps the reply.
fn settle(
    lua: &Lua,
    place: &RefCell<FileReply>,
    outcome: io::Result<Option<FileReply>>,
) -> StepResult {
    match outcome {
        Ok(Some(reply)) => {
            let status = reply.status;
            place.replace(reply);
            status.into_lua_multi(lua)
        }
        Ok(None) => Ok(MultiValue::new()),
        Err(error) => failure(lua, &error),
    }
}

/// Tells Lua what the system has reported: false, a status code, a message and errno.
fn failure(lua: &Lua, error: &io::Error) -> StepResult {
    let errno = error.raw_os_error();
    let code = match errno {
        Some(
            libc::ENOENT
            | libc::ENOTDIR
            | libc::EISDIR
            | libc::ENAMETOOLONG
            | libc::ELOOP
            | libc::ENOTSUP
            | libc::ENXIO,
        ) => 404,
        Some(libc::EACCES | libc::EPERM) => 403,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => 503,
        _ => 500,
    };
    let text = errno.map_or_else(|| error.to_string(), error_text::describe);
    (false, code, text, errno).into_lua_multi(lua)
}

fn find(
    folder: &ServedFolder,
    path: &[u8],
    options: &FileOptions,
    c: &mut HttpConnection,
) -> io::Result<Option<FileReply>> {
    let Some(path) = FilePath::of_uri(path, folder.serves_hidden) else { return Ok(None) };
    let request = &mut c.request;
    let accepts = request.joined(b"accept-encoding");
    match folder.find(&path, &AcceptEncoding::new(&accepts))? {
        Found::File(representation) => answer(representation, 0, options, request).map(Some),
        Found::FolderWithoutSlash => {
            let query = request.query.of(&request.bytes);
            Ok(Some(FileReply::with_slash(path.name(), query)))
        }
        Found::Listing(opened) => {
            let names = listing::names(opened, folder.serves_hidden)?;
            let is_root = path.relative == b".";
            let title =
                if is_root { b"/".to_vec() } else { [b"/", &path.relative[..], b"/"].concat() };
            let page = listing::page(&title, &names, !is_root);
            Ok(Some(FileReply::listing(page, options)))
        }
        Found::Nothing => Ok(None),
    }
}

/// The file of the application: by its path, or by the number of a descriptor, which is opened anew, since its position
/// is the application's.
fn open(file: &Value) -> io::Result<OpenedFile> {
    let path = match file {
        Value::String(path) => path.as_bytes().to_vec(),
        Value::Integer(number) => format!("/proc/self/fd/{number}").into_bytes(),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    if path.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened: OwnedFd = openat(AT_FDCWD, OsStr::from_bytes(&path), flags, Mode::empty())?;
    match FileKind::of(opened, "")? {
        FileKind::File(file) => Ok(file),
        FileKind::Folder(_) => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        FileKind::Other => Err(io::Error::from_raw_os_error(libc::ENOTSUP)),
    }
}

/// What a request gets of a file that begins, for it, at `position`.
fn answer(
    representation: Representation,
    position: u64,
    options: &FileOptions,
    request: &Request,
) -> io::Result<FileReply> {
    let method = request.head.method.of(&request.bytes);
    FileReply::to(method, request.fields(), representation, position, options)
}
