//! What the client's Lua calls: URLs, connecting, and the steps of a link.
//!
//! A step returns `nil` while it has to wait, and `false, message` when the exchange has failed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use mlua::{
    Function, IntoLuaMulti, Lua, LuaString, MultiValue, Nil, Result, Table, UserData, UserDataRef,
    Value,
};
use nix::poll::PollFlags;

use super::link::{Failure, Link, Received};
use super::url::{Endpoint, Url};
use crate::io::{Stream, connect, new_handle, stream_of};
use crate::sys::resolve;

/// A URL for later references.
struct Base(Url);

impl UserData for Base {}
impl UserData for Link {}

type Steps = Result<MultiValue>;

fn failed(lua: &Lua, message: impl ToString) -> Steps {
    (false, message.to_string()).into_lua_multi(lua)
}

/// The table of native functions.
///
/// # Errors
/// Out of memory.
pub fn table(lua: &Lua) -> Result<Table> {
    let native = lua.create_table()?;
    urls(lua, &native)?;
    connecting(lua, &native)?;
    sending(lua, &native)?;
    receiving(lua, &native)?;
    native.raw_set("version", env!("CARGO_PKG_VERSION"))?;
    native.raw_set("pid", lua.create_function(|_, ()| Ok(std::process::id()))?)?;
    let start = std::time::Instant::now();
    native.raw_set("now", lua.create_function(move |_, ()| Ok(start.elapsed().as_secs_f64()))?)?;
    Ok(native)
}

/// `parse(text)` and `join(url, reference)`: a table with `key` (of the pool of connections),
/// `host` and `port` or `path`, `authority`, `target`, `credentials`; or false and a message.
fn urls(lua: &Lua, native: &Table) -> Result<()> {
    let parse = lua.create_function(|lua, text: LuaString| match Url::parse(&text.as_bytes()) {
        Ok(url) => url_table(lua, url),
        Err(error) => failed(lua, error),
    })?;
    let join = lua.create_function(|lua, (url, reference): (Table, LuaString)| {
        let base: UserDataRef<Base> = url.raw_get("base")?;
        match base.0.join(&reference.as_bytes()) {
            Ok(url) => url_table(lua, url),
            Err(error) => failed(lua, error),
        }
    })?;
    native.raw_set("parse", parse)?;
    native.raw_set("join", join)
}

fn url_table(lua: &Lua, url: Url) -> Steps {
    let table = lua.create_table()?;
    match &url.endpoint {
        Endpoint::Tcp(host, port) => {
            table.raw_set("key", format!("{host} {port}"))?;
            table.raw_set("host", &**host)?;
            table.raw_set("port", *port)?;
        }
        Endpoint::Local(path) => {
            table.raw_set("key", lua.create_string([b"unix:", &**path].concat())?)?;
            table.raw_set("path", lua.create_string(path)?)?;
        }
    }
    table.raw_set("authority", &*url.authority)?;
    table.raw_set("target", lua.create_string(&url.target)?)?;
    if let Some(credentials) = &url.credentials {
        table.raw_set("authorization", format!("Basic {}", base64(credentials)))?;
    }
    table.raw_set("base", lua.create_userdata(Base(url))?)?;
    table.into_lua_multi(lua)
}

/// RFC 4648 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - group.len()));
        for position in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * position)) as usize & 63);
            let used = position <= group.len();
            text.push(digit.filter(|_| used).map_or('=', |&digit| char::from(digit)));
        }
    }
    text
}

/// `addresses(host, port)`: a list of texts; `connect(address)` and `connect_local(path)`: a handle
/// and its link, under way; `connected(link)`: true once it is established;
/// `close(link, in_order)`.
fn connecting(lua: &Lua, native: &Table) -> Result<()> {
    fn link(lua: &Lua, outcome: std::io::Result<Stream>) -> Steps {
        match outcome {
            Ok(stream) => {
                let handle = new_handle(lua, stream)?;
                match stream_of(&handle) {
                    Some(stream) => (handle, Link::new(stream)).into_lua_multi(lua),
                    None => failed(lua, "handle is gone"),
                }
            }
            Err(error) => failed(lua, Failure::Io(error).text()),
        }
    }
    let addresses = lua.create_function(|lua, (host, port): (String, u16)| {
        match resolve::tcp(&host, &port.to_string(), false) {
            Ok(list) => {
                let list: Vec<String> = list.iter().map(SocketAddr::to_string).collect();
                list.into_lua_multi(lua)
            }
            Err(error) => failed(lua, error),
        }
    })?;
    native.raw_set("addresses", addresses)?;
    let connect_tcp =
        lua.create_function(|lua, address: String| match address.parse::<SocketAddr>() {
            Ok(address) => link(lua, connect::start(address)),
            Err(error) => failed(lua, error),
        })?;
    native.raw_set("connect", connect_tcp)?;
    let connect_local = lua.create_function(|lua, path: LuaString| {
        let path = path.as_bytes();
        link(lua, connect::local_nb(Path::new(std::ffi::OsStr::from_bytes(&path))))
    })?;
    native.raw_set("connect_local", connect_local)?;
    let connected = lua.create_function(|lua, link: UserDataRef<Link>| match link.connected() {
        Ok(()) => true.into_lua_multi(lua),
        Err(failure) => failed(lua, failure.text()),
    })?;
    native.raw_set("connected", connected)?;
    let close = lua.create_function(|_, (link, in_order): (UserDataRef<Link>, bool)| {
        link.close(in_order);
        Ok(())
    })?;
    native.raw_set("close", close)
}

