//! A turn: what happens from a call of the `connect` function until it returns.
//!
//! A state machine without Lua. It answers each [`Event`] with the [`Action`] that its driver has to carry
//! out, and works on a [`Connection`], which never blocks. A turn serves one request and leaves the connection
//! to its [`Supervision`]. Where nobody supervises, it goes on with the next request, and does all waiting by
//! itself.
//!
//! | state | event | what follows |
//! |---|---|---|
//! | Free | `begin` | a request is there: handle it; refused or gone: end the connection; else park, or wait |
//! | Handling | Returned | send the response; ask for a reader first if the handler has turned to the body |
//! | Handling, Concluding, Reading | Threw | decide between an answer, a reset, and going on |
//! | Concluding | Reader | send the response; let the reader read the rest of the body, if there is one |
//! | Reading | BodyRead | keep or end the connection |
//! | Retiring | Retired | the connection is kept, closed, shut or reset |
//! | Awaiting | Ready | look for the next request, or refuse to wait longer |
//! | Sending | Ready | send more; the client takes nothing: reset |
//! | Lingering | Ready | discard input until the client's end; its time is up: reset |

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::{Blameless, Conclusion, Connection, FAULTY, Opened, Problem};
use super::time_limits::TimeLimits;
use crate::http::wire::refusal::Refusal;
use crate::io::stream::{Stream, Wakeup};

/// For how long a client may go on sending where nobody supervises (see
/// `src/server/supervisor/handover/lingering.rs`).
const SENDING: Duration = Duration::from_secs(30);

/// A function that takes a connection, with two times.
type Take<R> = fn(&Rc<RefCell<Stream>>, Option<Duration>, Option<Duration>) -> R;

/// What a worker does with connections between turns. In any other process `is_worker` and the functions
/// return false, and the turn waits for itself.
#[derive(Clone, Copy, Debug)]
pub struct Supervision {
    /// Whether this process is a worker.
    pub is_worker: fn() -> bool,
    /// Takes a connection that waits for a request: at most for the first time; its output may make no progress
    /// for the second one. `None`: no limit.
    pub park: Take<bool>,
    /// Takes a connection that ends, with the same times. An error if its output cannot be sent.
    pub linger: Take<std::io::Result<bool>>,
}

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The handler has returned.
    Returned {
        /// It has returned true: its process lives on.
        keep: bool,
    },
    /// Whether callbacks are to get the rest of the body.
    Reader(bool),
    /// They have got it.
    BodyRead,
    /// The handler, or a callback, has thrown an error with this text.
    Threw(&'a [u8]),
    /// The request object is not that of the current request any more.
    Retired,
    /// A wait has ended.
    Ready(Ready),
}

/// How a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// With input, or room for output.
    Transfer,
    /// Its time is up.
    Timeout,
    /// The server shuts down.
    Shutdown,
}

/// What the driver has to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Call the handler with a new request object.
    Handle,
    /// Find out whether callbacks are to get the rest of the body.
    FindReader,
    /// Let them have it.
    ReadBody,
    /// The response is over: the request object must not be used any more.
    Retire,
    /// Wait for input, for room for output, or for both.
    Wait {
        /// For input.
        reads: bool,
        /// For room.
        writes: bool,
        /// The longest time.
        limit: Option<Duration>,
    },
    /// Wait for the next request, or for a shutdown.
    AwaitRequest {
        /// The longest time.
        limit: Option<Duration>,
    },
    /// Return or throw: the turn is over.
    End(Outcome),
}

/// How a turn ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What the handler has returned is returned.
    Result,
    /// True is returned.
    True,
    /// What was thrown is passed on: [`Turn::error`], or if there is none, the error of [`Event::Threw`].
    Throw,
}

/// What becomes of the connection when its request object is retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Keep,
    Close,
    /// Its output is sent, and its input discarded until the client's end.
    Shut(Outcome),
    Reset(Outcome),
    /// It is over already.
    Nothing(Outcome),
}

/// What follows when all output is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    NextRequest,
    Linger(Outcome),
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Free,
    Handling,
    Concluding {
        keep: bool,
    },
    Reading,
    Retiring(Next),
    Awaiting(Rc<RefCell<Stream>>),
    Sending {
        reads: bool,
        then: Then,
    },
    Lingering {
        until: Option<Instant>,
        outcome: Outcome,
    },
}

