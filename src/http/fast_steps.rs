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
use crate::server::{self, context};
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

/// Puts the fast steps before the complete ones of `table`, and adds two functions to it:
///
/// * `methods(methods, trouble)` puts fast calls before the methods of request objects. `trouble`
///   is called when one was carried out, but the step `trouble` has something to say;
/// * `index(complete)` makes an `__index` that knows the plain fields of requests.
pub fn add(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    let id = register(shared);
    let owner: AnyUserData = lua.create_userdata(Owner(id))?;
    table.raw_set("owner", owner)?;
    let put = Put { lua, table, id };
    put.step::<Open>("open")?;
    put.step::<Conclude>("conclude")?;
    put.step::<GetParams>("get_params")?;
    let methods = lua.create_function(move |lua, (methods, trouble): (Table, Function)| {
        let put = Put { lua, table: &methods, id };
        put.method::<SendStatus>("send_status", &trouble)?;
        put.method::<SendHeader>("send_header", &trouble)?;
        put.method::<SendData>("send_data", &trouble)
    })?;
    table.raw_set("methods", methods)?;
    let index = lua.create_function(move |lua, complete: Function| {
        fast::function::<Index>(lua, id, &complete, &complete)
    })?;
    table.raw_set("index", index)
}

/// Where fast calls are put.
struct Put<'a> {
    lua: &'a Lua,
    table: &'a Table,
    id: usize,
}

impl Put<'_> {
    fn step<F: Fast>(&self, name: &str) -> mlua::Result<()> {
        let complete: Function = self.table.raw_get(name)?;
        self.table.raw_set(name, fast::function::<F>(self.lua, self.id, &complete, &complete)?)
    }

    fn method<F: Fast>(&self, name: &str, trouble: &Function) -> mlua::Result<()> {
        let complete: Function = self.table.raw_get(name)?;
        self.table.raw_set(name, fast::function::<F>(self.lua, self.id, &complete, trouble)?)
    }
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

/// The outcome of a step that was carried out: whatever is to be said is kept for `trouble`.
fn carried_out(c: &mut Connection, outcome: Result<usize, Problem>) -> Answer {
    match outcome {
        Ok(pending) if pending <= OUTPUT_LIMIT => Answer::Nothing,
        outcome => {
            c.unreported = Some(outcome);
            Answer::Other
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
                context::begin(&shared);
                Answer::Nothing
            }
            Opened::Idle => Answer::Integer(Code::Idle as i64),
            Opened::Partial => Answer::Integer(Code::Partial as i64),
            Opened::Buffering => Answer::Integer(Code::Buffering as i64),
            Opened::Refused => Answer::Integer(Code::Refused as i64),
            Opened::Gone => Answer::Integer(Code::Gone as i64),
        }
    }
}

// The first argument of a method is the request object.

struct SendStatus;
impl Fast for SendStatus {
    fn call(id: usize, arguments: &Arguments<'_>) -> Answer {
        let Some(status) = arguments.string(2) else { return Answer::Complete };
        with(id, |c| {
            let outcome = c.send_status(status);
            carried_out(c, outcome.map(|()| 0))
        })
    }
}

struct SendHeader;
impl Fast for SendHeader {
    fn call(id: usize, arguments: &Arguments<'_>) -> Answer {
        let Some(name) = arguments.string(2) else { return Answer::Complete };
        let outcome = with_text(arguments, 3, |value| {
            with(id, |c| {
                let outcome = c.send_header(name, value);
                carried_out(c, outcome.map(|()| 0))
            })
        });
        outcome.unwrap_or(Answer::Complete)
    }
}

struct SendData;
impl Fast for SendData {
    fn call(id: usize, arguments: &Arguments<'_>) -> Answer {
        let all = 2..=arguments.count();
        let plain = |index| arguments.string(index).is_some() || arguments.integer(index).is_some();
        if !all.clone().all(plain) {
            return Answer::Complete;
        }
        with(id, |c| {
            let mut outcome = Ok(0);
            for index in all {
                outcome = with_text(arguments, index, |piece| c.send_data(piece)).unwrap_or(Ok(0));
                if outcome.is_err() {
                    break;
                }
            }
            carried_out(c, outcome)
        })
    }
}

/// Argument `index` as text, if it is a string or an integer.
fn with_text<R>(arguments: &Arguments<'_>, index: i32, work: impl FnOnce(&[u8]) -> R) -> Option<R> {
    if let Some(text) = arguments.string(index) {
        return Some(work(text));
    }
    let mut digits = Digits::default();
    write!(digits, "{}", arguments.integer(index)?).ok()?;
    Some(work(digits.text()))
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

/// Also parks the connection, if a worker serves it (then the code is `PARKED`), or closes it, if
/// that needs no lingering (`CLOSED`).
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
                context::end();
                let parked = stream.is_some_and(|stream| server::park(&stream, idle));
                if parked { Answer::Integer(Code::Parked as i64) } else { Answer::Nothing }
            }
            Ok(0) if c.may_close_at_once() => {
                let stream = c.take_stream();
                c.close();
                context::end();
                // Everything is sent: should the client be gone, that is no failure.
                if let Some(Ok(mut stream)) = stream.as_ref().map(|s| s.try_borrow_mut()) {
                    let _ = stream.close();
                }
                Answer::Integer(Code::Closed as i64)
            }
            Ok(_) => Answer::Integer(Code::End as i64),
            Err(Problem::Misuse(text)) => Answer::Text(Code::Misuse as i64, text),
            Err(error) => {
                c.unreported = Some(Err(error));
                Answer::Complete
            }
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

struct Index;
impl Fast for Index {
    fn call(id: usize, arguments: &Arguments<'_>) -> Answer {
        match arguments.string(2) {
            Some(b"path") => field(id, |c| c.path),
            Some(b"method") => field(id, |c| Some(c.head.method)),
            Some(b"query") => field(id, |c| c.path.map(|_| c.query)),
            Some(b"host") => field(id, |c| Some(c.host)),
            _ => Answer::Complete,
        }
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
