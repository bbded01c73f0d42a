//! The methods of a request that send the response, as [methods in C](crate::sys::lua::method).

use std::ffi::c_int;

use mlua::{Function, Lua, Table};

use super::step::SharedConnection;
use crate::http::server::connection::HttpConnection;
use crate::http::server::request_body::Reader;
use crate::http::server::usability::Problem;
use crate::sys::lua::driver::install;
use crate::sys::lua::method::{Action, Arguments, Call, Event, Method, Protection, Value};
use crate::sys::lua::userdata::Userdata;

/// Adds to the steps of a connection object:
///
/// * `methods(methods, await_room)` puts the methods of requests into a table. `await_room` waits until the
///   client takes some of the output, and returns false if it does not in time;
/// * the steps `finish_later`, `touch_body`, `set_reader` and `early_header`, which raise what is wrong themselves.
pub fn add(lua: &Lua, table: &Table, shared: &SharedConnection) -> mlua::Result<()> {
    let connection = shared.clone();
    let methods = lua.create_function(move |lua, (methods, await_room): (Table, Function)| {
        let object = Userdata::new(lua, connection.clone())?;
        install_methods(lua, &methods, &object, Some(&await_room))
    })?;
    table.raw_set("methods", methods)?;
    let object = Userdata::new(lua, shared.clone())?;
    install_steps(lua, table, &object, None)
}

/// How much output a method leaves queued when it returns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// As much as `response_buffering` allows.
    Some,
    Nothing,
}

/// Why a step did not succeed.
enum Stop {
    Problem(Problem),
    /// Arguments from this one on are to be converted to strings first.
    Convert(c_int),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Stop::Problem(problem)
    }
}

/// What a method does when it is called; returns the output that is still queued.
type MethodResult = Result<usize, Stop>;

macro_rules! methods {
    ($installer:ident: $($type:ident $name:literal = $step:expr, $leaves:ident;)*) => {
        $(
            struct $type;
            impl Method for $type {
                type Object = SharedConnection;
                const NAME: &'static str = $name;
                const FRAME: c_int = 1;

                fn step(shared: &SharedConnection, arguments: &Arguments<'_>, event: Event) -> Action {
                    run(shared, arguments, event, $step, Leaves::$leaves)
                }
            }
        )*

        fn $installer(
            lua: &Lua,
            table: &Table,
            object: &Userdata<SharedConnection>,
            await_room: Option<&Function>,
        ) -> mlua::Result<()> {
            $(install::<$type>(lua, table, object, await_room)?;)*
            Ok(())
        }
    };
}

methods! { install_methods:
    SendStatus "send_status" = send_status, Some;
    SendHeader "send_header" = send_header, Some;
    SendData "send_data" = send_data, Some;
    FinishHeaders "finish_headers" = |shared, _| with(shared, |c| c.exchange.flush_headers()), Nothing;
    Flush "flush" = |shared, _| with(shared, |c| c.exchange.flush()), Nothing;
    Finish "finish" = |shared, _| with(shared, |c| c.exchange.finish()), Some;
    CloseAfterFinish "close_after_finish" = |shared, _| with(shared, close_after_finish), Some;
}

/// Carries out a method, and waits while more output is queued than it leaves. What the client sends
/// meanwhile is received, so that a client that sends before it reads cannot block both sides.
#[inline(always)]
fn run(
    shared: &SharedConnection,
    arguments: &Arguments<'_>,
    event: Event,
    step: impl FnOnce(&SharedConnection, &Arguments<'_>) -> MethodResult,
    leaves: Leaves,
) -> Action {
    let outcome = match event {
        Event::Start => step(shared, arguments),
        _ if arguments.truth(arguments.result(1)) => with(shared, |c| c.exchange.send_out()),
        _ => with(shared, |c| Err(c.exchange.stalled())),
    };
    match outcome {
        Ok(0) => Action::Done,
        outcome => go_on(shared, outcome, leaves),
    }
}

#[cold]
#[inline(never)]
fn go_on(shared: &SharedConnection, outcome: MethodResult, leaves: Leaves) -> Action {
    const AWAIT_ROOM: c_int = 1;
    let Ok(mut c) = shared.try_borrow_mut() else { return Action::Raise(IN_USE.into()) };
    match outcome {
        Ok(pending)
            if leaves == Leaves::Some && pending <= c.exchange.options.response_buffering =>
        {
            let exchange = &mut c.exchange;
            // If somebody else has the stream, it is for them to send.
            let _ = exchange.output.leave(&exchange.stream);
            Action::Done
        }
        Ok(_) => Action::Call(Call {
            function: Value::Upvalue(AWAIT_ROOM),
            arguments: [Value::Absent; 4],
            protection: Protection::None,
            token: 0,
        }),
        Err(Stop::Convert(first)) => Action::ConvertToStrings(first),
        Err(Stop::Problem(problem)) => Action::Raise(c.exchange.raised(problem)),
    }
}

/// Only a finalizer that runs within another step can find the connection object in use.
const IN_USE: &str = "request is in use";

#[inline(always)]
fn with(
    shared: &SharedConnection,
    work: impl FnOnce(&mut HttpConnection) -> Result<usize, Problem>,
) -> MethodResult {
    match shared.try_borrow_mut() {
        Ok(mut c) => Ok(work(&mut c)?),
        Err(_) => Err(Problem::Misuse(IN_USE.into()).into()),
    }
}

/// An argument as text; otherwise a misuse that names `what`, with `advice`. Before anything is borrowed: Lua
/// may have no memory for the text of a number.
#[inline(always)]
fn text<'a>(
    arguments: &Arguments<'a>,
    index: c_int,
    what: &str,
    advice: impl FnOnce() -> String,
) -> Result<&'a [u8], Problem> {
    arguments.text(index).ok_or_else(|| match without_self(arguments) {
        Some(problem) => problem,
        None => {
            let kind = arguments.kind(index);
            format!("{what} is expected to be a string, got {kind}{}", advice()).into()
        }
    })
}

