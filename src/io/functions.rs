//! The functions of the module (reference, "I/O library"), except `poll` and `exec`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use mlua::{Lua, MultiValue, Table, Value};
use nix::time::{ClockId, clock_gettime};

use super::args::Args;
use super::descriptor_limit::retry_after_collection;
use super::handle::new_free_handle;
use super::listener::ListenerHandle;
use super::stream::Stream;
use super::transport::Transport;
use super::{address, child, connect, listen, poll};
use crate::binding::{self, Fault, Reply};
use crate::sys::os::{sigterm, standard};

/// Puts the functions and the standard streams into the module's table.
pub fn install(lua: &Lua, module: &Table) -> mlua::Result<()> {
    binding::export(lua, module, "poll", poll::poll)?;
    binding::export(lua, module, "exec", child::exec)?;
    binding::export(lua, module, "catch_sigterm", |_, _| Ok(sigterm::catch().map(|_| ())?))?;
    binding::export(lua, module, "getpid", |_, _| Ok(std::process::id()))?;
    binding::export(lua, module, "timeref", timeref)?;
    for (name, connect) in
        [("tcpconnect", connect::tcp as fn(&str, &str) -> _), ("tcpconnect_nb", connect::tcp_nb)]
    {
        binding::export(lua, module, name, move |lua, args| {
            let (host, port) = host_and_port(lua, &mut Args::new(name, args))?;
            handle(lua, retry_after_collection(lua, || Ok(connect(&host, &port)?))?)
        })?;
    }
    binding::export(lua, module, "tcplisten", |lua, args| {
        let (host, port) = host_and_port(lua, &mut Args::new("tcplisten", args))?;
        listener(lua, listen::tcp(&host, &port, listen::BACKLOG)?)
    })?;
    for (name, connect) in
        [("localconnect", connect::local as fn(&Path) -> _), ("localconnect_nb", connect::local_nb)]
    {
        binding::export(lua, module, name, move |lua, args| {
            let path = path(lua, &mut Args::new(name, args))?;
            let path = Path::new(OsStr::from_bytes(&path));
            handle(lua, retry_after_collection(lua, || Ok(connect(path)?))?)
        })?;
    }
    binding::export(lua, module, "locallisten", |lua, args| {
        let path = path(lua, &mut Args::new("locallisten", args))?;
        let path = Path::new(OsStr::from_bytes(&path));
        listener(lua, listen::local(path, &listen::Access::default(), listen::BACKLOG)?)
    })
}

/// Puts handles on the descriptors 0, 1 and 2 into the module's table.
pub fn install_standard_streams(lua: &Lua, module: &Table) -> mlua::Result<()> {
    for (number, name) in (0..).zip(["stdin", "stdout", "stderr"]) {
        let stream = Stream::over(Transport::standard(standard::stream(number)), None);
        module.raw_set(name, new_free_handle(lua, stream)?)?;
    }
    Ok(())
}

fn handle(lua: &Lua, stream: Stream) -> Reply<Value> {
    Ok(Value::UserData(new_free_handle(lua, stream)?))
}

fn listener(lua: &Lua, socket: std::os::fd::OwnedFd) -> Reply<Value> {
    Ok(Value::UserData(lua.create_userdata(ListenerHandle::new(socket))?))
}

/// `timeref(previous)`: seconds of the monotonic clock, minus `previous`.
fn timeref(lua: &Lua, args: MultiValue) -> Reply<f64> {
    let previous = Args::new("timeref", args).number(lua)?.unwrap_or(0.0);
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(now.as_secs_f64() - previous)
}

/// A host name and a port: a number, a numeric string or a service name.
pub fn host_and_port(lua: &Lua, args: &mut Args) -> Reply<(String, String)> {
    let host = args.string(lua)?.to_string_lossy();
    let port = args.string(lua)?.to_string_lossy();
    match address::port(&port) {
        Some(port) => Ok((host, port)),
        None => Err(args.bad("invalid port")),
    }
}

/// The path of a local socket.
fn path(lua: &Lua, args: &mut Args) -> Reply<Vec<u8>> {
    let path = args.string(lua)?.as_bytes().to_vec();
    match address::check_path(&path) {
        Ok(()) => Ok(path),
        Err(text) => Err(Fault::Misuse(text.to_owned())),
    }
}
