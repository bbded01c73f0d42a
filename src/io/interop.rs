//! Methods for other event loops: `pollfd`, `events` and `timeout` (cqueues polls any object that
//! has them), `getfd` and `dirty` (LuaSocket's `select`); and `park` and `linger` outside a server.

use std::os::fd::AsRawFd;

use mlua::{IntoLua, Lua, Value};

use super::args::{Args, borrow};
use super::class::{Prototypes, method};
use super::stream::{Direction, Stream};
use super::{child, listener};
use crate::binding::{Fault, Reply};

/// Puts the methods into the tables of the three classes.
pub fn install(lua: &Lua, prototypes: &Prototypes) -> mlua::Result<()> {
    let Prototypes { handle, listener, child } = prototypes;
    method(lua, handle, "pollfd", |_, mut args| open(&mut args, |stream| stream.duplex.raw_fd()))?;
    method(lua, handle, "events", |_, mut args| open(&mut args, |stream| events(stream)))?;
    method(lua, handle, "timeout", |_, mut args| open(&mut args, timeout))?;
    method(lua, handle, "dirty", |_, mut args| open(&mut args, Stream::has_input))?;
    method(lua, handle, "getfd", |_, mut args| {
        let (_, stream) = args.stream()?;
        let fd = borrow(&stream)?.duplex.raw_fd();
        // `select` ignores such objects.
        Ok(fd.unwrap_or(-1))
    })?;
    // Outside a server, the caller has to wait itself.
    for name in ["park", "linger"] {
        method(lua, handle, name, |_, mut args| args.stream().map(|_| false))?;
    }
    for name in ["pollfd", "getfd"] {
        method(lua, listener, name, listener_fd)?;
        method(lua, child, name, child_fd)?;
    }
    for table in [listener, child] {
        method(lua, table, "events", |lua, _| Ok("r".into_lua(lua)?))?;
        method(lua, table, "timeout", |_, _| Ok(Value::Nil))?;
        method(lua, table, "dirty", |_, _| Ok(false))?;
    }
    Ok(())
}

/// Calls `f` with the stream of a handle that is not closed.
fn open<R>(args: &mut Args, f: impl FnOnce(&mut Stream) -> R) -> Reply<R> {
    let (_, stream) = args.stream()?;
    let mut stream = borrow(&stream)?;
    if !stream.is_open() {
        return Err(Fault::misuse("Attempt to poll a closed I/O handle"));
    }
    Ok(f(&mut stream))
}

/// What the last blocked operation waits for; input if there was none.
fn events(stream: &Stream) -> &'static str {
    match stream.duplex.interest() {
        Direction::Read => "r",
        Direction::Write => "w",
    }
}

/// Zero if there is no need to wait, else nil: handles have no timeout.
fn timeout(stream: &mut Stream) -> Option<u8> {
    let ready = match stream.duplex.interest() {
        Direction::Read => stream.has_input(),
        Direction::Write => stream.duplex.raw_fd().is_none(),
    };
    ready.then_some(0)
}

fn listener_fd(_: &Lua, mut args: Args) -> Reply<i32> {
    let listener = listener::this(&mut args)?;
    listener.borrow::<listener::ListenerHandle>()?.with_socket(|socket| Ok(socket.as_raw_fd()))
}

fn child_fd(_: &Lua, mut args: Args) -> Reply<i32> {
    let (_, child) = child::this(&mut args)?;
    child.borrow::<child::ChildProcess>()?.raw_fd()
}
