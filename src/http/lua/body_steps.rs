//! The steps of receiving a body, for `body.lua` and `streaming.lua`. What they return: steps.rs.

use mlua::{IntoLuaMulti, Lua, MultiValue, Table};

use super::step::{Code, SharedConnection, code, problem, queued, step, with};
use crate::http::server::request_body::{Reader, Supply};
use crate::http::wire::refusal::Refusal;

/// Adds them to the steps of a connection object.
pub fn add(lua: &Lua, table: &Table, shared: &SharedConnection) -> mlua::Result<()> {
    // discard_body([close]): the rest of the body is thrown away, and the connection closed after the
    // response.
    step(lua, table, shared, "discard_body", |_, c, close: Option<bool>| {
        with(c, |c| {
            // If the request cannot be used any more, there is nothing to be discarded.
            let usable = c.exchange.set_reader(Reader::Discard);
            if close.unwrap_or(false) && usable.is_ok() {
                let _ = c.exchange.output.response.close_after_finish();
            }
        })?;
        Ok(MultiValue::new())
    })?;
    // next_chunk(): a string of the body; or INPUT, END or a problem's code.
    step(lua, table, shared, "next_chunk", |lua, c, (): ()| {
        match with(c, |c| c.exchange.supply())? {
            Ok(Supply::Ready) => {
                let chunk = with(c, |c| {
                    let ready = c.exchange.body.ready();
                    let chunk = ready.get(..c.exchange.options.input_chunk).unwrap_or(ready);
                    let result = lua.create_string(chunk);
                    let size = chunk.len();
                    c.exchange.body.consume(size);
                    result
                })?;
                chunk?.into_lua_multi(lua)
            }
            Ok(Supply::Block) => code(lua, Code::Input),
            Ok(Supply::End) => code(lua, Code::End),
            Err(error) => problem(lua, error),
        }
    })?;
    // whole(): the rest of the body as a string; or INPUT or a problem's code.
    step(lua, table, shared, "whole", |lua, c, (): ()| match with(c, |c| c.exchange.absorb())? {
        Ok(true) => code(lua, Code::Input),
        Ok(false) => {
            let whole = with(c, |c| {
                let body = &mut c.exchange.body;
                let whole = lua.create_string(body.ready());
                body.consume(body.ready().len());
                whole
            })?;
            whole?.into_lua_multi(lua)
        }
        Err(error) => problem(lua, error),
    })?;
    // absorb(): receives what is there; INPUT if more may come.
    step(lua, table, shared, "absorb", |lua, c, (): ()| match with(c, |c| c.exchange.absorb())? {
        Ok(true) => code(lua, Code::Input),
        Ok(false) => Ok(MultiValue::new()),
        Err(error) => problem(lua, error),
    })?;
    // received(): how many bytes of input the body has taken so far.
    step(lua, table, shared, "received", |lua, c, (): ()| {
        with(c, |c| c.exchange.body.received())?.into_lua_multi(lua)
    })?;
    // prepare_wait(): sends what the client may wait for.
    step(lua, table, shared, "prepare_wait", |lua, c, (): ()| {
        queued(lua, with(c, |c| c.exchange.prepare_wait())?, 0)
    })?;
    // refuse_stall(): the client is too slow with its body; the words to be raised.
    step(lua, table, shared, "refuse_stall", |lua, c, (): ()| {
        let refusal = Refusal::timeout("Request body timed out");
        problem(lua, with(c, |c| c.exchange.refuse_body(&refusal))?)
    })?;
    Ok(())
}
