//! The steps that are taken for every request, as fast calls (see [`crate::sys::fast`]).
//!
//! Each does what the complete step of the same name does (steps.rs) for ordinary arguments.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::Duration;

use mlua::{AnyUserData, Function, Lua, Table, UserData};

use super::connection::{Connection, OUTPUT_LIMIT, Opened, Problem};
use super::head::Span;
use super::steps::{Code, Shared};
use crate::io::handle::stream_at;
use crate::server;
use crate::sys::fast::{self, Answer, Arguments, Fast, Inline};

thread_local! {
    /// Connection objects by number: what a Lua function holds of one.
    static OBJECTS: RefCell<Vec<Option<Shared>>> = const { RefCell::new(Vec::new()) };
}

/// Gives the number back when Lua has collected the steps.
struct Owner(usize);

impl UserData for Owner {}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = OBJECTS.try_with(|objects| {
            if let Some(slot) = objects.borrow_mut().get_mut(self.0) {
                *slot = None;
            }
        });
    }
}

fn register(shared: &Shared) -> usize {
    OBJECTS.with_borrow_mut(|objects| {
        let free = objects.iter().position(Option::is_none).unwrap_or(objects.len());
        match objects.get_mut(free) {
            Some(slot) => *slot = Some(shared.clone()),
            None => objects.push(Some(shared.clone())),
        }
        free
    })
}

/// Puts the fast steps before the complete ones of `table`.
pub fn add(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    let id = register(shared);
    let owner: AnyUserData = lua.create_userdata(Owner(id))?;
    table.raw_set("owner", owner)?;
    put::<Open>(lua, table, "open", id)?;
    put::<SendStatus>(lua, table, "send_status", id)?;
    put::<SendHeader>(lua, table, "send_header", id)?;
    put::<SendData>(lua, table, "send_data", id)?;
    put::<Conclude>(lua, table, "conclude", id)?;
    put::<Method>(lua, table, "method", id)?;
    put::<Path>(lua, table, "path", id)?;
    put::<Query>(lua, table, "query", id)?;
    put::<GetParams>(lua, table, "get_params", id)
}

fn put<F: Fast>(lua: &Lua, table: &Table, name: &str, id: usize) -> mlua::Result<()> {
    let complete: Function = table.raw_get(name)?;
    table.raw_set(name, fast::function::<F>(lua, id, &complete)?)
}

/// Lets `work` use the connection object, unless that is in use.
fn with(id: usize, work: impl FnOnce(&mut Connection) -> Answer) -> Answer {
    let shared = OBJECTS.with_borrow(|objects| objects.get(id).cloned().flatten());
    let Some(shared) = shared else { return Answer::Complete };
    match shared.try_borrow_mut() {
        Ok(mut connection) => work(&mut connection),
        Err(_) => Answer::Complete,
    }
}

/// A problem; one with a text of its own is kept for the complete step to report.
fn problem(c: &mut Connection, problem: Problem) -> Answer {
    match problem {
        Problem::Misuse(text) => Answer::Text(Code::Misuse as i64, text),
        problem => {
            c.unreported = Some(problem);
            Answer::Complete
        }
    }
}

struct Open;
impl Fast for Open {
    fn call(id: usize, arguments: &Arguments<'_>) -> Answer {
        if !arguments.is_nil(2) {
            return Answer::Complete;
        }
        let Some(stream) = arguments.address(1).and_then(stream_at) else {
            return Answer::Complete;
        };
        let shared = OBJECTS.with_borrow(|objects| objects.get(id).cloned().flatten());
        let Some(shared) = shared else { return Answer::Complete };
        let Ok(mut connection) = shared.try_borrow_mut() else { return Answer::Complete };
        let opened = connection.open(stream, None);
        drop(connection);
        match opened {
            Opened::Ready => {
                super::current::set(&shared);
                Answer::Nothing
            }
            Opened::Idle => Answer::Integer(Code::Idle as i64),
            Opened::Partial => Answer::Integer(Code::Partial as i64),
            Opened::Refused => Answer::Integer(Code::Refused as i64),
            Opened::Gone => Answer::Integer(Code::Gone as i64),
        }
    }
}

