//! The steps of a connection as Lua functions, for `cycle.lua`: a table of them for each connection object.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use mlua::{AnyUserData, Function, IntoLuaMulti, Lua, LuaString, MultiValue, Table, UserData};

use super::step::{Code, Shared, code, problem, queued, step, with};
use super::{body_steps, form_steps, request_methods, turn, views};
use crate::http::server::connection::{
    Blameless, Conclusion, Connection, Opened, Partial, Problem,
};
use crate::http::server::options::Options;
use crate::http::wire::refusal::Refusal;
use crate::io::stream_of;
use crate::server::worker::context;

/// A request that is not complete, kept while its connection is not served.
struct Suspended(RefCell<Option<Partial>>);

impl UserData for Suspended {}

/// The steps of a connection object, in a table.
pub fn steps(lua: &Lua, shared: &Shared) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    opening(lua, &table, shared)?;
    response(lua, &table, shared)?;
    body_steps::add(lua, &table, shared)?;
    Ok(table)
}

fn opening(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    // open(socket [, suspended]): IDLE, PARTIAL, BUFFERING, REFUSED, GONE, or nothing if a request is there.
    step(
        lua,
        table,
        shared,
        "open",
        |lua, c, (socket, partial): (AnyUserData, Option<AnyUserData>)| {
            let Some(stream) = stream_of(&socket) else {
                return (Code::Misuse as i64, "Socket expected").into_lua_multi(lua);
            };
            let head = match &partial {
                Some(partial) => partial.borrow::<Suspended>()?.0.take(),
                None => None,
            };
            match with(c, |c| c.open(stream, head))? {
                Opened::Ready => {
                    context::begin(c);
                    Ok(MultiValue::new())
                }
                opened => code(lua, Code::from(opened)),
            }
        },
    )?;
    // suspend(): the incomplete head, for a later open.
    step(lua, table, shared, "suspend", |lua, c, (): ()| {
        let head = with(c, Connection::suspend)?;
        lua.create_userdata(Suspended(RefCell::new(Some(head))))?.into_lua_multi(lua)
    })?;
    // refuse_wait(sentence): the refusal of a client that is too slow with its request.
    step(lua, table, shared, "refuse_wait", |_, c, which: LuaString| {
        let sentence = match &*which.as_bytes() {
            b"idle" => "Idle connection timed out",
            b"shutdown" => "Server shutdown",
            b"body" => "Request body timed out",
            _ => "Request header timed out",
        };
        with(c, |c| c.refuse_wait(sentence))?;
        Ok(MultiValue::new())
    })?;
    // missing(): how many bytes of a body are missing that is waited for; 0 if that is unknown.
    step(lua, table, shared, "missing", |lua, c, (): ()| {
        with(c, |c| c.missing().unwrap_or(0))?.into_lua_multi(lua)
    })?;
    // was_asked(): whether a request of this connection was taken before.
    step(lua, table, shared, "was_asked", |lua, c, (): ()| {
        with(c, |c| c.was_asked())?.into_lua_multi(lua)
    })?;
    // close(): the connection object is free.
    step(lua, table, shared, "close", |_, c, (): ()| {
        with(c, Connection::close)?;
        context::end();
        Ok(MultiValue::new())
    })?;
    // release(): the usual turn can use the connection object again.
    step(lua, table, shared, "release", |_, c, (): ()| {
        with(c, |c| c.serving = false)?;
        Ok(MultiValue::new())
    })?;
    step(lua, table, shared, "is_open", |lua, c, (): ()| {
        with(c, |c| c.is_open())?.into_lua_multi(lua)
    })?;
    Ok(())
}

fn response(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    // send_out(limit): tries to send what is queued; OUTPUT while that is more than `limit`.
    step(lua, table, shared, "send_out", |lua, c, limit: usize| {
        queued(lua, with(c, Connection::send_out)?, limit)
    })?;
    // conclude(keep, reads): the end of the handler (`Connection::conclude`). Nothing if the
    // connection is ready for its next request, CLOSE if it can be closed at once, END if more has to
    // be done.
    step(lua, table, shared, "conclude", |lua, c, (keep, reads): (bool, bool)| {
        match with(c, |c| c.conclude(keep, reads))? {
            Ok(Conclusion::Keep) => {
                with(c, Connection::close)?;
                context::end();
                Ok(MultiValue::new())
            }
            Ok(Conclusion::Close) => code(lua, Code::Close),
            Ok(Conclusion::More) => code(lua, Code::End),
            Err(error) => problem(lua, error),
        }
    })?;
    // leave_body(): nobody reads the rest of the body; whether the connection can be kept.
    step(lua, table, shared, "leave_body", |lua, c, (): ()| {
        let reusable = with(c, |c| {
            c.leave_body();
            c.is_reusable()
        })?;
        reusable.into_lua_multi(lua)
    })?;
    step(lua, table, shared, "has_status", |lua, c, (): ()| {
        with(c, |c| c.response.has_status())?.into_lua_multi(lua)
    })?;
    // has_left(): whether a part of the response was sent, so that it cannot be replaced any more.
    step(lua, table, shared, "has_left", |lua, c, (): ()| {
        with(c, |c| c.has_left())?.into_lua_multi(lua)
    })?;
    // is_finished(): whether the response is complete and the connection fit to take it.
    step(lua, table, shared, "is_finished", |lua, c, (): ()| {
        with(c, |c| c.response.is_finished() && !c.faulty)?.into_lua_multi(lua)
    })?;
    // blame(code, text): what is raised for the problem that a step has reported.
    step(lua, table, shared, "blame", |lua, c, (kind, text): (i64, String)| {
        let problem = match kind {
            kind if kind == Code::Refused as i64 => Problem::Refused(text),
            kind if kind == Code::Failed as i64 => Problem::Io(io::Error::other(text)),
            _ => Problem::Misuse(text.into()),
        };
        with(c, |c| c.raised(problem))?.into_lua_multi(lua)
    })?;
    // blameless(): REFUSED or FAILED and the words if something was raised without the handler's fault.
    step(lua, table, shared, "blameless", |lua, c, (): ()| {
        with(c, |c| match &c.blameless {
            Some(Blameless::Refused(words)) => (Code::Refused as i64, &**words).into_lua_multi(lua),
            Some(Blameless::Lost(words)) => (Code::Failed as i64, &**words).into_lua_multi(lua),
            None => Ok(MultiValue::new()),
        })?
    })?;
    // fail(): the request cannot be used any more.
    step(lua, table, shared, "fail", |_, c, (): ()| {
        with(c, |c| c.faulty = true)?;
        Ok(MultiValue::new())
    })?;
    // disarm(): the handler's timer is off.
    step(lua, table, shared, "disarm", |_, c, (): ()| {
        with(c, |c| c.disarm())?;
        Ok(MultiValue::new())
    })?;
    // refuse_error(): 500.
    step(lua, table, shared, "refuse_error", |_, c, (): ()| {
        with(c, |c| c.refuse(&Refusal::internal_error()))?;
        Ok(MultiValue::new())
    })?;
    Ok(())
}

/// A function that makes connection objects: it returns the steps and the views of a new one.
pub fn factory(lua: &Lua, options: Rc<Options>) -> mlua::Result<Function> {
    lua.create_function(move |lua, ()| {
        let shared = Rc::new(RefCell::new(Connection::new(options.clone())));
        let table = steps(lua, &shared)?;
        views::add(lua, &table, &shared)?;
        form_steps::add(lua, &table, &shared)?;
        request_methods::add(lua, &table, &shared)?;
        turn::add(lua, &table, &shared)?;
        Ok(table)
    })
}
