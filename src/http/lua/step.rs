//! How a step of a connection becomes a Lua function, and what it tells the Lua chunks.
//!
//! A step returns nothing if all is well, else a code and what belongs to it:
//!
//! | code | meaning |
//! |---|---|
//! | `MISUSE`, text | the handler's mistake: raise it |
//! | `FAILED`, text | the connection failed |
//! | `REFUSED`, text | the request was refused in these words |
//! | `OUTPUT`, bytes | so much output is queued: wait until the client takes it |
//! | `INPUT` | wait for input |
//! | others | as said at the step |

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{FromLuaMulti, IntoLuaMulti, Lua, MultiValue, Table};

use crate::binding::Fault;
use crate::http::server::connection::HttpConnection;
use crate::http::server::usability::Problem;

/// A connection object, shared by its steps.
pub type SharedConnection = Rc<RefCell<HttpConnection>>;

/// What steps return.
#[derive(Clone, Copy)]
pub enum Code {
    Misuse = 1,
    Failed,
    Refused,
    Output,
    Input,
    End,
}

const CODES: [(&str, Code); 6] = [
    ("MISUSE", Code::Misuse),
    ("FAILED", Code::Failed),
    ("REFUSED", Code::Refused),
    ("OUTPUT", Code::Output),
    ("INPUT", Code::Input),
    ("END", Code::End),
];

/// The codes by their names.
pub fn codes(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (name, code) in CODES {
        table.raw_set(name, code as i64)?;
    }
    Ok(table)
}

pub type StepResult = mlua::Result<MultiValue>;

pub fn code(lua: &Lua, code: Code) -> StepResult {
    (code as i64).into_lua_multi(lua)
}

pub fn problem(lua: &Lua, problem: Problem) -> StepResult {
    match problem {
        Problem::Misuse(text) => (Code::Misuse as i64, text).into_lua_multi(lua),
        Problem::Refused(words) => (Code::Refused as i64, words).into_lua_multi(lua),
        Problem::Io(error) => {
            let text = match Fault::from(error) {
                Fault::System(text, _) => text,
                _ => String::new(),
            };
            (Code::Failed as i64, text).into_lua_multi(lua)
        }
    }
}

/// Nothing, unless more output than `limit` is queued.
pub fn queued(lua: &Lua, outcome: Result<usize, Problem>, limit: usize) -> StepResult {
    match outcome {
        Ok(pending) if pending <= limit => Ok(MultiValue::new()),
        Ok(pending) => (Code::Output as i64, pending).into_lua_multi(lua),
        Err(error) => problem(lua, error),
    }
}

/// Borrows for a step: only a finalizer that runs within another step can find it borrowed.
pub fn with<R>(
    shared: &SharedConnection,
    work: impl FnOnce(&mut HttpConnection) -> R,
) -> mlua::Result<R> {
    match shared.try_borrow_mut() {
        Ok(mut connection) => Ok(work(&mut connection)),
        Err(_) => Err(mlua::Error::runtime("request is in use")),
    }
}

/// Puts a step into `table`.
pub fn step<A: FromLuaMulti>(
    lua: &Lua,
    table: &Table,
    shared: &SharedConnection,
    name: &str,
    run: impl Fn(&Lua, &SharedConnection, A) -> StepResult + 'static,
) -> mlua::Result<()> {
    let shared = shared.clone();
    table.raw_set(name, lua.create_function(move |lua, args: A| run(lua, &shared, args))?)
}
