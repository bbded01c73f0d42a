//! The steps of every request, as C functions: those that return a response, and those of the
//! connection pool.

use std::time::{Duration, Instant};

use mlua::{Function, Lua, Table};

use super::fields;
use super::link::{ExchangeError, Trip};
use super::links;
use crate::sys::lua::anchor::Anchor;
use crate::sys::lua::fast::{self, Answer, Arguments, Fast};
use crate::sys::lua::message::{self, Message, Step, Verdict};

/// What `round_trip` returns if there is no response yet; `exchange.lua` uses the same numbers.
#[derive(Clone, Copy)]
enum TripCode {
    /// Part of the request is unsent.
    Unsent = 1,
    /// The request could not be sent; followed by a message.
    Refused = 2,
    /// No input before the timeout.
    Waiting = 3,
    /// There is input, but not a whole response, or an interim one.
    Partial = 4,
    /// The idle connection cannot be used.
    Stale = 5,
}

/// Puts the steps into `native`: `round_trip(link, head, body, seconds, to_head, keep)` and
/// `head(link, to_head)` answer with status, headers, status line, body (nil if it is not all
/// there), and whether the connection can be used again; `round_trip` else with a [`TripCode`], `head`
/// with nil while it has to wait; both with false and a message when the exchange has failed. With
/// `keep` (seconds) the connection is an idle one, and is kept again if it can be used again.
/// Further `now()`: seconds; `keep(link, seconds)`, `kept(link)`: the time when it was kept;
/// `usable(link)`, `expired(link)`: see [`Link`](super::link::Link).
///
/// # Errors
/// Out of memory.
pub fn install(lua: &Lua, native: &Table) -> mlua::Result<()> {
    let meta = header_meta(lua)?;
    native.raw_set("round_trip", message::function::<RoundTrip>(lua, &meta)?)?;
    native.raw_set("head", message::function::<ReceiveHead>(lua, &meta)?)?;
    quick::<Now>(lua, native, "now")?;
    quick::<Keep>(lua, native, "keep")?;
    quick::<Kept>(lua, native, "kept")?;
    quick::<Usable>(lua, native, "usable")?;
    quick::<Expired>(lua, native, "expired")
}

fn quick<F: Fast<Object = ()>>(lua: &Lua, native: &Table, name: &str) -> mlua::Result<()> {
    let gone = lua.create_function(|_, ()| Ok(mlua::Nil))?;
    native.raw_set(name, fast::function::<F>(lua, &Anchor::new(lua, ())?, &gone, &gone)?)
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

fn failed(message: &mut Message, failure: &ExchangeError) -> Verdict {
    message.clear();
    message.add(failure.text().as_bytes());
    Verdict::Failed
}

struct RoundTrip;
impl Step for RoundTrip {
    fn call(arguments: &Arguments<'_>, message: &mut Message) -> Verdict {
        let Some(link) = arguments.integer(1).and_then(links::get) else {
            return failed(message, &ExchangeError::Gone);
        };
        let parts = [2, 3].map(|index| arguments.string(index).unwrap_or_default());
        let limit = duration(arguments.number(4));
        let keep = arguments.number(6);
        if keep.is_some() && !link.is_usable() {
            return Verdict::Code(TripCode::Stale as i64);
        }
        let trip =
            link.round_trip(&parts, arguments.truth(5), limit, |received, body, reusable| {
                fields::put(message, &received);
                message.body = Some(message.add(body));
                message.reusable = reusable;
            });
        let code = match trip {
            Ok(Trip::Done(())) => {
                if keep.is_some() {
                    link.keep(duration(keep));
                }
                return Verdict::Message;
            }
            Ok(Trip::Unsent) => TripCode::Unsent,
            Ok(Trip::Refused(failure)) => {
                message.add(failure.text().as_bytes());
                TripCode::Refused
            }
            Ok(Trip::Waiting) => TripCode::Waiting,
            Ok(Trip::Partial) => TripCode::Partial,
            Err(failure) => return failed(message, &failure),
        };
        Verdict::Code(code as i64)
    }
}

struct ReceiveHead;
impl Step for ReceiveHead {
    fn call(arguments: &Arguments<'_>, message: &mut Message) -> Verdict {
        let Some(link) = arguments.integer(1).and_then(links::get) else {
            return failed(message, &ExchangeError::Gone);
        };
        match link.head(arguments.truth(2), |received| fields::put(message, &received)) {
            Ok(Some(())) => Verdict::Message,
            Ok(None) => Verdict::Nothing,
            Err(failure) => failed(message, &failure),
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

struct Now;
impl Fast for Now {
    type Object = ();

    fn call((): &(), _: &Arguments<'_>) -> Answer {
        Answer::Number(seconds(Some(Instant::now())))
    }
}

fn duration(seconds: Option<f64>) -> Duration {
    let seconds = seconds.unwrap_or_default().clamp(0.0, 1e9);
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

struct Keep;
impl Fast for Keep {
    type Object = ();

    fn call((): &(), arguments: &Arguments<'_>) -> Answer {
        if let Some(link) = arguments.integer(1).and_then(links::get) {
            link.keep(duration(arguments.number(2)));
        }
        Answer::Nothing
    }
}

struct Kept;
impl Fast for Kept {
    type Object = ();

    fn call((): &(), arguments: &Arguments<'_>) -> Answer {
        let link = arguments.integer(1).and_then(links::get);
        Answer::Number(seconds(link.and_then(|link| link.kept_at())))
    }
}

struct Usable;
impl Fast for Usable {
    type Object = ();

    fn call((): &(), arguments: &Arguments<'_>) -> Answer {
        let link = arguments.integer(1).and_then(links::get);
        Answer::Boolean(link.is_some_and(|link| link.is_usable()))
    }
}

struct Expired;
impl Fast for Expired {
    type Object = ();

    fn call((): &(), arguments: &Arguments<'_>) -> Answer {
        let link = arguments.integer(1).and_then(links::get);
        Answer::Boolean(link.is_none_or(|link| link.is_expired()))
    }
}
