//! What the server adds to all handles: `socket:park` and `socket:linger`.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use mlua::{FromLua, Lua, MultiValue, Table, Value};
use nix::errno::Errno;

use super::Worker;
use super::disposition::{Disposition, STALL};
use crate::amount::{Amount, MAX_SECONDS};
use crate::binding::{self, Fault, Reply};
use crate::io::{Stream, stream_of};
use crate::sys::os::{fork_detection, process};

/// Defines the methods.
pub fn export(lua: &Lua) -> mlua::Result<()> {
    let handles: Table = crate::io::module(lua)?.raw_get("handle_pt")?;
    binding::export(lua, &handles, "park", park)?;
    binding::export(lua, &handles, "linger", linger)
}

/// `socket:park([timeout [, stall]])`: the handler is done with the socket until it has input, until
/// `timeout` (seconds; nil or false: none) is over, or until the server shuts down. Then `connect`
/// is called with it again, and `socket.wakeup` says why ("input", "timeout", "shutdown").
///
/// Output that is queued is sent before that, as the client takes it; the time begins when all is
/// sent. A client that takes nothing for `stall` seconds (nil: 60; false: no limit) is reset.
///
/// Returns true if the worker does it: the handler then returns true as well, and does not use
/// the socket any more. Returns false outside a worker: the caller waits for itself.
fn park(lua: &Lua, args: MultiValue) -> Reply<bool> {
    let (stream, timeout, stall) = arguments(lua, "park", &args)?;
    Ok(park_stream(&stream, timeout, stall))
}

/// As `socket:park`, for callers that have the stream.
pub fn park_stream(
    stream: &Rc<RefCell<Stream>>,
    timeout: Option<Duration>,
    stall: Option<Duration>,
) -> bool {
    decide(stream, Disposition::Park { timeout, stall })
}

/// `socket:linger([timeout [, stall]])`: the handler is done with the connection. Its output is sent
/// and finished, what the client still sends is discarded until the client closes too, or until
/// `timeout` (seconds; nil or false: none) is over, when the connection is reset. No worker is
/// occupied by that. `stall` is that of `socket:park`.
///
/// Returns true if the worker does it; false outside a worker, where the caller has to do it;
/// nil and a message if the output cannot be sent.
fn linger(lua: &Lua, args: MultiValue) -> Reply<bool> {
    let (stream, timeout, stall) = arguments(lua, "linger", &args)?;
    Ok(linger_stream(&stream, timeout, stall)?)
}

/// As `socket:linger`, for callers that have the stream.
///
/// # Errors
/// The output cannot be sent.
pub fn linger_stream(
    stream: &Rc<RefCell<Stream>>,
    timeout: Option<Duration>,
    stall: Option<Duration>,
) -> std::io::Result<bool> {
    let timeout = timeout.unwrap_or(Duration::from_secs(MAX_SECONDS as u64));
    let linger = Disposition::Linger { timeout, stall };
    if !decide(stream, linger) {
        return Ok(false);
    }
    stream.borrow_mut().finish_nb()?;
    Ok(true)
}

/// The handler is done with a connection whose response another process goes on with; `held` says how. False
/// outside a worker.
pub fn hold_stream(stream: &Rc<RefCell<Stream>>, held: Vec<u8>) -> bool {
    let is_held = decide(stream, Disposition::Hold);
    if is_held {
        stream.borrow_mut().handler.held = held;
    }
    is_held
}

/// What becomes of a connection; false if no worker sees to that.
fn decide(stream: &Rc<RefCell<Stream>>, decision: Disposition) -> bool {
    with_worker(|worker| worker.decide(stream, decision)).unwrap_or(false)
}

/// The worker that this process is or was forked from.
struct Own {
    worker: Weak<RefCell<Worker>>,
    generation: u64,
}

impl Own {
    const NONE: Self = Own { worker: Weak::new(), generation: 0 };

    fn exists(&self) -> bool {
        self.worker.strong_count() > 0
    }

    /// Whether this process is the worker, and not a child of its.
    fn is_here(&self) -> bool {
        self.generation == fork_detection::generation()
    }
}

thread_local! {
    /// The worker that this process, or one from which it was forked, is.
    static WORKER: RefCell<Own> = const { RefCell::new(Own::NONE) };
}

/// This process has become a worker.
pub fn set_worker(worker: &Rc<RefCell<Worker>>) -> Result<(), Errno> {
    let (worker, generation) = (Rc::downgrade(worker), fork_detection::generation());
    WORKER.set(Own { worker, generation });
    let before = || {
        with_worker(Worker::insure);
    };
    let in_child = || {
        let worker = WORKER.with_borrow(|own| own.worker.upgrade());
        if let Some(Ok(mut worker)) = worker.as_ref().map(|worker| worker.try_borrow_mut()) {
            worker.disown();
        }
    };
    process::at_fork(before, in_child)
}

/// Whether this process is a worker.
pub fn is_worker() -> bool {
    WORKER.with_borrow(|own| own.exists() && own.is_here())
}

/// Whether a worker's handler has forked this process.
pub fn is_child() -> bool {
    WORKER.with_borrow(|own| own.exists() && !own.is_here())
}

/// Ends this process if a handler has forked it: what comes after the handler is the worker's.
pub fn leave_child(code: i32) {
    if is_child() {
        process::exit_now(code);
    }
}

/// Asks the worker that this process is; `None` if it is none.
pub fn with_worker<R>(ask: impl FnOnce(&mut Worker) -> R) -> Option<R> {
    let here = |own: &Own| own.worker.upgrade().filter(|_| own.is_here());
    let worker = WORKER.with_borrow(here)?;
    // A finalizer may ask while the worker itself runs: then the answer is none.
    worker.try_borrow_mut().ok().map(|mut worker| ask(&mut worker))
}

/// The stream, `timeout` and `stall`.
type StreamArguments = (Rc<RefCell<Stream>>, Option<Duration>, Option<Duration>);

fn arguments(lua: &Lua, method: &str, args: &MultiValue) -> Reply<StreamArguments> {
    let mut args = args.iter();
    let stream = match args.next() {
        Some(Value::UserData(handle)) => stream_of(handle),
        _ => None,
    };
    let stream = stream.ok_or_else(|| Fault::misuse(format!("{method} expects a socket")))?;
    let timeout = time(lua, method, "timeout", args.next(), None)?;
    let stall = time(lua, method, "stall", args.next(), Some(STALL))?;
    Ok((stream, timeout, stall))
}

/// A time in seconds, or false for none; `default` if it is not given.
fn time(
    lua: &Lua,
    method: &str,
    what: &str,
    value: Option<&Value>,
    default: Option<Duration>,
) -> Reply<Option<Duration>> {
    match Amount::from_lua(value.cloned().unwrap_or(Value::Nil), lua)? {
        Amount::Missing => Ok(default),
        Amount::Off => Ok(None),
        Amount::Of(seconds) => Ok(Some(Duration::from_secs_f64(seconds.min(MAX_SECONDS)))),
        Amount::Wrong => {
            let text = format!("{method} expects a {what} as a non-negative number of seconds");
            Err(Fault::misuse(text))
        }
    }
}
