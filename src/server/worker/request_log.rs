//! What this worker says of its requests: while one is handled, where the supervisor finds it; then, to the
//! access log.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use crate::io::Stream;
use crate::server::ipc::access_queue::{OwnQueue, Sequel, UnsentResponse, WantedFields};
use crate::server::ipc::request_names::RequestNames;
use crate::server::ipc::request_record::{self, Closing, End, LogValue, Opening};
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
    /// The pool's function reads an HTTP request whenever it is called.
    is_http: bool,
    /// Responses so far whose output was queued.
    unsent: u64,
    /// The request that is handled, if there is an access log; what is known of it is noted on the board.
    handled: Option<Handled>,
    /// A request is handled.
    is_handling: bool,
    /// Requests whose handlers are waiting for that of another one, which they have called.
    outer: Vec<Interrupted>,
    /// When the connection of the current call began to wait, and when its handler was called; until a request is
    /// opened.
    called: Option<(MonotonicTime, MonotonicTime)>,
    /// When the response was over with which the run ends.
    ended: Option<MonotonicTime>,
}

struct Handled {
    /// When that has begun, in microseconds of the monotonic clock.
    begun: u64,
    /// How many bytes its stream had to send before, or had sent.
    before: u64,
    /// What the handler has added.
    fields: Vec<u8>,
}

struct Interrupted {
    note: Vec<u64>,
    handled: Option<Handled>,
}

thread_local! {
    static LOG: RefCell<Option<RequestLog>> = const { RefCell::new(None) };
}

fn with<R>(work: impl FnOnce(&mut RequestLog) -> R) -> Option<R> {
    LOG.with(|log| log.try_borrow_mut().ok()?.as_mut().map(work))
}

/// Microseconds of the monotonic clock.
fn now() -> u64 {
    microseconds(MonotonicTime::now())
}

fn microseconds(time: MonotonicTime) -> u64 {
    time.nanoseconds() / 1000
}

/// This process is a worker of the pool with that number, with the given place in the scoreboard. `is_http`: its
/// function is one that HTTP has made.
pub fn begin(
    pool: usize,
    is_http: bool,
    (board, cell): (&Rc<Scoreboard>, usize),
    queue: Option<OwnQueue>,
) {
    let log = RequestLog {
        board: board.clone(),
        cell,
        pool: u32::try_from(pool).unwrap_or(0),
        pid: std::process::id(),
        queue,
        is_http,
        unsent: 0,
        handled: None,
        is_handling: false,
        outer: Vec::new(),
        called: None,
        ended: None,
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
pub fn begin_run(stream: &Stream, ready: MonotonicTime, start: MonotonicTime) {
    with(|log| {
        if log.is_handling {
            // Its end was never told of.
            log.outer.clear();
            log.handled = None;
            log.over();
        }
        if log.queue.is_some() {
            (log.called, log.ended) = (Some((ready, start)), None);
            if log.is_http && stream.handler.session.is_none() {
                let (begun, pool, pid) = (microseconds(start), log.pool, log.pid);
                let client = stream.client();
                let opening = Opening { begun, pool, pid, client, ..Opening::default() };
                return log.board.note(log.cell).announce(opening.numbers([0; 4]));
            }
        }
        log.board.note(log.cell).clear();
    });
}

/// What follows is not about the last request.
pub fn forget_last() {
    with(|log| log.board.note(log.cell).clear());
}

/// The client of the last request has yet to take the response: notes that for the case that this process dies.
/// Returns where.
pub fn note_sending() -> Option<usize> {
    with(|log| {
        let last = log.board.note(log.cell).last();
        let (opening, _) = request_record::decode_opening(&last).ok()?;
        let (place, note) =
            log.board.sending(log.cell).enumerate().find(|(_, note)| note.is_clear())?;
        note.write(&opening);
        Some(place)
    })?
}

/// The response that was noted there is another process's concern, or nobody's.
pub fn forget_sending(place: usize) {
    with(|log| log.board.sending(log.cell).nth(place).map(|note| note.clear()));
}

/// The pool's function has returned. Gives when the response was over with which the run has ended, if the log has
/// looked at the clock then.
pub fn end_run() -> Option<MonotonicTime> {
    with(|log| {
        log.board.note(log.cell).retract();
        log.ended
    })?
}

/// A handler is about to be called for a request on that stream, or one is refused. `opening` is told what lines of
/// the access log have.
#[inline(always)]
pub fn open<'a>(stream: &Stream, opening: impl FnOnce(WantedFields) -> Opening<'a>) {
    with(|log| {
        if log.is_handling {
            log.interrupt();
        }
        log.is_handling = true;
        let wanted = log.queue.as_ref().map(|queue| queue.wanted);
        let mut opening = opening(wanted.unwrap_or_default());
        (opening.begun, opening.queued) = if wanted.is_none() {
            // A clock of some milliseconds will do.
            (alarm::about_now() / 1000, 0)
        } else {
            let (ready, start) = log.called.take().unwrap_or_else(|| {
                // Another request in the same run.
                let now = MonotonicTime::now();
                (now, now)
            });
            let (ready, start) = (ready.nanoseconds(), start.nanoseconds());
            let begun = start / 1000;
            let before = stream.duplex.output.transmitted() + stream.duplex.pending() as u64;
            log.handled = Some(Handled { begun, before, fields: Vec::new() });
            (begun, start.saturating_sub(ready) / 1000)
        };
        (opening.pool, opening.pid) = (log.pool, log.pid);
        log.board.note(log.cell).write(&opening);
    });
}

/// A request is refused before it comes to HTTP. `opening` makes what is known of it, from the client.
pub fn open_refusal<'a>(stream: &Stream, opening: impl FnOnce(Option<SocketAddr>) -> Opening<'a>) {
    if is_kept() {
        with(|log| log.called = None);
        open(stream, |_| opening(stream.client()));
    }
}

