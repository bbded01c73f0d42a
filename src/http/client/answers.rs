//! The steps of every request, as C functions: those that return a response, and those of the
//! connection pool.

use std::ffi::c_int;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{Function, Lua, Table};

use super::exchange_error::ExchangeError;
use super::fields;
use super::link::{Link, ReceivedHead, Trip};
use super::links;
use crate::sys::lua::driver;
use crate::sys::lua::method::{Action, Arguments, Event, Method, Record, Value};

/// What `round_trip` returns if there is no response yet; `exchange.lua` uses the same numbers.
#[derive(Clone, Copy)]
enum TripCode {
    /// Part of the request is unsent.
    Unsent = 1,
    /// The request could not be sent; followed by a message and its code.
    Refused = 2,
    /// No input before the timeout.
    Waiting = 3,
    /// There is input, but not a whole response, or an interim one.
    Partial = 4,
    /// The idle connection cannot be used.
    Stale = 5,
}

/// Adds the steps to `native`.
///
/// `round_trip(link, head, body, seconds, to_head, keep)` and `head(link, to_head)` return status,
/// headers, status line, body (nil if incomplete), and whether the connection can be reused. Without a
/// response, `round_trip` returns a [`TripCode`], and `head` nil if it has to wait. Both return false,
/// a message and its code, or nil, if the exchange has failed. `keep` (seconds) means that the connection was idle, and
/// becomes idle again if it can be reused.
///
/// `now()` returns seconds; for `keep(link, seconds)`, `idle_since(link)`, `usable(link)` and
/// `expired(link)` see [`Link`].
///
/// # Errors
/// Out of memory.
pub fn install(lua: &Lua, native: &Table) -> mlua::Result<()> {
    let meta = header_meta(lua)?;
    driver::install::<RoundTrip>(lua, native, mlua::Nil, &meta)?;
    driver::install::<ReceiveHead>(lua, native, mlua::Nil, &meta)?;
    install_steps(lua, native)
}

/// Makes header names case-insensitive; the keys are in lower case.
fn header_meta(lua: &Lua) -> mlua::Result<Table> {
    let index: Function = lua
        .load(
            "local rawget, type, lower = rawget, type, string.lower
             return function(headers, name)
               if type(name) == 'string' then return rawget(headers, lower(name)) end
             end",
        )
        .set_name("=moonbridge.http.client.headers")
        .eval()?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", index)?;
    Ok(meta)
}

fn failed(failure: &ExchangeError) -> Action {
    Action::ReturnFault(Value::Boolean(false), failure.text(), failure.code())
}

struct RoundTrip;

impl Method for RoundTrip {
    type Object = ();
    const NAME: &'static str = "round_trip";
    const FRAME: c_int = 0;

    fn step((): &(), arguments: &Arguments<'_>, _: Event) -> Action {
        let Some(link) = link(arguments) else { return failed(&ExchangeError::Gone) };
        let parts = [2, 3].map(|index| arguments.string(index).unwrap_or_default());
        let limit = duration(arguments.number(4));
        let keep = arguments.number(6);
        let code = |code: TripCode| Action::Return(Value::Integer(code as i64));
        if keep.is_some() && !link.is_usable() {
            return code(TripCode::Stale);
        }
        let take = |received: ReceivedHead<'_>, body: &[u8], reusable| {
            let mut record = Record::take();
            fields::put(&mut record, &received);
            record.body = Some(record.add(body));
            record.reusable = reusable;
            record
        };
        match link.round_trip(&parts, arguments.truth(5), limit, take) {
            Ok(Trip::Done(record)) => {
                if keep.is_some() {
                    link.keep(duration(keep));
                }
                Action::Record(record)
            }
            Ok(Trip::Unsent) => code(TripCode::Unsent),
            Ok(Trip::Refused(failure)) => {
                let code = Value::Integer(TripCode::Refused as i64);
                Action::ReturnFault(code, failure.text(), failure.code())
            }
            Ok(Trip::Waiting) => code(TripCode::Waiting),
            Ok(Trip::Partial) => code(TripCode::Partial),
            Err(failure) => failed(&failure),
        }
    }
}

struct ReceiveHead;

impl Method for ReceiveHead {
    type Object = ();
    const NAME: &'static str = "head";
    const FRAME: c_int = 0;

    fn step((): &(), arguments: &Arguments<'_>, _: Event) -> Action {
        let Some(link) = link(arguments) else { return failed(&ExchangeError::Gone) };
        let take = |received: ReceivedHead<'_>| {
            let mut record = Record::take();
            fields::put(&mut record, &received);
            record
        };
        match link.head(arguments.truth(2), take) {
            Ok(Some(record)) => Action::Record(record),
            Ok(None) => Action::Done,
            Err(failure) => failed(&failure),
        }
    }
}

/// An instant in seconds, 0 for none.
fn seconds(moment: Option<Instant>) -> f64 {
    thread_local! {
        static START: Instant = Instant::now();
    }
    let start = START.with(Instant::clone);
    moment.map_or(0.0, |moment| moment.saturating_duration_since(start).as_secs_f64())
}

fn duration(seconds: Option<f64>) -> Duration {
    let seconds = seconds.unwrap_or_default().clamp(0.0, 1e9);
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn link(arguments: &Arguments<'_>) -> Option<Rc<Link>> {
    arguments.integer(1).and_then(links::get)
}

macro_rules! steps {
    ($($type:ident $name:literal = $step:expr;)*) => {
        $(
            struct $type;
            impl Method for $type {
                type Object = ();
                const NAME: &'static str = $name;
                const FRAME: c_int = 0;

                fn step((): &(), arguments: &Arguments<'_>, _: Event) -> Action {
                    let step: fn(&Arguments<'_>) -> Action = $step;
                    step(arguments)
                }
            }
        )*

        fn install_steps(lua: &Lua, native: &Table) -> mlua::Result<()> {
            $(driver::install::<$type>(lua, native, mlua::Nil, mlua::Nil)?;)*
            Ok(())
        }
    };
}

steps! {
    Now "now" = |_| Action::Return(Value::Number(seconds(Some(Instant::now()))));
    Keep "keep" = |arguments| {
        if let Some(link) = link(arguments) {
            link.keep(duration(arguments.number(2)));
        }
        Action::Done
    };
    IdleSince "idle_since" = |arguments| {
        let since = link(arguments).and_then(|link| link.idle_since());
        Action::Return(Value::Number(seconds(since)))
    };
    Usable "usable" = |arguments| {
        Action::Return(Value::Boolean(link(arguments).is_some_and(|link| link.is_usable())))
    };
    Expired "expired" = |arguments| {
        Action::Return(Value::Boolean(link(arguments).is_none_or(|link| link.is_expired())))
    };
}
