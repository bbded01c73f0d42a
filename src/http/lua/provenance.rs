//! Where a request comes from and what names it, as Lua values; and lines of the log that name it.

use std::io::Write;

use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Table};

use super::step::{SharedConnection, StepResult, step, with};
use crate::binding;
use crate::http::server::connection::HttpConnection;
use crate::http::server::origin;
use crate::http::wire::forwarded::Origin;
use crate::proxy::proxied::Peer;
use crate::server::log_text;

/// Adds to the steps of a connection object:
///
/// * `client_ip()`, `scheme()`, `host()`, `id()`, `traceparent()`, `tracestate()`: fields of the current request;
/// * `error_log(text)`: writes a line to the log.
pub fn add(lua: &Lua, table: &Table, shared: &SharedConnection) -> mlua::Result<()> {
    step(lua, table, shared, "client_ip", |lua, c, (): ()| {
        let client = with(c, |c| {
            let Some(stream) = c.exchange.stream.borrow() else {
                // The handler has closed the connection.
                return match told_by_proxies(c).client {
                    Some(Peer::Internet(ip, _)) => Some(ip),
                    Some(Peer::Local) | None => None,
                };
            };
            // The system tells the peer of a connection that the server has not accepted.
            stream.endpoints();
            origin::client(&c.request, &c.exchange.options, c.is_believed, &stream)
                .map(|client| client.ip())
        })?;
        client.map(|ip| ip.to_canonical().to_string()).into_lua_multi(lua)
    })?;
    step(lua, table, shared, "scheme", |lua, c, (): ()| {
        let scheme = with(c, |c| told_by_proxies(c).scheme.unwrap_or(c.scheme()).to_owned())?;
        scheme.into_lua_multi(lua)
    })?;
    step(lua, table, shared, "host", |lua, c, (): ()| {
        let host = told(c, |told, host| told.host.as_deref().unwrap_or(host).to_vec())?;
        bytes(lua, &host)
    })?;
    step(lua, table, shared, "id", |lua, c, (): ()| {
        bytes(lua, &with(c, |c| c.identity().names().with_id(<[u8]>::to_vec))?)
    })?;
    step(lua, table, shared, "traceparent", |lua, c, (): ()| {
        bytes(lua, &with(c, |c| c.identity().names().with_trace_parent(<[u8]>::to_vec))?)
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
fn told<R>(c: &SharedConnection, work: impl FnOnce(Origin<'_>, &[u8]) -> R) -> mlua::Result<R> {
    with(c, |c| work(told_by_proxies(c), c.request.host.of(&c.request.bytes)))
}

fn told_by_proxies(c: &HttpConnection) -> Origin<'_> {
    origin::told(&c.request, &c.exchange.options, c.is_believed).unwrap_or_default()
}

fn bytes(lua: &Lua, text: &[u8]) -> StepResult {
    binding::bytes(lua, text)?.into_lua_multi(lua)
}