/// The response to such a request is sent as far as possible.
pub fn close_refusal(stream: &RefCell<Stream>, closing: Closing<'_>) {
    if is_kept() {
        close(false, false, Some(stream), || closing);
    }
}

/// A handler is about to be called for an event that is not a request: it gets no line in the access log.
/// `line`: what began the connection.
pub fn open_event(stream: &Stream, line: &[u8]) {
    with(|log| {
        if log.is_handling {
            log.interrupt();
        }
        log.is_handling = true;
        let client = stream.client();
        let (begun, pool, pid) = (alarm::about_now() / 1000, log.pool, log.pid);
        let opening = Opening { begun, pool, pid, client, line, ..Opening::default() };
        log.board.note(log.cell).write(&opening);
    });
}

/// The handler has returned.
pub fn close_event() {
    with(RequestLog::over);
}

/// The request that is handled has been given these names, unless it had some when it was opened.
pub fn name(names: RequestNames<'_>) {
    with(|log| log.board.note(log.cell).add_names(names.bytes()));
}

/// The handler adds a field to its request's record. False if it has added too much.
pub fn add_field(name: &[u8], value: LogValue<'_>) -> bool {
    let add = |log: &mut RequestLog| {
        let Some(handled) = &mut log.handled else { return true };
        request_record::add_field((&mut handled.fields, FIELDS), name, value)
    };
    with(add).unwrap_or(true)
}

/// The response is over. `was_handled`: a handler was called. `ends_run`: nothing is left to do for the run of the pool's
/// function. The stream may have queued output; without one, or if the stream is in use, it belongs to somebody else.
/// `closing`: what the caller knows of the connection's end.
#[inline]
pub fn close<'a>(
    was_handled: bool,
    ends_run: bool,
    stream: Option<&RefCell<Stream>>,
    closing: impl FnOnce() -> Closing<'a>,
) {
    with(|log| {
        if let Some(handled) = log.handled.take() {
            let mut stream = stream.and_then(|stream| stream.try_borrow_mut().ok());
            let now = MonotonicTime::now();
            log.ended = ends_run.then_some(now);
            log.tell((closing(), now), was_handled, &handled, stream.as_deref_mut());
        }
        log.over();
    });
}

/// Another process goes on with the response: the record so far. Empty if there is none.
pub fn take<'a>(
    stream: Option<&RefCell<Stream>>,
    closing: impl FnOnce() -> Closing<'a>,
) -> Vec<u8> {
    let take = |log: &mut RequestLog| {
        let handled = log.handled.take();
        let record = handled.map(|handled| log.record(&handled, stream, closing()));
        log.over();
        record
    };
    with(take).flatten().unwrap_or_default()
}

