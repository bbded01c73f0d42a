//! The steps of responses that are files, for `files.lua`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::SystemTime;

use mlua::{AnyUserData, IntoLuaMulti, Lua, LuaString, MultiValue, Table, UserData, Value};
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use super::step::{SharedConnection, StepResult, problem, step, with};
use crate::binding::{self, Fault};
use crate::http::files::answer::{AskingFields, FileAnswer};
use crate::http::files::byteranges;
use crate::http::files::folder::{Found, Representation, Root, ServedFolder};
use crate::http::files::listing;
use crate::http::files::media_types::{MediaTypes, media_type};
use crate::http::files::opened::{FileKind, OpenedFile, READ_AT_ONCE};
use crate::http::files::path::FilePath;
use crate::http::files::recent::RecentFiles;
use crate::http::server::connection::HttpConnection;
use crate::http::server::request::Request;
use crate::http::server::usability::Problem;
use crate::http::wire::accept_encoding::AcceptEncoding;
use crate::http::wire::disposition;
use crate::http::wire::escape::encode_path;
use crate::http::wire::header_lines::push_header;
use crate::io::stream::FileTail;
use crate::sys::lua::c_file;
use crate::sys::os::beneath::Links;
use crate::sys::os::{error_text, file_transfer, random};

/// So many small files of a folder are kept open for a moment.
const MOST_RECENT: usize = 32;

/// What is to be sent behind the status.
#[derive(Default)]
struct FileReply {
    /// Header lines, without Content-Length.
    lines: Vec<u8>,
    length: Option<u64>,
    body: ReplyBody,
}

#[derive(Default)]
enum ReplyBody {
    #[default]
    None,
    Bytes(Vec<u8>),
    File(FileTail),
}

