//! A turn: what happens from a call of the `connect` function until it returns.
//!
//! A state machine without Lua. It answers each [`TurnEvent`] with the [`TurnAction`] that its driver has to carry
//! out, and works on a [`HttpConnection`], which never blocks. A turn serves one request and leaves the connection
//! to its [`Supervision`]. Outside a worker, it goes on with the next request, and does all waiting by
//! itself.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::connection::HttpConnection;
use super::ending::{ConnectionEnd, TurnResult, failed, leave_body};
use super::exchange::Conclusion;
use super::incoming::Opened;
use super::log_record;
use super::request_wait::RequestWait;
use super::supervision::Supervision;
use super::time_limits::TimeLimits;
use super::turn_state::{AfterSending, TurnState};
use super::turn_step::{Ready, TurnAction, TurnEvent};
use super::usability::{ClientFault, Problem};
use crate::io::stream::{Stream, Wakeup};
use crate::server::ipc::held_state::MessageFraming;
use crate::server::ipc::request_record::End;
use crate::sys::os::monotonic::MonotonicTime;

/// A turn.
#[derive(Debug)]
pub struct Turn {
    times: TimeLimits,
    supervision: Supervision,
    state: TurnState,
    wait: RequestWait,
    error: Option<String>,
}

impl Turn {
    /// No turn yet.
    pub fn new(times: TimeLimits, supervision: Supervision) -> Self {
        let (state, wait) = (TurnState::Free, RequestWait::default());
        Turn { times, supervision, state, wait, error: None }
    }

    /// Whether a turn can begin.
    pub fn is_free(&self) -> bool {
        matches!(self.state, TurnState::Free)
    }

    /// The text that the turn itself throws.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The server, or somebody else, calls for a connection.
    pub fn begin(&mut self, c: &mut HttpConnection, stream: Rc<RefCell<Stream>>) -> TurnAction {
        let wakeup = stream.try_borrow().map_or(Wakeup::None, |stream| stream.handler.wakeup);
        (self.wait, self.error) = (RequestWait::new(wakeup, None), None);
        self.open(c, stream)
    }

    /// Goes on.
    pub fn step(&mut self, c: &mut HttpConnection, event: TurnEvent<'_>) -> TurnAction {
        match (std::mem::take(&mut self.state), event) {
            (TurnState::Handling, TurnEvent::Returned { keep }) if c.exchange.body.is_used => {
                self.state = TurnState::Concluding { keep };
                TurnAction::FindReader
            }
            (TurnState::Handling, TurnEvent::Returned { keep }) => self.conclude(c, keep, false),
            (TurnState::Concluding { keep }, TurnEvent::Reader(reads)) => {
                self.conclude(c, keep, reads)
            }
            (TurnState::Reading, TurnEvent::BodyRead) => {
                let next = leave_body(c);
                self.retire(next)
            }
            (
                TurnState::Handling | TurnState::Concluding { .. } | TurnState::Reading,
                TurnEvent::Threw(text),
            ) => {
                let next = failed(c, text);
                self.retire(next)
            }
            (TurnState::Retiring(next), TurnEvent::Retired) => self.go_on(c, next),
            (TurnState::Sending { reads, then }, TurnEvent::Ready(Ready::Transfer)) => {
                self.send(c, reads, then)
            }
            (TurnState::Lingering { until, outcome }, TurnEvent::Ready(Ready::Transfer)) => {
                self.linger(c, until, outcome)
            }
            (TurnState::Awaiting(stream), TurnEvent::Ready(ready)) => {
                self.wait.end(ready.wakeup());
                self.open(c, stream)
            }
            (TurnState::Sending { then: AfterSending::NextRequest, .. }, _) => {
                self.reset(c, TurnResult::Result)
            }
            (TurnState::Sending { then: AfterSending::Linger(outcome), .. }, _)
            | (TurnState::Lingering { outcome, .. }, _) => self.reset(c, outcome),
            // The driver sends no other events.
            _ => self.reset(c, TurnResult::True),
        }
    }