/// The output of a stream is sent.
pub fn sent(stream: &mut Stream) {
    tell(stream, |unsent, _| Sequel::Sent { unsent, at: now(), lost: None });
}

/// The output of a stream will not be sent, or only a part.
pub fn lost(stream: &mut Stream) {
    tell(stream, |unsent, lost| Sequel::Sent { unsent, at: now(), lost: Some(lost) });
}

/// Another process goes on with the output of a stream.
pub fn moved(stream: &mut Stream) {
    tell(stream, |unsent, _| Sequel::Moved(unsent));
}

/// Another process goes on with the output of a stream if this one ends.
pub fn shared(stream: &mut Stream) {
    let unsent = stream.handler.unsent_record;
    moved(stream);
    stream.handler.unsent_record = unsent;
}

fn tell(stream: &mut Stream, sequel: impl FnOnce(UnsentResponse, u64) -> Sequel) {
    let Some(unsent) = stream.handler.unsent_record.take() else { return };
    // A write that has failed leaves nothing.
    let lost = stream.duplex.pending() as u64 + stream.duplex.output.dropped();
    with(|log| {
        if let Some(queue) = &log.queue {
            queue.push(sequel(unsent, lost));
        }
    });
}

impl RequestLog {
    fn tell(
        &mut self,
        (closing, now): (Closing<'_>, MonotonicTime),
        was_handled: bool,
        handled: &Handled,
        stream: Option<&mut Stream>,
    ) {
        let Some(queue) = &self.queue else { return };
        let goes_on = |stream: &Stream| stream.is_open() && closing.end != End::Aborted;
        let pending =
            stream.as_ref().filter(|stream| goes_on(stream)).map_or(0, |s| s.duplex.pending());
        let transmitted = stream.as_ref().map_or(0, |stream| stream.duplex.output.transmitted());
        // The handler has just returned, if one was called.
        let age = microseconds(now).saturating_sub(handled.begun);
        let closing = Closing {
            handled: was_handled.then_some(age),
            sent: (closing.end != End::Aborted && pending == 0).then_some(age),
            bytes_out: (transmitted + pending as u64).saturating_sub(handled.before),
            fields: &handled.fields,
            ..closing
        };
        let unsent = stream.filter(|_| pending > 0).map(|stream| {
            self.unsent += 1;
            let unsent = queue.number() << 40 | self.unsent;
            stream.handler.unsent_record = Some(unsent);
            unsent
        });
        let opening = self.board.note(self.cell).words();
        queue.push_record(unsent, opening, &closing);
    }

    /// The record of a response with which another process goes on.
    fn record(
        &self,
        handled: &Handled,
        stream: Option<&RefCell<Stream>>,
        closing: Closing<'_>,
    ) -> Vec<u8> {
        let Handled { begun, before, fields } = handled;
        let written = stream.and_then(|stream| stream.try_borrow().ok()).map_or(0, |stream| {
            stream.duplex.output.transmitted() + stream.duplex.pending() as u64
        });
        let handled = Some(now().saturating_sub(*begun));
        let mut record = self.board.note(self.cell).read();
        let bytes_out = written.saturating_sub(*before);
        Closing { handled, bytes_out, fields, ..closing }.encode(&mut record);
        record
    }

    /// Another request is about to be opened, by the handler of this one.
    #[cold]
    fn interrupt(&mut self) {
        let note = self.board.note(self.cell);
        let note = note.words().iter().map(|word| word.load(Relaxed)).collect();
        self.outer.push(Interrupted { note, handled: self.handled.take() });
    }

    /// A request is over. If the handler of another request had called its handler, that one continues.
    #[inline]
    fn over(&mut self) {
        self.board.note(self.cell).finish();
        self.is_handling = false;
        if !self.outer.is_empty() {
            self.resume();
        }
    }

    #[cold]
    fn resume(&mut self) {
        if let Some(Interrupted { note, handled }) = self.outer.pop() {
            self.board.note(self.cell).restore(&note);
            self.is_handling = true;
            self.handled = handled;
        }
    }
}