/// What the application says of a file.
#[derive(Default)]
struct FileOptions {
    media_type: Option<Vec<u8>>,
    attachment: Option<Vec<u8>>,
    cache_control: Option<Vec<u8>>,
    /// It is sent with another status, whatever the request asks for.
    is_plain: bool,
}

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
/// * `send_reply()`: sends the reply behind its status.
///
/// `options` is a table with `content_type`, `attachment`, `cache_control` (strings) and `status`, all optional.
pub fn add(lua: &Lua, table: &Table, shared: &SharedConnection) -> mlua::Result<()> {
    let reply = Rc::new(RefCell::new(FileReply::default()));

    let kept = reply.clone();
    type Wanted = (AnyUserData, LuaString, Option<Table>);
    step(lua, table, shared, "find_file", move |lua, c, (folder, path, options): Wanted| {
        let folder = folder.borrow::<LuaFolder>()?;
        let options = FileOptions::read(options.as_ref())?;
        let found = with(c, |c| find(&folder.0, &path.as_bytes(), &options, c))?;
        settle(lua, &kept, found)
    })?;
    step(lua, table, shared, "serve_file", |lua, c, (folder, path, options): Wanted| {
        let folder = folder.borrow::<LuaFolder>()?;
        let options = FileOptions::read(options.as_ref())?;
        let found = with(c, |c| {
            let method = c.request.head.method.of(&c.request.bytes);
            if !matches!(method, b"GET" | b"HEAD") {
                return Ok(Served::Refused);
            }
            Ok(match find(&folder.0, &path.as_bytes(), &options, c)? {
                Some((status, reply)) => {
                    Served::Sent(c.send_status(status.as_bytes()).and_then(|()| reply.send(c)))
                }
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
    let kept = reply.clone();
    type Given = (Value, Option<u64>, Option<Table>);
    step(lua, table, shared, "open_file", move |lua, c, (file, position, options): Given| {
        let options = FileOptions::read(options.as_ref())?;
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
        settle(lua, &kept, outcome)
    })?;
    step(lua, table, shared, "send_reply", move |lua, c, (): ()| {
        let reply = reply.take();
        match with(c, |c| reply.send(c))? {
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

impl FileReply {
    /// Sends it behind its status.
    fn send(self, c: &mut HttpConnection) -> Result<(), Problem> {
        c.output.response.coding.withdraw();
        c.send_lines(&self.lines, self.length)?;
        match self.body {
            ReplyBody::None => c.send_data(b"")?,
            ReplyBody::Bytes(bytes) => c.send_data(&bytes)?,
            ReplyBody::File(file) => c.send_file(file)?,
        };
        Ok(())
    }
}

impl FileOptions {
    fn read(table: Option<&Table>) -> mlua::Result<FileOptions> {
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
}

/// A status with its reply.
type Ready = (&'static str, FileReply);

/// Tells Lua what was found, and keeps the reply.
fn settle(lua: &Lua, reply: &RefCell<FileReply>, outcome: io::Result<Option<Ready>>) -> StepResult {
    match outcome {
        Ok(Some((status, ready))) => {
            reply.replace(ready);
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
) -> io::Result<Option<Ready>> {
    let Some(path) = FilePath::of_uri(path, folder.serves_hidden) else { return Ok(None) };
    let request = &mut c.request;
    let accepts = request.joined(b"accept-encoding");
    match folder.find(&path, &AcceptEncoding::new(&accepts))? {
        Found::File(representation) => answer(representation, 0, options, request).map(Some),
        Found::FolderWithoutSlash => {
            // Relative to the path of the request, which may begin elsewhere than the folder.
            let location =
                [b"./", &encode_path(path.name())[..], b"/", request.query.of(&request.bytes)]
                    .concat();
            let mut lines = Vec::new();
            push_header(&mut lines, b"Location", &location);
            let reply = FileReply { lines, length: Some(0), body: ReplyBody::None };
            Ok(Some(("301 Moved Permanently", reply)))
        }
        Found::Listing(opened) => {
            let names = listing::names(opened, folder.serves_hidden)?;
            let is_root = path.relative == b".";
            let title =
                if is_root { b"/".to_vec() } else { [b"/", &path.relative[..], b"/"].concat() };
            let page = listing::page(&title, &names, !is_root).into_bytes();
            let mut lines = Vec::new();
            push_header(&mut lines, b"Content-Type", b"text/html; charset=utf-8");
            if let Some(value) = &options.cache_control {
                push_header(&mut lines, b"Cache-Control", value);
            }
            let (length, body) = (Some(page.len() as u64), ReplyBody::Bytes(page));
            Ok(Some(("200 OK", FileReply { lines, length, body })))
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
        FileKind::Folder(_) | FileKind::Other => Err(io::Error::from_raw_os_error(libc::EISDIR)),
    }
}

/// What a request gets of a file that begins, for it, at `position`.
fn answer(
    representation: Representation,
    position: u64,
    options: &FileOptions,
    request: &Request,
) -> io::Result<Ready> {
    let Representation { opened, media_type, coding, varies } = representation;
    let size = opened.size.saturating_sub(position);
    let method = request.head.method.of(&request.bytes);
    let asking = if options.is_plain { None } else { AskingFields::among(request.fields()) };
    let decided = asking.map_or(FileAnswer::Whole, |asking| {
        FileAnswer::to(&asking.asked(method), &opened.validators(), size, SystemTime::now())
    });
    let media_type = options.media_type.as_deref().unwrap_or(media_type.as_bytes());

    let mut lines = Vec::with_capacity(512);
    let mut add = |name: &str, value: &[u8]| push_header(&mut lines, name.as_bytes(), value);
    if varies {
        add("Vary", b"Accept-Encoding");
    }
    if let Some(value) = &options.cache_control {
        add("Cache-Control", value);
    }
    if !options.is_plain {
        add("ETag", opened.tag.as_bytes());
        add("Last-Modified", httpdate::fmt_http_date(opened.modified).as_bytes());
        add("Accept-Ranges", b"bytes");
    }
    if matches!(decided, FileAnswer::Whole | FileAnswer::Part(_) | FileAnswer::Parts(_)) {
        if let Some(coding) = coding {
            add("Content-Encoding", coding.as_bytes());
        }
        if let Some(name) = &options.attachment {
            add("Content-Disposition", disposition::attachment(name).as_bytes());
        }
    }
    let is_head = method == b"HEAD";
    let (length, body) = match &decided {
        FileAnswer::Whole => {
            add("Content-Type", media_type);
            (Some(size), part(opened, position, size, is_head)?)
        }
        FileAnswer::Part(range) => {
            add("Content-Range", byteranges::content_range(range, size).as_bytes());
            add("Content-Type", media_type);
            (Some(range.length), part(opened, position + range.start, range.length, is_head)?)
        }
        FileAnswer::Parts(ranges) => {
            let boundary: String =
                random::bytes::<12>().iter().map(|byte| format!("{byte:02x}")).collect();
            let kind = String::from_utf8_lossy(media_type);
            let body =
                byteranges::body(opened.file.as_fd(), position, ranges, size, &kind, &boundary)?;
            add("Content-Type", byteranges::media_type(&boundary).as_bytes());
            (Some(body.len() as u64), ReplyBody::Bytes(body))
        }
        FileAnswer::NotModified => (None, ReplyBody::None),
        FileAnswer::PreconditionFailed => (Some(0), ReplyBody::None),
        FileAnswer::Unsatisfiable => {
            add("Content-Range", format!("bytes */{size}").as_bytes());
            (Some(0), ReplyBody::None)
        }
    };
    Ok((decided.status(), FileReply { lines, length, body }))
}

/// So many bytes of a file from a position on.
fn part(opened: OpenedFile, position: u64, length: u64, is_head: bool) -> io::Result<ReplyBody> {
    if is_head || length == 0 {
        return Ok(ReplyBody::None);
    }
    if length <= READ_AT_ONCE {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        file_transfer::read_at(opened.file.as_fd(), position, &mut bytes)?;
        return Ok(ReplyBody::Bytes(bytes));
    }
    // Large files are not kept, so nobody else has this one.
    let file = Rc::try_unwrap(opened.file).map_err(|_| io::ErrorKind::ResourceBusy)?;
    if position > 0 {
        file_transfer::seek(file.as_fd(), position)?;
    }
    Ok(ReplyBody::File(FileTail::new(file, length)))
}
