//! The steps of a connection as Lua functions, for the Lua chunks: a table of them for each connection object.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Table};

use super::step::{Code, SharedConnection, step, with};
use super::{body_steps, file_steps, form_steps, hold, provenance, request_methods, turn, views};
use crate::http::server::connection::HttpConnection;
use crate::http::server::options::Options;
use crate::http::server::time_limits::TimeLimits;
use crate::http::server::usability::Problem;

/// The steps of a connection object, in a table.
pub fn steps(lua: &Lua, shared: &SharedConnection) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    response(lua, &table, shared)?;
    body_steps::add(lua, &table, shared)?;
    Ok(table)
}

fn response(lua: &Lua, table: &Table, shared: &SharedConnection) -> mlua::Result<()> {
    step(lua, table, shared, "has_status", |lua, c, (): ()| {
        with(c, |c| c.exchange.output.response.stage().has_status())?.into_lua_multi(lua)
    })?;
    // blame(code, text): what is raised for the problem that a step has reported.
    step(lua, table, shared, "blame", |lua, c, (kind, text): (i64, String)| {
        let problem = match kind {
            kind if kind == Code::Refused as i64 => Problem::Refused(text),
            kind if kind == Code::Failed as i64 => Problem::Io(io::Error::other(text)),
            _ => Problem::Misuse(text.into()),
        };
        with(c, |c| c.exchange.raised(problem))?.into_lua_multi(lua)
    })?;
    // fail(): the request cannot be used any more.
    step(lua, table, shared, "fail", |_, c, (): ()| {
        with(c, |c| c.exchange.usability.is_faulty = true)?;
        Ok(MultiValue::new())
    })?;
    Ok(())
}

/// A function that makes connection objects: it returns the steps and the views of a new one.
pub fn factory(lua: &Lua, options: Rc<Options>, times: TimeLimits) -> mlua::Result<Function> {
    lua.create_function(move |lua, ()| {
        let shared = Rc::new(RefCell::new(HttpConnection::new(options.clone())));
        let table = steps(lua, &shared)?;
        views::add(lua, &table, &shared)?;
        form_steps::add(lua, &table, &shared)?;
        provenance::add(lua, &table, &shared)?;
        file_steps::add(lua, &table, &shared)?;
        hold::add(lua, &table, &shared)?;
        request_methods::add(lua, &table, &shared)?;
        turn::add(lua, &table, &shared, times)?;
        Ok(table)
    })
}