    /// The turn is given up, as its driver could not wait.
    pub fn give_up(&mut self, c: &mut HttpConnection) {
        self.state = TurnState::Free;
        c.exchange.stream.take();
    }

    /// Looks for the next request.
    fn open(&mut self, c: &mut HttpConnection, stream: Rc<RefCell<Stream>>) -> TurnAction {
        match c.open(stream) {
            Opened::Ready => {
                self.state = TurnState::Handling;
                TurnAction::Handle
            }
            Opened::Refused => {
                log_record::refused(c);
                self.shut(c, TurnResult::True)
            }
            // The handler may have closed it after its response.
            Opened::Gone => {
                c.exchange.stream.end(Stream::close);
                self.end(c, TurnResult::True)
            }
            opened => self.await_request(c, opened),
        }
    }

    /// There is no request yet: the connection is parked. Outside a worker, the turn waits.
    fn await_request(&mut self, c: &mut HttpConnection, opened: Opened) -> TurnAction {
        let begun = opened != Opened::Idle;
        let refusal = self.wait.refusal(opened);
        if let Some(sentence) = refusal {
            // A client that has been answered before would take the refusal for the next answer.
            if begun || !c.exchange.stream.was_asked() {
                c.refuse_wait(sentence);
                log_record::refused(c);
            }
            return self.shut(c, TurnResult::True);
        }
        let now = MonotonicTime::now();
        let after = |time: Option<Duration>| time.map(|time| now + time);
        let (stream, deadline) = if begun {
            self.wait.forget_idle_time();
            let until = match opened {
                Opened::Buffering => after(self.times.of_body(c.incoming.missing().unwrap_or(0))),
                _ => c
                    .incoming
                    .head_until(c.exchange.stream.borrow().as_deref(), || after(self.times.header)),
            };
            (c.suspend(until), until)
        } else {
            let until = self.wait.idle_until(|| after(self.times.idle));
            let stream = c.exchange.stream.take();
            c.close();
            (stream, until)
        };
        let Some(stream) = stream else { return self.end(c, TurnResult::True) };
        let limit = deadline.map(|deadline| deadline.saturating_duration_since(now));
        if (self.supervision.park)(&stream, limit, self.times.stall) {
            return self.end(c, TurnResult::True);
        }
        self.state = TurnState::Awaiting(stream);
        TurnAction::AwaitRequest { limit }
    }

    /// The handler has returned: ends its response and sends it.
    fn conclude(&mut self, c: &mut HttpConnection, keep: bool, reads: bool) -> TurnAction {
        if c.exchange.stream.has_session() {
            return self.retire(ConnectionEnd::Upgrade);
        }
        if c.exchange.hold.is_some() {
            return self.conclude_held(c, reads);
        }
        // A connection whose end cannot be announced any more goes on in another worker.
        let goes_on = keep || c.exchange.has_left() && (self.supervision.is_worker)();
        let concluded = c.exchange.conclude(goes_on, reads);
        let next = match concluded {
            Ok(Conclusion::Keep) => ConnectionEnd::Keep,
            Ok(Conclusion::Close) => ConnectionEnd::Close,
            // That the client has gone meanwhile is no error of the handler's.
            _ if !c.exchange.stream.is_open() => ConnectionEnd::Nothing(TurnResult::Result),
            _ if matches!(c.exchange.usability.client_fault, Some(ClientFault::Refused(_))) => {
                ConnectionEnd::Shut(TurnResult::Result)
            }
            Ok(Conclusion::More) if reads => {
                self.state = TurnState::Reading;
                return TurnAction::ReadBody;
            }
            Ok(Conclusion::More) => leave_body(c),
            Err(Problem::Misuse(text)) if !c.exchange.usability.is_faulty => {
                let next = failed(c, text.as_bytes());
                self.error = Some(text.into_owned());
                next
            }
            Err(_) => ConnectionEnd::Reset(TurnResult::Result),
        };
        self.retire(next)
    }

