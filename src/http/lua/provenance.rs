//! Where a request comes from and what names it, as Lua values; and lines of the log that name it.

use std::io::Write;

use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Table};

use super::step::{SharedConnection, StepResult, step, with};
use crate::binding;
use crate::http::server::connection::SCHEME;
use crate::http::server::origin;
use crate::http::wire::forwarded::Origin;
use crate::server::operator::log_text;

/// Adds to the steps of a connection object:
///
/// * `client_ip()`, `scheme()`, `host()`, `id()`, `traceparent()`, `tracestate()`: fields of the current request;
/// * `error_log(text)`: writes a line to the log.
pub fn add(lua: &Lua, table: &Table, shared: &SharedConnection) -> mlua::Result<()> {
    step(lua, table, shared, "client_ip", |lua, c, (): ()| {
        let client = with(c, |c| {
            let stream = c.stream.look()?;
            // The system tells the peer of a connection that the server has not accepted.
            stream.endpoints();
            origin::client(&c.request, &c.options, &stream)
        })?;
        client.map(|client| client.ip().to_canonical().to_string()).into_lua_multi(lua)
    })?;
    step(lua, table, shared, "scheme", |lua, c, (): ()| {
        told(c, |told, _| told.scheme.unwrap_or(SCHEME).to_owned())?.into_lua_multi(lua)
    })?;
    step(lua, table, shared, "host", |lua, c, (): ()| {
        let host = told(c, |told, host| told.host.as_deref().unwrap_or(host).to_vec())?;
        bytes(lua, &host)
    })?;
    step(lua, table, shared, "id", |lua, c, (): ()| {
        bytes(lua, &with(c, |c| c.identity().id().to_vec())?)
    })?;
    step(lua, table, shared, "traceparent", |lua, c, (): ()| {
        bytes(lua, &with(c, |c| c.identity().trace_parent().to_vec())?)
    })?;
    step(lua, table, shared, "tracestate", |lua, c, (): ()| {
        match with(c, |c| c.identity().trace_state().to_vec())? {
            state if state.is_empty() => Ok(MultiValue::new()),
            state => bytes(lua, &state),
        }
    })?;
    step(lua, table, shared, "error_log", |_, c, text: LuaString| {
        let request = with(c, |c| c.describe())?.unwrap_or_default();
        let text = log_text::line(&text.as_bytes());
        let line = [&request, &b": "[..], text.as_bytes(), b"\n"].concat();
        // A log that takes nothing is no reason for a handler to fail.
        let _ = std::io::stderr().write_all(&line);
        Ok(MultiValue::new())
    })
}

/// What proxies tell of the request, and the host that it names itself.
fn told<R>(c: &SharedConnection, look: impl FnOnce(Origin<'_>, &[u8]) -> R) -> mlua::Result<R> {
    with(c, |c| {
        let stream = c.stream.look();
        let told = stream.and_then(|it| origin::told(&c.request, &c.options, &it).ok());
        look(told.unwrap_or_default(), c.request.host.of(&c.request.bytes))
    })
}

fn bytes(lua: &Lua, text: &[u8]) -> StepResult {
    binding::bytes(lua, text)?.into_lua_multi(lua)
}
