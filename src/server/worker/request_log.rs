//! What this worker says of its requests: while one is handled, where the supervisor finds it; then, to the
//! access log.

use std::cell::RefCell;
use std::rc::Rc;

use crate::io::Stream;
use crate::server::ipc::access_queue::{Entry, OwnQueue, Unsent};
use crate::server::ipc::request_record::{self, Closing, End, FieldValue, NUMBERS, Opening};
use crate::server::ipc::scoreboard::Scoreboard;
use crate::sys::os::alarm;
use crate::sys::os::monotonic::MonotonicTime;

/// The longest text of all fields of a request that handlers add, in bytes.
const FIELDS: usize = 16 * 1024;

struct RequestLog {
    board: Rc<Scoreboard>,
    cell: usize,
    /// The pool's number and the process id.
    pool: u32,
    pid: u32,
    queue: Option<OwnQueue>,
    /// Responses so far whose output was queued.
    unsent: u64,
    /// The request that is handled: when that has begun, in microseconds of the monotonic clock, and what is
    /// known of it.
    handled: Option<u64>,
    opening: Vec<u8>,
    /// How many bytes its stream had to send before, or had sent.
    before: u64,
    /// The encoding of a closing.
    closing: Vec<u8>,
    fields: Vec<u8>,
    /// When the connection began to wait whose handler was called, and when that was; until a request is
    /// opened.
    called: Option<(MonotonicTime, MonotonicTime)>,
}

thread_local! {
    static LOG: RefCell<Option<RequestLog>> = const { RefCell::new(None) };
}

fn with<R>(work: impl FnOnce(&mut RequestLog) -> R) -> Option<R> {
    LOG.with(|log| log.try_borrow_mut().ok()?.as_mut().map(work))
}

/// Microseconds of the monotonic clock.
fn now() -> u64 {
    MonotonicTime::now().nanoseconds() / 1000
}

/// This process is a worker of the pool with that number, with the given place in the scoreboard.
pub fn begin(pool: usize, board: &Rc<Scoreboard>, cell: usize, queue: Option<OwnQueue>) {
    let log = RequestLog {
        board: board.clone(),
        cell,
        pool: u32::try_from(pool).unwrap_or(0),
        pid: std::process::id(),
        queue,
        unsent: 0,
        handled: None,
        opening: Vec::new(),
        before: 0,
        closing: Vec::new(),
        fields: Vec::new(),
        called: None,
    };
    LOG.set(Some(log));
}

/// This process is a child of a worker: it has no requests.
pub fn forget() {
    LOG.with(|log| log.try_borrow_mut().map(|mut log| *log = None).ok());
}

/// Whether there is an access log.
pub fn is_kept() -> bool {
    with(|log| log.queue.is_some()).unwrap_or(false)
}

/// Whether a request is handled that had begun at this time, in microseconds of the monotonic clock.
pub fn had_begun(at: u64) -> bool {
    let begun = with(|log| log.board.note(log.cell).begun()).flatten();
    begun.is_some_and(|begun| begun <= at)
}

/// The pool's function is called: at `start`, for a connection that has waited since `ready`.
pub fn begin_run(ready: MonotonicTime, start: MonotonicTime) {
    with(|log| {
        if log.queue.is_some() {
            log.called = Some((ready, start));
        }
    });
}

/// A handler is about to be called for a request on that stream.
pub fn open(opening: Opening<'_>, stream: &Stream) {
    with(|log| {
        let note = log.board.note(log.cell);
        let (pool, pid) = (log.pool, log.pid);
        if log.queue.is_none() {
            // A clock of some milliseconds will do.
            let begun = alarm::about_now() / 1000;
            let opening = Opening { begun, pool, pid, ..opening };
            return note.write(&opening.numbers(), opening.line);
        }
        let (ready, start) = log.called.take().unwrap_or_else(|| {
            // Another request in the same run.
            let now = MonotonicTime::now();
            (now, now)
        });
        let (ready, start) = (ready.nanoseconds(), start.nanoseconds());
        let (begun, queued) = (start / 1000, start.saturating_sub(ready) / 1000);
        let opening = Opening { begun, queued, pool, pid, ..opening };
        log.opening.clear();
        log.fields.clear();
        opening.encode(&mut log.opening);
        note.write(&opening.numbers(), &log.opening[8 * NUMBERS..]);
        log.handled = Some(begun);
        log.before = stream.output.transmitted() + stream.pending() as u64;
    });
}

/// The handler adds a field to its request's record. False if it has added too much.
pub fn add_field(name: &[u8], value: FieldValue<'_>) -> bool {
    let add = |log: &mut RequestLog| {
        let before = log.fields.len();
        request_record::add_field(&mut log.fields, name, value);
        let fits = log.fields.len() <= FIELDS;
        if !fits {
            log.fields.truncate(before);
        }
        fits
    };
    with(add).unwrap_or(true)
}

/// The response is over: whether that is to be told by [`close`].
pub fn ends() -> bool {
    let end = |log: &mut RequestLog| {
        log.board.note(log.cell).clear();
        log.handled.is_some()
    };
    with(end).unwrap_or(false)
}

/// The response is over, on a stream that may have queued output. `was_handled`: a handler was called.
pub fn close(closing: Closing<'_>, was_handled: bool, stream: &mut Stream) {
    with(|log| {
        if let Some(begun) = log.handled.take() {
            log.close(closing, was_handled, begun, stream);
        }
    });
}

/// The output of a stream is sent.
pub fn sent(stream: &mut Stream) {
    tell(stream, |unsent, _| Entry::Sent { unsent, at: now(), lost: None });
}

/// The output of a stream will not be sent, or only a part.
pub fn lost(stream: &mut Stream) {
    tell(stream, |unsent, lost| Entry::Sent { unsent, at: now(), lost: Some(lost) });
}

/// Another process goes on with the output of a stream.
pub fn moved(stream: &mut Stream) {
    tell(stream, |unsent, _| Entry::Moved(unsent));
}

fn tell(stream: &mut Stream, entry: impl FnOnce(Unsent, u64) -> Entry<'static>) {
    let Some(unsent) = stream.handler.unsent_record.take() else { return };
    let lost = stream.pending() as u64;
    with(|log| {
        if let Some(queue) = &log.queue {
            queue.push(entry(unsent, lost));
        }
    });
}

impl RequestLog {
    fn close(&mut self, closing: Closing<'_>, was_handled: bool, begun: u64, stream: &mut Stream) {
        let Some(queue) = &self.queue else { return };
        let goes_on = stream.is_open() && closing.end != End::Aborted;
        let pending = if goes_on { stream.pending() as u64 } else { 0 };
        // The handler has just returned, if one was called.
        let age = now().saturating_sub(begun);
        let handled = was_handled.then_some(age);
        let sent = (closing.end != End::Aborted && pending == 0).then_some(age);
        let bytes_out = (stream.output.transmitted() + pending).saturating_sub(self.before);
        self.closing.clear();
        Closing { handled, sent, bytes_out, fields: &self.fields, ..closing }
            .encode(&mut self.closing);
        if pending == 0 {
            queue.push(Entry::Record(&self.opening, &self.closing));
            return;
        }
        self.unsent += 1;
        let unsent = queue.number() << 40 | self.unsent;
        queue.push(Entry::Unsent(unsent, &self.opening, &self.closing));
        stream.handler.unsent_record = Some(unsent);
    }
}