    /// The same for a response that another process goes on with.
    fn conclude_held(&mut self, c: &mut HttpConnection, reads: bool) -> TurnAction {
        if !c.exchange.stream.is_open() {
            return self.retire(ConnectionEnd::Nothing(TurnResult::Result));
        }
        if reads {
            self.state = TurnState::Reading;
            return TurnAction::ReadBody;
        }
        let next = leave_body(c);
        self.retire(next)
    }

    fn retire(&mut self, next: ConnectionEnd) -> TurnAction {
        self.state = TurnState::Retiring(next);
        TurnAction::Retire
    }

    /// The response is over.
    fn go_on(&mut self, c: &mut HttpConnection, next: ConnectionEnd) -> TurnAction {
        let mut end = next.of_response();
        if let ConnectionEnd::Shut(_) = next
            && c.exchange.send_out().is_err()
        {
            // The client had gone. What follows fails as well.
            end = End::Aborted;
        }
        if next != ConnectionEnd::Hold {
            log_record::closed(c, end, next == ConnectionEnd::Keep);
        }
        match next {
            ConnectionEnd::Hold => self.hold(c),
            ConnectionEnd::Keep => self.keep(c),
            // Everything is sent: it is no failure if the client has gone.
            ConnectionEnd::Close => {
                c.exchange.stream.end(Stream::close);
                self.end(c, TurnResult::Result)
            }
            ConnectionEnd::Shut(outcome) => self.shut(c, outcome),
            ConnectionEnd::Upgrade => self.pass_on(c),
            ConnectionEnd::FailedUpgrade => {
                let _ = c.exchange.stream.with(|stream| {
                    stream.handler.session.iter_mut().for_each(|it| it.has_failed = true);
                });
                self.end(c, TurnResult::ServeAndThrow)
            }
            ConnectionEnd::Reset(outcome) => self.reset(c, outcome),
            ConnectionEnd::Nothing(outcome) => self.end(c, outcome),
        }
    }

    /// The connection has changed its protocol.
    fn pass_on(&mut self, c: &mut HttpConnection) -> TurnAction {
        let wait =
            c.exchange.stream.borrow().and_then(|stream| stream.handler.session.as_ref()?.wait);
        let held = c.exchange.stream.with(|stream| stream.handler.session.as_mut()?.held.take());
        // What still waits goes with the connection. A failure shows when more is sent.
        let _ = match &held {
            // Who has the answer also hears the topics: who passes messages on sends it.
            Ok(Some(_)) => c.exchange.output.queue(&c.exchange.stream),
            _ => c.exchange.send_out().map(|_| ()),
        };
        let Supervision { park, hold, .. } = self.supervision;
        let is_taken = c.exchange.stream.get().is_some_and(|stream| match held.ok().flatten() {
            Some(held) => hold(stream, held),
            None => park(stream, wait, self.times.stall),
        });
        let outcome = if is_taken { TurnResult::Result } else { TurnResult::Serve };
        self.end(c, outcome)
    }

    /// Another process goes on with the response, and sends the output so far: who has that also hears the topics.
    fn hold(&mut self, c: &mut HttpConnection) -> TurnAction {
        let queued = c.exchange.output.queue(&c.exchange.stream);
        let Some(mut held) = c.exchange.hold.take().filter(|_| queued.is_ok()) else {
            log_record::closed(c, End::Aborted, false);
            return self.reset(c, TurnResult::Result);
        };
        held.rules.keeps =
            held.framing != MessageFraming::Plain && c.exchange.is_kept_behind_hold();
        self.times.bound_hold(&mut held.rules);
        held.record = log_record::held(c);
        let hold = self.supervision.hold;
        if c.exchange.stream.get().is_some_and(|stream| hold(stream, held.encode())) {
            return self.end(c, TurnResult::Result);
        }
        self.reset(c, TurnResult::Result)
    }

    /// Keeps the connection for its next request, once its output is sent.
    fn keep(&mut self, c: &mut HttpConnection) -> TurnAction {
        let TimeLimits { idle, stall, .. } = self.times;
        if c.exchange
            .stream
            .get()
            .is_some_and(|stream| (self.supervision.park)(stream, idle, stall))
        {
            return self.end(c, TurnResult::Result);
        }
        self.send(c, true, AfterSending::NextRequest)
    }