/// A turn.
#[derive(Debug)]
pub struct Turn {
    times: TimeLimits,
    supervision: Supervision,
    state: State,
    /// Why the server has called, until there is a request; then how the last wait has ended.
    wakeup: Wakeup,
    /// When the connection will have been idle for too long, once that was decided here.
    idle_until: Option<Instant>,
    error: Option<String>,
}

impl Turn {
    /// No turn yet.
    pub fn new(times: TimeLimits, supervision: Supervision) -> Self {
        let (state, wakeup) = (State::Free, Wakeup::None);
        Turn { times, supervision, state, wakeup, idle_until: None, error: None }
    }

    /// Whether a turn can begin.
    pub fn is_free(&self) -> bool {
        matches!(self.state, State::Free)
    }

    /// The text that the turn itself throws.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The server, or somebody else, calls for a connection.
    pub fn begin(&mut self, c: &mut Connection, stream: Rc<RefCell<Stream>>) -> Action {
        self.wakeup = stream.try_borrow().map_or(Wakeup::None, |stream| stream.handler.wakeup);
        (self.idle_until, self.error) = (None, None);
        self.open(c, stream)
    }

    /// Goes on.
    pub fn step(&mut self, c: &mut Connection, event: Event<'_>) -> Action {
        match (std::mem::take(&mut self.state), event) {
            (State::Handling, Event::Returned { keep }) if c.body_used => {
                self.state = State::Concluding { keep };
                Action::FindReader
            }
            (State::Handling, Event::Returned { keep }) => self.conclude(c, keep, false),
            (State::Concluding { keep }, Event::Reader(reads)) => self.conclude(c, keep, reads),
            (State::Reading, Event::BodyRead) => {
                let next = leave_body(c);
                self.retire(next)
            }
            (State::Handling | State::Concluding { .. } | State::Reading, Event::Threw(text)) => {
                let next = failed(c, text);
                self.retire(next)
            }
            (State::Retiring(next), Event::Retired) => self.go_on(c, next),
            (State::Sending { reads, then }, Event::Ready(Ready::Transfer)) => {
                self.send(c, reads, then)
            }
            (State::Lingering { until, outcome }, Event::Ready(Ready::Transfer)) => {
                self.linger(c, until, outcome)
            }
            (State::Awaiting(stream), Event::Ready(ready)) => {
                self.wakeup = match ready {
                    Ready::Transfer => Wakeup::Input,
                    Ready::Timeout => Wakeup::Timeout,
                    Ready::Shutdown => Wakeup::Shutdown,
                };
                self.open(c, stream)
            }
            (State::Sending { then: Then::NextRequest, .. }, _) => self.reset(c, Outcome::Result),
            (State::Sending { then: Then::Linger(outcome), .. }, _)
            | (State::Lingering { outcome, .. }, _) => self.reset(c, outcome),
            // The driver sends no other events.
            _ => self.reset(c, Outcome::True),
        }
    }

    /// The turn is given up, as its driver could not wait.
    pub fn give_up(&mut self, c: &mut Connection) {
        self.state = State::Free;
        c.take_stream();
    }

    /// Looks for the next request.
    fn open(&mut self, c: &mut Connection, stream: Rc<RefCell<Stream>>) -> Action {
        match c.open(stream) {
            Opened::Ready => {
                self.state = State::Handling;
                Action::Handle
            }
            Opened::Refused => self.shut(c, Outcome::True),
            // The handler may have closed it behind its response.
            Opened::Gone => {
                c.end_stream(Stream::close);
                self.end(c, Outcome::True)
            }
            opened => self.await_request(c, opened),
        }
    }