struct SendStatus;
impl Fast for SendStatus {
    fn call(id: usize, arguments: &Arguments<'_>) -> Answer {
        let Some(status) = arguments.string(1) else { return Answer::Complete };
        with(id, |c| match c.send_status(status) {
            Ok(()) => Answer::Nothing,
            Err(error) => problem(c, error),
        })
    }
}

struct SendHeader;
impl Fast for SendHeader {
    fn call(id: usize, arguments: &Arguments<'_>) -> Answer {
        let Some(name) = arguments.string(1) else { return Answer::Complete };
        let send = |value: &[u8]| {
            with(id, |c| match c.send_header(name, value) {
                Ok(()) => Answer::Nothing,
                Err(error) => problem(c, error),
            })
        };
        match (arguments.string(2), arguments.integer(2)) {
            (Some(value), _) => send(value),
            (None, Some(number)) => {
                let mut digits = Digits::default();
                let _ = write!(digits, "{number}");
                send(digits.text())
            }
            (None, None) => Answer::Complete,
        }
    }
}

/// The digits of a number, without an allocation.
#[derive(Default)]
struct Digits {
    bytes: [u8; 20],
    length: usize,
}

impl Digits {
    fn text(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl std::fmt::Write for Digits {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.get_mut(self.length..self.length + text.len());
        room.ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

struct SendData;
impl Fast for SendData {
    fn call(id: usize, arguments: &Arguments<'_>) -> Answer {
        let count = arguments.count();
        if count == 0 || (1..=count).any(|index| arguments.string(index).is_none()) {
            return Answer::Complete;
        }
        with(id, |c| {
            let mut queued = 0;
            for piece in (1..=count).filter_map(|index| arguments.string(index)) {
                match c.send_data(piece) {
                    Ok(pending) => queued = pending,
                    Err(error) => return problem(c, error),
                }
            }
            match queued {
                pending if pending <= OUTPUT_LIMIT => Answer::Nothing,
                pending => Answer::Pair(Code::Output as i64, pending as i64),
            }
        })
    }
}

/// Also parks the connection, if a worker serves it: then the code is `PARKED`.
struct Conclude;
impl Fast for Conclude {
    fn call(id: usize, arguments: &Arguments<'_>) -> Answer {
        if !arguments.truth(1) {
            return Answer::Complete;
        }
        let idle = arguments.number(2).and_then(|s| Duration::try_from_secs_f64(s).ok());
        with(id, |c| match c.finish() {
            Ok(0) if c.is_reusable() => {
                let stream = c.take_stream();
                c.close();
                super::current::clear();
                let parked = stream.is_some_and(|stream| server::park(&stream, idle));
                if parked { Answer::Integer(Code::Parked as i64) } else { Answer::Nothing }
            }
            Ok(0) if c.may_close_at_once() => Answer::Integer(Code::Close as i64),
            Ok(_) => Answer::Integer(Code::End as i64),
            Err(error) => problem(c, error),
        })
    }
}

fn field(id: usize, pick: fn(&Connection) -> Option<Span>) -> Answer {
    with(id, |c| match pick(c) {
        Some(span) => match Inline::new(span.of(&c.bytes)) {
            Some(bytes) => Answer::Bytes(bytes),
            None => Answer::Complete,
        },
        None => Answer::Nothing,
    })
}

struct Method;
impl Fast for Method {
    fn call(id: usize, _: &Arguments<'_>) -> Answer {
        field(id, |c| Some(c.head.method))
    }
}

struct Path;
impl Fast for Path {
    fn call(id: usize, _: &Arguments<'_>) -> Answer {
        field(id, |c| c.path)
    }
}

struct Query;
impl Fast for Query {
    fn call(id: usize, _: &Arguments<'_>) -> Answer {
        field(id, |c| c.path.map(|_| c.query))
    }
}

/// Nothing if there are no parameters.
struct GetParams;
impl Fast for GetParams {
    fn call(id: usize, _: &Arguments<'_>) -> Answer {
        with(id, |c| match c.query.of(&c.bytes).len() {
            0 | 1 => Answer::Nothing,
            _ => Answer::Complete,
        })
    }
}