/// `send(link, ...)`: how many bytes remain queued; `wait(link, "r" | "w" | "rw", seconds)`: whether
/// that is possible.
fn sending(lua: &Lua, native: &Table) -> Result<()> {
    type Parts = (UserDataRef<Link>, Option<LuaString>, Option<LuaString>, Option<LuaString>);
    let send = lua.create_function(|lua, (link, a, b, c): Parts| {
        let (a, b, c) = (
            a.as_ref().map(LuaString::as_bytes),
            b.as_ref().map(LuaString::as_bytes),
            c.as_ref().map(LuaString::as_bytes),
        );
        let parts = [&a, &b, &c].map(|part| part.as_deref().unwrap_or_default());
        match link.send(&parts) {
            Ok(left) => left.into_lua_multi(lua),
            Err(failure) => failed(lua, failure.text()),
        }
    })?;
    native.raw_set("send", send)?;
    let wait =
        lua.create_function(|lua, (link, mode, seconds): (UserDataRef<Link>, LuaString, f64)| {
            let flags = match &*mode.as_bytes() {
                b"r" => PollFlags::POLLIN,
                b"w" => PollFlags::POLLOUT,
                _ => PollFlags::POLLIN | PollFlags::POLLOUT,
            };
            let timeout = Duration::try_from_secs_f64(seconds.clamp(0.0, 1e9)).unwrap_or_default();
            match link.wait(flags, timeout) {
                Ok(ready) => ready.into_lua_multi(lua),
                Err(failure) => failed(lua, failure.text()),
            }
        })?;
    native.raw_set("wait", wait)
}

/// `head(link, to_head)`: status, headers, status line; `body(link)`: a piece of the body, "" at its
/// end; `whole(link, to_head)`: status, headers, status line, body, and whether the connection
/// can be used again, if all is there; `silent(link)`, `answered(link)`, `reusable(link)`: see [`Link`].
fn receiving(lua: &Lua, native: &Table) -> Result<()> {
    let meta = header_meta(lua)?;
    let whole_meta = meta.clone();
    let whole = lua.create_function(move |lua, (link, to_head): (UserDataRef<Link>, bool)| {
        let taken = link.whole(to_head, |received, body, reusable| -> Steps {
            let mut values = response(lua, &whole_meta, received)?;
            values.push_back(Value::String(lua.create_string(body)?));
            values.push_back(Value::Boolean(reusable));
            Ok(values)
        });
        match taken {
            Ok(Some(values)) => values,
            Ok(None) => Nil.into_lua_multi(lua),
            Err(failure) => failed(lua, failure.text()),
        }
    })?;
    native.raw_set("whole", whole)?;
    let head = lua.create_function(move |lua, (link, to_head): (UserDataRef<Link>, bool)| {
        match link.head(to_head, |received| response(lua, &meta, received)) {
            Ok(Some(values)) => values,
            Ok(None) => Nil.into_lua_multi(lua),
            Err(failure) => failed(lua, failure.text()),
        }
    })?;
    native.raw_set("head", head)?;
    let body = lua.create_function(|lua, link: UserDataRef<Link>| {
        match link.body(|piece| lua.create_string(piece)) {
            Ok(Some(piece)) => piece?.into_lua_multi(lua),
            Ok(None) => Nil.into_lua_multi(lua),
            Err(failure) => failed(lua, failure.text()),
        }
    })?;
    native.raw_set("body", body)?;
    let is = |name, question: fn(&Link) -> bool| {
        native.raw_set(
            name,
            lua.create_function(move |_, link: UserDataRef<Link>| Ok(question(&link)))?,
        )
    };
    is("silent", Link::is_silent)?;
    is("answered", Link::is_answered)?;
    is("reusable", Link::is_reusable)
}

/// Makes header names case-insensitive: the keys are in lower case.
fn header_meta(lua: &Lua) -> Result<Table> {
    let index: Function = lua
        .load(
            "local rawget, type, lower = rawget, type, string.lower
             return function(headers, name)
               if type(name) == 'string' then return rawget(headers, lower(name)) end
             end",
        )
        .set_name("=moonbridge.http.client.headers")
        .eval()?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", index)?;
    Ok(meta)
}

fn response(lua: &Lua, meta: &Table, received: Received<'_>) -> Steps {
    let headers = header_table(lua, &received)?;
    headers.set_metatable(Some(meta.clone()))?;
    (received.status, headers, lua.create_string(received.status_line())?).into_lua_multi(lua)
}

/// The values of the fields by their names in lower case. Those that were sent more than once are
/// joined by commas; those of Set-Cookie, which hold commas themselves, by line feeds, which no
/// value holds (RFC 9110 5.3).
fn header_table(lua: &Lua, received: &Received<'_>) -> Result<Table> {
    let headers = lua.create_table_with_capacity(0, 8)?;
    let mut joined: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    // Bits of the names so far: most names need no look-up.
    let mut seen = 0u64;
    let mut lower = Vec::with_capacity(32);
    for (name, value) in received.fields() {
        lower.clear();
        lower.extend(name.iter().map(u8::to_ascii_lowercase));
        let first = lower.first().copied().unwrap_or_default();
        let bit = 1u64 << (usize::from(first).wrapping_mul(7).wrapping_add(lower.len()) % 64);
        let key = lua.create_string(&lower)?;
        if seen & bit != 0
            && let Value::String(first) = headers.raw_get(&key)?
        {
            let separator: &[u8] = if lower == b"set-cookie" { b"\n" } else { b", " };
            let text = joined.entry(lower.clone()).or_insert_with(|| first.as_bytes().to_vec());
            text.extend_from_slice(separator);
            text.extend_from_slice(&value);
            continue;
        }
        seen |= bit;
        headers.raw_set(key, lua.create_string(&value)?)?;
    }
    for (name, value) in joined {
        headers.raw_set(lua.create_string(name)?, lua.create_string(value)?)?;
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_4648_10_test_vectors() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }
}