    /// There is no request yet: the connection is parked. Where nobody supervises, the turn waits.
    fn await_request(&mut self, c: &mut Connection, opened: Opened) -> Action {
        let begun = opened != Opened::Idle;
        let mut wakeup = std::mem::replace(&mut self.wakeup, Wakeup::None);
        if wakeup == Wakeup::Timeout && begun && self.idle_until.is_some() {
            // The request has begun just before the idle time was over.
            wakeup = Wakeup::Input;
        }
        let refusal = match (wakeup, opened) {
            (Wakeup::Shutdown, _) => Some("Server shutdown"),
            (Wakeup::Timeout, Opened::Buffering) => Some("Request body timed out"),
            (Wakeup::Timeout, Opened::Partial) => Some("Request header timed out"),
            (Wakeup::Timeout, _) => Some("Idle connection timed out"),
            _ => None,
        };
        if let Some(sentence) = refusal {
            // A client that has been answered before would take the refusal for the next answer.
            if begun || !c.was_asked() {
                c.refuse_wait(sentence);
            }
            return self.shut(c, Outcome::True);
        }
        let now = Instant::now();
        let after = |time: Option<Duration>| time.and_then(|time| now.checked_add(time));
        let (stream, deadline) = if begun {
            self.idle_until = None;
            let until = match opened {
                Opened::Buffering => after(self.times.of_body(c.missing().unwrap_or(0))),
                _ => c.head_until(|| after(self.times.header)),
            };
            (c.suspend(until), until)
        } else {
            self.idle_until = self.idle_until.or_else(|| after(self.times.idle));
            let stream = c.take_stream();
            c.close();
            (stream, self.idle_until)
        };
        let Some(stream) = stream else { return self.end(c, Outcome::True) };
        let limit = deadline.map(|deadline| deadline.saturating_duration_since(now));
        if (self.supervision.park)(&stream, limit, self.times.stall) {
            return self.end(c, Outcome::True);
        }
        self.state = State::Awaiting(stream);
        Action::AwaitRequest { limit }
    }

    /// The handler has returned: ends its response and sends it.
    fn conclude(&mut self, c: &mut Connection, keep: bool, reads: bool) -> Action {
        // A connection whose end cannot be announced any more goes on in another worker.
        let goes_on = keep || c.has_left() && (self.supervision.is_worker)();
        let concluded = c.conclude(goes_on, reads);
        let next = match concluded {
            Ok(Conclusion::Keep) => Next::Keep,
            Ok(Conclusion::Close) => Next::Close,
            // That the client has gone meanwhile is no error of the handler's.
            _ if !c.is_open() => Next::Nothing(Outcome::Result),
            _ if matches!(c.blameless, Some(Blameless::Refused(_))) => Next::Shut(Outcome::Result),
            Ok(Conclusion::More) if reads => {
                self.state = State::Reading;
                return Action::ReadBody;
            }
            Ok(Conclusion::More) => leave_body(c),
            Err(Problem::Misuse(text)) if !c.faulty => {
                let next = failed(c, text.as_bytes());
                self.error = Some(text.into_owned());
                next
            }
            Err(_) => Next::Reset(Outcome::Result),
        };
        self.retire(next)
    }

    fn retire(&mut self, next: Next) -> Action {
        self.state = State::Retiring(next);
        Action::Retire
    }

    /// The response is over.
    fn go_on(&mut self, c: &mut Connection, next: Next) -> Action {
        match next {
            Next::Keep => self.keep(c),
            // Everything is sent: should the client be gone, that is no failure.
            Next::Close => {
                c.end_stream(Stream::close);
                self.end(c, Outcome::Result)
            }
            Next::Shut(outcome) => self.shut(c, outcome),
            Next::Reset(outcome) => self.reset(c, outcome),
            Next::Nothing(outcome) => self.end(c, outcome),
        }
    }

    /// Keeps the connection for its next request, behind its output.
    fn keep(&mut self, c: &mut Connection) -> Action {
        let TimeLimits { idle, stall, .. } = self.times;
        if c.stream().is_some_and(|stream| (self.supervision.park)(stream, idle, stall)) {
            return self.end(c, Outcome::Result);
        }
        self.send(c, true, Then::NextRequest)
    }

    /// Ends the connection: flush, FIN, drain, close; else RST. A worker does that, also if the handler's
    /// error is thrown behind this.
    fn shut(&mut self, c: &mut Connection, outcome: Outcome) -> Action {
        if !c.is_open() {
            return self.end(c, outcome);
        }
        if (self.supervision.is_worker)() {
            let linger = self.supervision.linger;
            let TimeLimits { drain, stall, .. } = self.times;
            let sent = c.send_out();
            match c.stream().filter(|_| sent.is_ok()).map(|s| linger(s, drain, stall)) {
                Some(Ok(true)) => return self.end(c, outcome),
                Some(Ok(false)) => {}
                Some(Err(_)) | None => return self.reset(c, outcome),
            }
        }
        self.send(c, true, Then::Linger(outcome))
    }

