//! What a request says, as Lua values made when they are asked for.

use std::borrow::Cow;

use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Table};

use super::step::{Shared, step, with};
use super::tables::{limited, sequence, settle, store};
use crate::http::server::connection::SCHEME;
use crate::http::wire::cookies::cookies;
use crate::http::wire::head::Span;
use crate::http::wire::list::elements;
use crate::http::wire::params;

/// Adds the views to the steps of a connection object.
pub fn add(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    line(lua, table, shared)?;
    headers(lua, table, shared)?;
    // get_params(): the query's names and their values, a store of maps.lua.
    let limit = with(shared, |c| c.options.fields)?;
    step(lua, table, shared, "get_params", move |lua, c, (): ()| {
        let query = with(c, |c| {
            c.params_given = true;
            c.query.of(&c.bytes).get(1..).unwrap_or_default().to_vec()
        })?;
        let pairs = limited(params::pairs(&query), limit, "Too many parameters");
        settle(lua, c, pairs.and_then(|pairs| store(lua, &pairs)))
    })?;
    // cookies(): the same of the cookies.
    step(lua, table, shared, "cookies", move |lua, c, (): ()| {
        let lines = values(c, b"cookie")?;
        let pairs = limited(lines.iter().flat_map(|line| cookies(line)), limit, "Too many cookies");
        settle(lua, c, pairs.and_then(|pairs| store(lua, &pairs)))
    })
}

/// Method, target, path, query, host, version.
fn line(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    let span =
        |name: &str, pick: fn(&crate::http::server::connection::Connection) -> Option<Span>| {
            step(lua, table, shared, name, move |lua, c, (): ()| {
                let text = with(c, |c| pick(c).map(|span| lua.create_string(span.of(&c.bytes))))?;
                text.transpose()?.into_lua_multi(lua)
            })
        };
    span("method", |c| Some(c.head.method))?;
    span("path", |c| c.path)?;
    span("query", |c| c.path.map(|_| c.query))?;
    span("host", |c| Some(c.host))?;
    span("target", |c| Some(c.head.target))?;
    step(lua, table, shared, "version", |lua, c, (): ()| {
        with(c, |c| c.head.version.name())?.into_lua_multi(lua)
    })?;
    step(lua, table, shared, "scheme", |lua, _, (): ()| SCHEME.into_lua_multi(lua))?;
    step(lua, table, shared, "fresh", |lua, c, (): ()| with(c, |c| c.fresh)?.into_lua_multi(lua))?;
    step(lua, table, shared, "faulty", |lua, c, (): ()| {
        with(c, |c| c.faulty)?.into_lua_multi(lua)
    })?;
    Ok(())
}

/// The values of the header lines with this name.
fn values(shared: &Shared, name: &[u8]) -> mlua::Result<Vec<Vec<u8>>> {
    with(shared, |c| {
        let values = c.names.values(&c.head.fields, &c.bytes, name);
        values.into_iter().map(<[u8]>::to_vec).collect()
    })
}

fn slices(texts: &[Vec<u8>]) -> Vec<&[u8]> {
    texts.iter().map(Vec::as_slice).collect()
}

/// Steps `headers`, `headers_csv_string`, … that take a name and return that name's entry.
fn headers(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    const TOO_MANY: &str = "Too many elements in a header";
    let limit = with(shared, |c| c.options.fields)?;
    step(lua, table, shared, "headers", |lua, c, name: LuaString| {
        let values = values(c, &name.as_bytes())?;
        settle(lua, c, sequence(lua, &slices(&values)))
    })?;
    step(lua, table, shared, "headers_csv_table", move |lua, c, name: LuaString| {
        let values = values(c, &name.as_bytes())?;
        let list = limited(values.iter().flat_map(|value| elements(value)), limit, TOO_MANY);
        settle(lua, c, list.and_then(|list| sequence(lua, &list)))
    })?;
    step(lua, table, shared, "headers_csv_string", |lua, c, name: LuaString| {
        lua.create_string(values(c, &name.as_bytes())?.join(&b", "[..]))?.into_lua_multi(lua)
    })?;
    step(lua, table, shared, "headers_value", |lua, c, name: LuaString| {
        match &values(c, &name.as_bytes())?[..] {
            [] => Ok(MultiValue::new()),
            [value] => lua.create_string(value)?.into_lua_multi(lua),
            _ => false.into_lua_multi(lua),
        }
    })?;
    step(lua, table, shared, "headers_flags", move |lua, c, name: LuaString| {
        let values = values(c, &name.as_bytes())?;
        let flag = |element: &[u8]| (Cow::Owned(element.to_ascii_lowercase()), Cow::default());
        let flags = values.iter().flat_map(|value| elements(value)).map(flag);
        let flags = limited(flags, limit, TOO_MANY);
        settle(lua, c, flags.and_then(|flags| store(lua, &flags)))
    })?;
    // header_names(): the names of all header lines, in lower case and each once.
    step(lua, table, shared, "header_names", |lua, c, (): ()| {
        let mut names: Vec<Vec<u8>> = with(c, |c| {
            c.head.fields.iter().map(|f| f.name.of(&c.bytes).to_ascii_lowercase()).collect()
        })?;
        names.sort_unstable();
        names.dedup();
        settle(lua, c, sequence(lua, &slices(&names)))
    })
}
