//! URLs as the client's Lua knows them.

use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Result, Table, UserData, UserDataRef};

use super::native::refused;
use super::url::{Endpoint, Url, join};
use crate::http::wire::base64::base64;

/// A URL for later references.
struct Base(Url);

impl UserData for Base {}

/// `parse(text)` and `join(url, reference)`: a table with `key` (of the pool of connections),
/// `host` and `port` or `path`, `secure`, `authority`, `target`, `authorization`; or false and a message.
pub fn install(lua: &Lua, native: &Table) -> Result<()> {
    let parse = lua.create_function(|lua, text: LuaString| match Url::parse(&text.as_bytes()) {
        Ok(url) => url_table(lua, url),
        Err(error) => refused(lua, error),
    })?;
    let join = lua.create_function(|lua, (url, reference): (Table, LuaString)| {
        let base: UserDataRef<Base> = url.raw_get("base")?;
        match join(&base.0, &reference.as_bytes()) {
            Ok(url) => url_table(lua, url),
            Err(error) => refused(lua, error),
        }
    })?;
    native.raw_set("parse", parse)?;
    native.raw_set("join", join)
}

fn url_table(lua: &Lua, url: Url) -> Result<MultiValue> {
    let table = lua.create_table()?;
    match &url.endpoint {
        Endpoint::Tcp(host, port) => {
            let scheme = if url.secure { "https " } else { "" };
            table.raw_set("key", format!("{scheme}{host} {port}"))?;
            table.raw_set("host", &**host)?;
            table.raw_set("port", *port)?;
        }
        Endpoint::Local(path) => {
            table.raw_set("key", lua.create_string([b"unix:", &**path].concat())?)?;
            table.raw_set("path", lua.create_string(path)?)?;
        }
    }
    table.raw_set("secure", url.secure)?;
    table.raw_set("authority", &*url.authority)?;
    table.raw_set("target", lua.create_string(&url.target)?)?;
    if let Some(credentials) = &url.credentials {
        table.raw_set("authorization", format!("Basic {}", base64(credentials)))?;
    }
    table.raw_set("base", lua.create_userdata(Base(url))?)?;
    table.into_lua_multi(lua)
}
