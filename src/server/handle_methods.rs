//! What the server adds to all handles: `socket:park` and `socket:linger`.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use mlua::{Lua, MultiValue, Table, Value};

use super::worker::Worker;
use crate::glue::{self, Fault, Reply};
use crate::io::{Stream, stream_of};

/// The longest time either method accepts, in seconds; longer ones count as this.
const MAX_SECONDS: f64 = 1e8;

/// Defines the methods.
pub fn export(lua: &Lua) -> mlua::Result<()> {
    let handles: Table = crate::io::module(lua)?.raw_get("handle_pt")?;
    glue::export(lua, &handles, "park", park)?;
    glue::export(lua, &handles, "linger", linger)
}

/// `socket:park([timeout])`: the handler is done with the socket until it has input, until
/// `timeout` (seconds; nil or false: none) is over, or until the server shuts down. Then `connect`
/// is called with it again, and `socket.wakeup` says why ("input", "timeout", "shutdown").
///
/// Returns true if a worker will see to it: the handler then returns true as well, and does not use
/// the socket any more. Returns false where nobody supervises: the caller waits for itself.
fn park(_: &Lua, args: MultiValue) -> Reply<bool> {
    let (stream, timeout) = arguments("park", &args)?;
    Ok(park_stream(&stream, timeout))
}

/// As `socket:park`, for callers that have the stream.
pub fn park_stream(stream: &Rc<RefCell<Stream>>, timeout: Option<Duration>) -> bool {
    with_worker(|worker| worker.park(stream, timeout))
}

/// `socket:linger([timeout])`: the handler is done with the connection. Its output is flushed and
/// finished, what the client still sends is discarded until the client closes too, or until
/// `timeout` (seconds; nil or false: none) is over, when the connection is reset. No worker is
/// occupied by that.
///
/// Returns true if a worker will see to it; false if the caller has to, because nobody supervises
/// or because the socket is no TCP connection; nil and a message if the output cannot be sent.
fn linger(_: &Lua, args: MultiValue) -> Reply<bool> {
    let (stream, timeout) = arguments("linger", &args)?;
    let timeout = timeout.unwrap_or(Duration::from_secs(MAX_SECONDS as u64));
    if !stream.borrow().is_tcp() || !with_worker(|worker| worker.linger_on(&stream, timeout)) {
        return Ok(false);
    }
    stream.borrow_mut().finish()?;
    Ok(true)
}

thread_local! {
    /// The worker that this process is, if it is one.
    static WORKER: RefCell<Weak<RefCell<Worker>>> = const { RefCell::new(Weak::new()) };
}

/// This process has become a worker.
pub fn set_worker(worker: &Rc<RefCell<Worker>>) {
    WORKER.with_borrow_mut(|current| *current = Rc::downgrade(worker));
}

/// Asks the worker that this process is; false if it is none.
pub fn with_worker(ask: impl FnOnce(&mut Worker) -> bool) -> bool {
    let Some(worker) = WORKER.with_borrow(Weak::upgrade) else { return false };
    // A finalizer may ask while the worker itself is at work: then it is nobody's turn.
    worker.try_borrow_mut().is_ok_and(|mut worker| ask(&mut worker))
}

type Arguments = (Rc<RefCell<Stream>>, Option<Duration>);

fn arguments(method: &str, args: &MultiValue) -> Reply<Arguments> {
    let mut args = args.iter();
    let stream = match args.next() {
        Some(Value::UserData(handle)) => stream_of(handle),
        _ => None,
    };
    let stream = stream.ok_or_else(|| Fault::misuse(format!("{method} expects a socket")))?;
    let seconds = match args.next() {
        None | Some(Value::Nil | Value::Boolean(false)) => return Ok((stream, None)),
        Some(Value::Integer(seconds)) => *seconds as f64,
        Some(Value::Number(seconds)) => *seconds,
        Some(_) => f64::NAN,
    };
    if seconds.is_nan() || seconds < 0.0 {
        let text = format!("{method} expects a timeout as a non-negative number of seconds");
        return Err(Fault::misuse(text));
    }
    Ok((stream, Some(Duration::from_secs_f64(seconds.min(MAX_SECONDS)))))
}
