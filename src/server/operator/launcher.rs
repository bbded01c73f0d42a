//! `launch`: the implementation of the program `moonbridge`. The sequence is in Lua
//! (`launcher.lua`), because it runs a script; these are its steps.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use mlua::{FromLua, Function, Lua, Table, Value};

use super::log::{Level, Log};
use super::options::{self, RunOptions};
use super::service_files::{ServiceFiles, StartError};
use crate::binding::{self, Fault, Reply};
use crate::http;
use crate::io::listen::BACKLOG;
use crate::known_options;
use crate::server::credentials::Credentials;
use crate::server::development::Development;
use crate::server::listen::proxies::Proxies;
use crate::server::listen::registry::Registry;
use crate::server::listen::spec::ListenerSpec;
use crate::sys::os::error_text::ErrorCode;

/// Where the page with an error is if no port of the application is known.
const PAGE_HOST: &str = "127.0.0.1";
const PAGE_PORT: &str = "8080";

/// State shared by the launcher and `run`: the launcher opens the log and the pid file before it
/// runs the script.
#[derive(Default)]
pub struct Operations {
    service: RefCell<Option<ServiceFiles>>,
    /// What the command line says to run as, where a script is only checked.
    checked: RefCell<Option<Credentials>>,
    exit_code: Cell<Option<i32>>,
}

impl Operations {
    /// The service that the launcher has opened; otherwise opens one with the given options, `anew` in a
    /// process that a reload has started.
    pub fn take(&self, options: &RunOptions, anew: bool) -> Result<ServiceFiles, StartError> {
        match self.service.take() {
            Some(mut service) => {
                // Not to be lost where the script says it and the command line does not.
                service.identity = service.identity.or_else(|| options.identity.clone());
                Ok(service)
            }
            None => open(options, anew),
        }
    }

    /// What a script that is only checked would run as.
    pub fn checked_identity(&self, options: &RunOptions) -> Option<Credentials> {
        self.checked.take().or_else(|| options.identity.clone())
    }

    /// Records that serving has ended.
    pub fn ended(&self, code: i32) {
        self.exit_code.set(Some(code));
    }
}

/// `show(report, script)`: in development, the script has failed with this error, which is served as a page.
/// Returns whether the server has chosen the port; nil if there is no page, and perhaps why.
fn show(lua: &Lua, mut args: impl Iterator<Item = Value>) -> Reply<Option<bool>> {
    let Some(development) = Development::of(lua) else { return Ok(None) };
    let registry = Registry::of(lua);
    let report = args.next().map_or(Ok(String::new()), |report| report.to_string())?;
    let script = args.next().map_or(Ok(PathBuf::new()), |script| path_of(lua, script))?;
    if !registry.is_candidate() && !script.exists() {
        // A mistake in the command line.
        return Ok(None);
    }
    development.fail(report);
    let never_called = lua.create_function(|_, ()| Ok(()))?;
    let http: Table = http::module(lua)?;
    let connect = http.get::<Function>("generate_handler")?.call::<Function>(never_called)?;
    let (host, port) = (PAGE_HOST.to_owned(), PAGE_PORT.to_owned());
    let (backlog, proxies) = (BACKLOG, Proxies::Nobody);
    let port = ListenerSpec::Tcp { host, port, deferred: true, backlog, proxies, tls: None };
    match registry.serve_instead(lua, connect, port) {
        // The script's errors are thrown, this one is not.
        Err(Fault::Misuse(text)) => Err(Fault::System(text, None)),
        outcome => outcome.map(Some),
    }
}

fn path_of(lua: &Lua, value: Value) -> mlua::Result<PathBuf> {
    let path = mlua::LuaString::from_lua(value, lua)?;
    Ok(OsStr::from_bytes(&path.as_bytes()).into())
}

fn open(options: &RunOptions, anew: bool) -> Result<ServiceFiles, StartError> {
    if anew { ServiceFiles::open_anew(options) } else { ServiceFiles::open(options) }
}

/// Defines `launch` over `run`, which returns nil and a message instead of raising errors.
pub fn export(
    lua: &Lua,
    module: &Table,
    run: Function,
    describe: Function,
    operations: Rc<Operations>,
) -> mlua::Result<()> {
    let shared = operations.clone();
    let open_step = binding::function(lua, move |lua, args| {
        let options = options::parse(args.front())?;
        if matches!(args.get(1), Some(Value::Boolean(true))) {
            Registry::of(lua).only_check();
            shared.checked.replace(options.identity);
            return Ok(true);
        }
        // Before going to the background, which would close inherited sockets.
        Registry::of(lua).inheritance.adopt();
        let service =
            open(&options, Registry::of(lua).is_candidate()).map_err(|error: StartError| {
                Fault::System(error.text, error.errno.map(ErrorCode::Errno))
            })?;
        shared.service.replace(Some(service));
        Registry::of(lua).remember();
        Ok(true)
    })?;
    let develop = binding::function(lua, |lua, args| {
        Registry::of(lua).keep_ports();
        let folders = args.into_iter().map(|folder| path_of(lua, folder));
        Development::begin(lua, folders.collect::<mlua::Result<_>>()?)?;
        Ok(true)
    })?;
    let show = binding::function(lua, |lua, args| show(lua, args.into_iter()))?;
    let shared = operations.clone();
    let log = lua.create_function(move |_, text: mlua::LuaString| {
        match shared.service.borrow_mut().as_mut() {
            Some(service) => service.log.notice(&text.to_string_lossy()),
            // `run` has taken the log.
            None => Log::stderr(Level::Notice).notice(&text.to_string_lossy()),
        }
        Ok(())
    })?;
    let exit_code = lua.create_function(move |_, ()| Ok(operations.exit_code.get()))?;
    let nearest = known_options::nearest_function(lua)?;
    let errno = libc::EWOULDBLOCK;
    let steps = (module, open_step, develop, show, log, exit_code, run, describe, errno, nearest);
    let launch: Function =
        binding::chunk(lua, "moonbridge.launcher", include_str!("launcher.lua"), steps)?;
    module.raw_set("launch", launch)
}
