//! What the client's Lua calls: connecting, sending, receiving bodies. Links are numbers, see
//! [`links`].
//!
//! A step returns `nil` while it has to wait, and `false, message, code` when the exchange has failed; the code
//! is nil if there is none.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Nil, Result, Table};

use super::exchange_error::ExchangeError;
use super::link::Link;
use super::{answers, links};
use crate::http::wire::trace_context::TraceParent;
use crate::io::{Stream, connect, new_handle, stream_of};
use crate::known_options;
use crate::sys::os::{random, resolve};

type Steps = Result<MultiValue>;

/// `false, message`.
pub(super) fn refused(lua: &Lua, message: impl ToString) -> Steps {
    (false, message.to_string()).into_lua_multi(lua)
}

/// `false, message, code`.
pub(super) fn failed(lua: &Lua, failure: &ExchangeError) -> Steps {
    (false, failure.text(), failure.code()).into_lua_multi(lua)
}

/// The table of native functions.
pub fn table(lua: &Lua) -> Result<Table> {
    let native = lua.create_table()?;
    connecting(lua, &native)?;
    sending(lua, &native)?;
    receiving(lua, &native)?;
    answers::install(lua, &native)?;
    native.raw_set("nearest", known_options::nearest_function(lua)?)?;
    native.raw_set("passed_on", lua.create_function(passed_on)?)?;
    native.raw_set("version", env!("CARGO_PKG_VERSION"))?;
    Ok(native)
}

/// `passed_on(traceparent)`: one for what a request asks of another service; nil if the text is none.
fn passed_on(lua: &Lua, text: LuaString) -> Steps {
    let Some(from) = TraceParent::parse(&text.as_bytes()) else { return Nil.into_lua_multi(lua) };
    lua.create_string(from.passed_on(random::bytes()).text())?.into_lua_multi(lua)
}

fn link_of(number: i64) -> std::result::Result<Rc<Link>, ExchangeError> {
    links::get(number).ok_or(ExchangeError::Gone)
}

/// `addresses(host, port)`: a list of texts; `connect(address)` and `connect_local(path)`: a handle,
/// its link, and what keeps the link alive, under way; `connected(link)`: true once it is
/// established; `close(link, in_order)`; `lenient(link, whether)`: see [`Link::set_lenient`].
fn connecting(lua: &Lua, native: &Table) -> Result<()> {
    fn link(lua: &Lua, outcome: std::io::Result<Stream>) -> Steps {
        match outcome {
            Ok(stream) => {
                let handle = new_handle(lua, stream)?;
                let Some(stream) = stream_of(&handle) else {
                    return failed(lua, &ExchangeError::Gone);
                };
                let (number, owner) = links::register(Link::new(stream));
                (handle, number, lua.create_userdata(owner)?).into_lua_multi(lua)
            }
            Err(error) => failed(lua, &ExchangeError::Io(error)),
        }
    }
    let addresses = lua.create_function(|lua, (host, port): (String, u16)| {
        match resolve::tcp(&host, &port.to_string(), false) {
            Ok(list) => {
                let list: Vec<String> = list.iter().map(SocketAddr::to_string).collect();
                list.into_lua_multi(lua)
            }
            Err(error) => failed(lua, &ExchangeError::Io(error)),
        }
    })?;
    native.raw_set("addresses", addresses)?;
    let connect_tcp =
        lua.create_function(|lua, address: String| match address.parse::<SocketAddr>() {
            Ok(address) => link(lua, connect::start(address)),
            Err(error) => refused(lua, error),
        })?;
    native.raw_set("connect", connect_tcp)?;
    let connect_local = lua.create_function(|lua, path: LuaString| {
        let path = path.as_bytes();
        link(lua, connect::local_nb(Path::new(std::ffi::OsStr::from_bytes(&path))))
    })?;
    native.raw_set("connect_local", connect_local)?;
    let connected = lua.create_function(|lua, link: i64| {
        match link_of(link).and_then(|link| link.connected()) {
            Ok(()) => true.into_lua_multi(lua),
            Err(failure) => failed(lua, &failure),
        }
    })?;
    native.raw_set("connected", connected)?;
    let close = lua.create_function(|_, (link, in_order): (i64, bool)| {
        if let Some(link) = links::get(link) {
            link.close(in_order);
        }
        Ok(())
    })?;
    native.raw_set("close", close)?;
    let lenient = lua.create_function(|_, (link, lenient): (i64, bool)| {
        if let Some(link) = links::get(link) {
            link.set_lenient(lenient);
        }
        Ok(())
    })?;
    native.raw_set("lenient", lenient)
}

/// `send(link, ...)`: how many bytes remain queued; `wait(link, "r" | "w" | "rw", seconds)`: whether
/// that is possible.
fn sending(lua: &Lua, native: &Table) -> Result<()> {
    type SendArguments = (i64, Option<LuaString>, Option<LuaString>, Option<LuaString>);
    let send = lua.create_function(|lua, (link, a, b, c): SendArguments| {
        let (a, b, c) = (
            a.as_ref().map(LuaString::as_bytes),
            b.as_ref().map(LuaString::as_bytes),
            c.as_ref().map(LuaString::as_bytes),
        );
        let parts = [&a, &b, &c].map(|part| part.as_deref().unwrap_or_default());
        match link_of(link).and_then(|link| link.send(&parts)) {
            Ok(left) => left.into_lua_multi(lua),
            Err(failure) => failed(lua, &failure),
        }
    })?;
    native.raw_set("send", send)?;
    let wait = lua.create_function(|lua, (link, mode, seconds): (i64, LuaString, f64)| {
        let (read, write) = match &*mode.as_bytes() {
            b"r" => (true, false),
            b"w" => (false, true),
            _ => (true, true),
        };
        let timeout = Duration::try_from_secs_f64(seconds.clamp(0.0, 1e9)).unwrap_or_default();
        match link_of(link).and_then(|link| link.wait(read, write, timeout)) {
            Ok(ready) => ready.into_lua_multi(lua),
            Err(failure) => failed(lua, &failure),
        }
    })?;
    native.raw_set("wait", wait)
}

/// `body(link)`: a piece of the body, "" at its end; `answered(link)`, `persistent(link)`,
/// `reusable(link)`: see [`Link`].
fn receiving(lua: &Lua, native: &Table) -> Result<()> {
    let body = lua.create_function(|lua, link: i64| {
        match link_of(link).and_then(|link| link.body(|piece| lua.create_string(piece))) {
            Ok(Some(Ok(piece))) => piece.into_lua_multi(lua),
            // The Lua around it throws this as the plain string that Lua itself throws.
            Ok(Some(Err(mlua::Error::MemoryError(_)))) => refused(lua, "not enough memory"),
            Ok(Some(Err(error))) => Err(error),
            Ok(None) => Nil.into_lua_multi(lua),
            Err(failure) => failed(lua, &failure),
        }
    })?;
    native.raw_set("body", body)?;
    let is = |name, question: fn(&Link) -> bool| {
        let ask =
            move |_: &Lua, link: i64| Ok(links::get(link).is_some_and(|link| question(&link)));
        native.raw_set(name, lua.create_function(ask)?)
    };
    is("answered", Link::is_answered)?;
    is("persistent", Link::is_persistent)?;
    is("reusable", Link::is_reusable)
}
