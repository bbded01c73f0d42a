//! The steps that are taken for every request, as fast calls (see [`crate::sys::lua::fast`]).
//!
//! Each does what the complete step of the same name does (steps.rs) for ordinary arguments.

use std::fmt::Write as _;

use mlua::{Function, Lua, Table};

use super::step::Shared;
use crate::http::server::connection::{Connection, Problem, SCHEME};
use crate::http::wire::head::Span;
use crate::sys::lua::anchor::Anchor;
use crate::sys::lua::fast::{self, Answer, Arguments, Fast, Inline};

/// Adds two functions to the steps:
///
/// * `methods(methods, trouble)` puts fast calls before the methods of request objects. `trouble`
///   is called when one was carried out, but the step `trouble` has something to say;
/// * `index(complete, kept, metatable)` makes an `__index` that knows the plain fields of requests,
///   and the parameters of a target without parameters: `kept` has them, or gets an empty table with
///   that metatable (see [`fast::with_view`]).
pub fn add(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    let connection = shared.clone();
    let methods = lua.create_function(move |lua, (methods, trouble): (Table, Function)| {
        let anchor = Anchor::new(lua, connection.clone())?;
        let put = Put { lua, methods: &methods, anchor: &anchor, trouble: &trouble };
        put.method::<SendStatus>("send_status")?;
        put.method::<SendHeader>("send_header")?;
        put.method::<SendData>("send_data")
    })?;
    table.raw_set("methods", methods)?;
    let connection = shared.clone();
    let index = move |lua: &Lua, (complete, kept, metatable): (Function, Table, Table)| {
        let anchor = Anchor::new(lua, connection.clone())?;
        fast::with_view::<Index>(lua, &anchor, &complete, (&kept, &metatable))
    };
    table.raw_set("index", lua.create_function(index)?)
}

/// Where fast calls are put.
struct Put<'a> {
    lua: &'a Lua,
    methods: &'a Table,
    anchor: &'a Anchor<Shared>,
    trouble: &'a Function,
}

impl Put<'_> {
    fn method<F: Fast<Object = Shared>>(&self, name: &str) -> mlua::Result<()> {
        let complete: Function = self.methods.raw_get(name)?;
        let method = fast::function::<F>(self.lua, self.anchor, &complete, self.trouble)?;
        self.methods.raw_set(name, method)
    }
}

/// Lets `work` use the connection object, unless that is in use.
fn with(shared: &Shared, work: impl FnOnce(&mut Connection) -> Answer) -> Answer {
    match shared.try_borrow_mut() {
        Ok(mut connection) => work(&mut connection),
        Err(_) => Answer::Complete,
    }
}

/// The outcome of a step that was carried out: whatever is to be said is kept for `trouble`.
fn carried_out(c: &mut Connection, outcome: Result<usize, Problem>) -> Answer {
    match outcome {
        Ok(pending) if pending <= c.options.response_buffering => Answer::Nothing,
        outcome => {
            c.unreported = Some(outcome);
            Answer::Other
        }
    }
}

// The first argument of a method is the request object.

struct SendStatus;
impl Fast for SendStatus {
    type Object = Shared;

    fn call(shared: &Shared, arguments: &Arguments<'_>) -> Answer {
        let Some(status) = arguments.string(2) else { return Answer::Complete };
        with(shared, |c| {
            let outcome = c.send_status(status);
            carried_out(c, outcome.map(|()| 0))
        })
    }
}

struct SendHeader;
impl Fast for SendHeader {
    type Object = Shared;

    fn call(shared: &Shared, arguments: &Arguments<'_>) -> Answer {
        let Some(name) = arguments.string(2) else { return Answer::Complete };
        let outcome = with_text(arguments, 3, |value| {
            with(shared, |c| {
                let outcome = c.send_header(name, value);
                carried_out(c, outcome.map(|()| 0))
            })
        });
        outcome.unwrap_or(Answer::Complete)
    }
}

struct SendData;
impl Fast for SendData {
    type Object = Shared;

    fn call(shared: &Shared, arguments: &Arguments<'_>) -> Answer {
        let all = 2..=arguments.count();
        let plain = |index| arguments.string(index).is_some() || arguments.integer(index).is_some();
        if !all.clone().all(plain) {
            return Answer::Complete;
        }
        with(shared, |c| {
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

fn field(shared: &Shared, pick: fn(&Connection) -> Option<Span>) -> Answer {
    with(shared, |c| match pick(c) {
        Some(span) => match Inline::new(span.of(&c.bytes)) {
            Some(bytes) => Answer::Bytes(bytes),
            None => Answer::Complete,
        },
        None => Answer::Nothing,
    })
}

fn text(text: &str) -> Answer {
    Inline::new(text.as_bytes()).map_or(Answer::Complete, Answer::Bytes)
}

struct Index;
impl Fast for Index {
    type Object = Shared;

    fn call(shared: &Shared, arguments: &Arguments<'_>) -> Answer {
        match arguments.string(2) {
            Some(b"path") => field(shared, |c| c.path),
            Some(b"method") => field(shared, |c| Some(c.head.method)),
            Some(b"query") => field(shared, |c| c.path.map(|_| c.query)),
            Some(b"host") => field(shared, |c| Some(c.host)),
            Some(b"target") => field(shared, |c| Some(c.head.target)),
            Some(b"version") => with(shared, |c| text(c.head.version.name())),
            Some(b"scheme") => text(SCHEME),
            Some(b"get_params") => with(shared, |c| match c.query.of(&c.bytes).len() {
                0 | 1 => {
                    c.params_given = true;
                    Answer::View
                }
                _ => Answer::Complete,
            }),
            _ => Answer::Complete,
        }
    }
}