/// The misuse of a method that was called with a dot.
#[cold]
fn without_self(arguments: &Arguments<'_>) -> Option<Problem> {
    let text = || format!("{}: call it with a colon", arguments.bad_self("request"));
    (arguments.kind(1) != "table").then(|| text().into())
}

// The first argument of a method is the request object.

#[inline(always)]
fn send_status(shared: &SharedConnection, arguments: &Arguments<'_>) -> MethodResult {
    let status = text(arguments, 2, "HTTP status", || ": send e.g. \"200 OK\"".into())?;
    with(shared, |c| c.exchange.send_status(status))
}

#[inline(always)]
fn send_header(shared: &SharedConnection, arguments: &Arguments<'_>) -> MethodResult {
    let name = text(arguments, 2, "HTTP header name", String::new)?;
    let digits;
    // Most numbers are a Content-Length, of which Lua need not make a string.
    let value = if let Some(number) = arguments.integer(3) {
        digits = Digits::of(number);
        digits.text()
    } else {
        text(arguments, 3, "HTTP header value", || {
            format!(": give {} a value, or leave it out", name.escape_ascii())
        })?
    };
    with(shared, |c| c.exchange.send_header(name, value).map(|()| 0))
}

/// A number in decimal digits.
struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    fn of(number: i64) -> Digits {
        let (mut bytes, mut rest) = ([b'-'; 20], number.unsigned_abs());
        let mut digits = 0;
        for byte in bytes.iter_mut().rev() {
            *byte = b'0' + (rest % 10) as u8;
            (rest, digits) = (rest / 10, digits + 1);
            if rest == 0 {
                break;
            }
        }
        Digits { bytes, start: 20 - digits - usize::from(number < 0) }
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

#[inline(always)]
fn send_data(shared: &SharedConnection, arguments: &Arguments<'_>) -> MethodResult {
    let all = 2..=arguments.count();
    if all.is_empty() {
        return match without_self(arguments) {
            Some(problem) => Err(problem.into()),
            // It begins the body all the same.
            None => with(shared, |c| c.exchange.send_data(b"")),
        };
    }
    if all == (2..=2)
        && let Some(piece) = arguments.string(2)
    {
        return with(shared, |c| c.exchange.send_data(piece));
    }
    if !all.clone().all(|index| arguments.string(index).is_some()) {
        return Err(Stop::Convert(2));
    }
    with(shared, |c| {
        let mut pieces = all.filter_map(|index| arguments.string(index));
        pieces.try_fold(0, |_, piece| c.exchange.send_data(piece))
    })
}

fn close_after_finish(c: &mut HttpConnection) -> Result<usize, Problem> {
    c.exchange.usability.touch()?;
    c.exchange.output.response.close_after_finish()?;
    Ok(0)
}

methods! { install_steps:
    FinishLater "finish_later" = |shared, _| with(shared, finish_later), Some;
    TouchBody "touch_body" = |shared, _| with(shared, touch_body), Some;
    SetReader "set_reader" = set_reader, Some;
    EarlyHeader "early_header" = early_header, Some;
}

/// `early_header(name, value)`: a header line that may come before the status.
fn early_header(shared: &SharedConnection, arguments: &Arguments<'_>) -> MethodResult {
    let [name, value] = [1, 2].map(|index| arguments.string(index).unwrap_or_default());
    with(shared, |c| {
        c.exchange.usability.touch()?;
        Ok(c.exchange.output.response.early_header(name, value).map(|()| 0)?)
    })
}

/// `finish_later()`: ends the response, which leaves with what is sent next.
fn finish_later(c: &mut HttpConnection) -> Result<usize, Problem> {
    c.exchange.usability.touch()?;
    c.exchange.prepare_head();
    c.exchange.output.finish_later(&c.exchange.stream).map(|()| 0)
}

/// Marks the request as used: its handler begins with the body.
fn touch_body(c: &mut HttpConnection) -> Result<usize, Problem> {
    c.exchange.body.is_used = true;
    c.exchange.usability.touch().map(|()| 0)
}

/// `set_reader(name)`: "whole", "stream", "form" or "discard".
fn set_reader(shared: &SharedConnection, arguments: &Arguments<'_>) -> MethodResult {
    let reader = match arguments.string(1) {
        Some(b"whole") => Reader::Whole,
        Some(b"stream") => Reader::Stream,
        Some(b"form") => Reader::Form,
        _ => Reader::Discard,
    };
    with(shared, |c| c.exchange.set_reader(reader).map(|()| 0))
}

#[cfg(test)]
mod tests {
    use super::Digits;

    #[test]
    fn integers_are_written_in_decimal_digits() {
        for number in [0, 7, -7, 10, 1_234_567_890, i64::MAX, i64::MIN] {
            assert_eq!(Digits::of(number).text(), number.to_string().as_bytes());
        }
    }
}