    /// Ends the connection: flush, FIN, drain, close; else RST. A worker does that, also if the handler's
    /// error is thrown afterwards.
    fn shut(&mut self, c: &mut HttpConnection, outcome: TurnResult) -> TurnAction {
        if !c.exchange.stream.is_open() {
            return self.end(c, outcome);
        }
        c.exchange.output.tell_refusal(&c.exchange.stream);
        if (self.supervision.is_worker)() {
            let linger = self.supervision.linger;
            let TimeLimits { drain, stall, .. } = self.times;
            let sent = c.exchange.send_out();
            match c.exchange.stream.get().filter(|_| sent.is_ok()).map(|s| linger(s, drain, stall))
            {
                Some(Ok(true)) => return self.end(c, outcome),
                Some(Ok(false)) => {}
                Some(Err(_)) | None => return self.reset(c, outcome),
            }
        }
        self.send(c, true, AfterSending::Linger(outcome))
    }

    /// Sends what is queued, with input thrown away meanwhile.
    fn send(&mut self, c: &mut HttpConnection, reads: bool, then: AfterSending) -> TurnAction {
        match (c.exchange.send_out(), then) {
            (Ok(0), AfterSending::NextRequest) => self.next_request(c),
            (Ok(0), AfterSending::Linger(outcome)) => {
                if c.exchange.stream.shut_down().is_err() {
                    return self.reset(c, outcome);
                }
                let until = self.times.of_lingering().map(|time| MonotonicTime::now() + time);
                self.linger(c, until, outcome)
            }
            (Ok(_), then) => {
                let reads = reads && matches!(c.exchange.stream.drain(), Ok(true));
                self.state = TurnState::Sending { reads, then };
                TurnAction::Wait { reads, writes: true, limit: self.times.stall }
            }
            (Err(_), AfterSending::NextRequest) => self.reset(c, TurnResult::Result),
            (Err(_), AfterSending::Linger(outcome)) => self.reset(c, outcome),
        }
    }

    fn next_request(&mut self, c: &mut HttpConnection) -> TurnAction {
        let Some(stream) = c.exchange.stream.take() else { return self.end(c, TurnResult::Result) };
        c.close();
        let idle_until = self.times.idle.map(|idle| MonotonicTime::now() + idle);
        self.wait = RequestWait::new(Wakeup::None, idle_until);
        self.open(c, stream)
    }

    /// Throws input away until the client has ended its side, has sent nothing for so long, or was listened
    /// to for long enough.
    fn linger(
        &mut self,
        c: &mut HttpConnection,
        until: Option<MonotonicTime>,
        outcome: TurnResult,
    ) -> TurnAction {
        match c.exchange.stream.drain() {
            Ok(true) => {}
            Ok(false) => {
                c.exchange.stream.end(Stream::close);
                return self.end(c, outcome);
            }
            Err(_) => return self.reset(c, outcome),
        }
        let left = until.map(|until| until.saturating_duration_since(MonotonicTime::now()));
        let limit = left.and_then(|left| Some(left.min(self.times.drain?)));
        if limit.is_some_and(|limit| limit.is_zero()) {
            return self.reset(c, outcome);
        }
        self.state = TurnState::Lingering { until, outcome };
        TurnAction::Wait { reads: true, writes: false, limit }
    }

    fn reset(&mut self, c: &mut HttpConnection, outcome: TurnResult) -> TurnAction {
        c.exchange.stream.end(Stream::reset);
        self.end(c, outcome)
    }

    /// The turn is over. What the log says of the request is still needed if an error is passed on.
    fn end(&mut self, c: &mut HttpConnection, outcome: TurnResult) -> TurnAction {
        self.state = TurnState::Free;
        match outcome {
            TurnResult::Throw | TurnResult::ServeAndThrow => drop(c.exchange.stream.take()),
            TurnResult::Result | TurnResult::True | TurnResult::Serve => c.close(),
        }
        TurnAction::End(outcome)
    }
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