    /// Sends what is queued, with input thrown away meanwhile.
    fn send(&mut self, c: &mut Connection, reads: bool, then: Then) -> Action {
        match (c.send_out(), then) {
            (Ok(0), Then::NextRequest) => self.next_request(c),
            (Ok(0), Then::Linger(outcome)) => {
                if c.shut_down().is_err() {
                    return self.reset(c, outcome);
                }
                let time = self.times.drain.map(|drain| drain.max(SENDING));
                let until = time.and_then(|time| Instant::now().checked_add(time));
                self.linger(c, until, outcome)
            }
            (Ok(_), then) => {
                let reads = reads && matches!(c.drain(), Ok(true));
                self.state = State::Sending { reads, then };
                Action::Wait { reads, writes: true, limit: self.times.stall }
            }
            (Err(_), Then::NextRequest) => self.reset(c, Outcome::Result),
            (Err(_), Then::Linger(outcome)) => self.reset(c, outcome),
        }
    }

    fn next_request(&mut self, c: &mut Connection) -> Action {
        let Some(stream) = c.take_stream() else { return self.end(c, Outcome::Result) };
        c.close();
        self.wakeup = Wakeup::None;
        self.idle_until = self.times.idle.and_then(|idle| Instant::now().checked_add(idle));
        self.open(c, stream)
    }

    /// Throws input away until the client has ended its side, has sent nothing for so long, or was listened
    /// to for long enough.
    fn linger(&mut self, c: &mut Connection, until: Option<Instant>, outcome: Outcome) -> Action {
        match c.drain() {
            Ok(true) => {}
            Ok(false) => {
                c.end_stream(Stream::close);
                return self.end(c, outcome);
            }
            Err(_) => return self.reset(c, outcome),
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let limit = left.and_then(|left| Some(left.min(self.times.drain?)));
        if limit.is_some_and(|limit| limit.is_zero()) {
            return self.reset(c, outcome);
        }
        self.state = State::Lingering { until, outcome };
        Action::Wait { reads: true, writes: false, limit }
    }

    fn reset(&mut self, c: &mut Connection, outcome: Outcome) -> Action {
        c.end_stream(Stream::reset);
        self.end(c, outcome)
    }

    /// The turn is over. What the log says of the request is still needed if an error is passed on.
    fn end(&mut self, c: &mut Connection, outcome: Outcome) -> Action {
        self.state = State::Free;
        match outcome {
            Outcome::Throw => drop(c.take_stream()),
            Outcome::Result | Outcome::True => c.close(),
        }
        Action::End(outcome)
    }
}

/// Nobody reads the rest of the body.
fn leave_body(c: &mut Connection) -> Next {
    c.leave_body();
    if c.is_reusable() { Next::Keep } else { Next::Shut(Outcome::Result) }
}

/// An error with this text was thrown while the request was handled.
fn failed(c: &mut Connection, text: &[u8]) -> Next {
    c.disarm();
    if !c.is_open() {
        return Next::Nothing(Outcome::Throw);
    }
    if let Some(blameless) = &c.blameless {
        // The client's fault, and if the handler said nothing else, or only missed it, no reason to end the
        // worker.
        let says = |words: &str| memchr::memmem::find(text, words.as_bytes()).is_some();
        let outcome = match says(blameless.words()) || says(FAULTY) {
            true => Outcome::True,
            false => Outcome::Throw,
        };
        return match blameless {
            Blameless::Refused(_) => Next::Shut(outcome),
            Blameless::Lost(_) => Next::Reset(outcome),
        };
    }
    if c.response.is_finished() && !c.faulty {
        // A callback that got the rest of the body has failed: the answer is complete all the same.
        return Next::Shut(Outcome::Throw);
    }
    if c.has_left() || c.faulty {
        return Next::Reset(Outcome::Throw);
    }
    c.refuse(&Refusal::internal_error());
    Next::Shut(Outcome::Throw)
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
