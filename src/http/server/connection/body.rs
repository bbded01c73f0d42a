//! Receiving the body of a request.

use super::{HttpConnection, Problem, Reader};
use crate::http::server::request_body::{AHEAD, BodyFailure, SKIPPED, Supply};
use crate::http::wire::refusal::Refusal;
use crate::io::sigterm;

/// The most that can be skipped of a body.
const MOST: u64 = u32::MAX as u64;

impl HttpConnection {
    /// Chooses the reader of the body.
    pub fn set_reader(&mut self, reader: Reader) -> Result<(), Problem> {
        self.body_used = true;
        self.touch()?;
        if reader == Reader::Discard {
            self.intake.discard();
        }
        self.reader = reader;
        Ok(())
    }

    /// Makes all of a body of up to 64 KiB ready, if it is there and nobody has turned to it yet; whether
    /// that is so.
    pub fn gather(&mut self) -> bool {
        let untouched = self.reader == Reader::Nobody && !self.body_used && !self.faulty;
        let received = self.stream.as_ref().and_then(|stream| stream.try_borrow().ok());
        let received = received.map_or(0, |stream| stream.input().len() as u64);
        let is_there = self.intake.left().is_some_and(|left| left <= received.min(AHEAD as u64));
        untouched && is_there && matches!(self.absorb(), Ok(false))
    }

    /// Takes the body that was gathered at once: nothing of it is left to be seen to.
    pub fn take_gathered(&mut self, reader: Reader) {
        (self.reader, self.fresh) = (reader, false);
        self.intake.consume(self.intake.ready().len());
    }

    /// Makes a part of the body ready ([`Intake::ready`]).
    pub fn supply(&mut self) -> Result<Supply, Problem> {
        self.check_usable()?;
        let outcome = self.with_stream(|this, stream| Ok(this.intake.supply(stream)))?;
        outcome.map_err(|failure| self.broken(failure))
    }

    /// Receives all of the body that is there; whether more may come.
    pub fn absorb(&mut self) -> Result<bool, Problem> {
        self.check_usable()?;
        let outcome = self.with_stream(|this, stream| Ok(this.intake.absorb(stream)))?;
        outcome.map_err(|failure| self.broken(failure))
    }

    /// Before the response's head is finished: says that the connection will be closed if that can be
    /// foreseen (RFC 9112 9.6), and answers the expectation of a client whose body is wanted.
    pub(super) fn look_ahead(&mut self) {
        if sigterm::received() {
            self.response.close_anyway();
        }
        if self.expects_continue && self.body_used && self.reader != Reader::Discard {
            self.promise_continue();
        }
        if self.intake.is_received() || self.response.closes() {
            return;
        }
        let is_discarded = self.reader == Reader::Discard;
        let left = self.with_stream(|this, stream| {
            if is_discarded {
                return Ok(this.intake.dispose(stream).ok().flatten());
            }
            // The handler may still read on, so nothing of the body is discarded.
            let received = this.intake.look_ahead(stream).is_ok();
            let left = this.intake.left().filter(|_| received);
            Ok(left.map(|left| left.saturating_sub(stream.input().len() as u64)))
        });
        // Who has turned to the body usually reads all of it. Should it stop, a rest of known length can
        // be skipped, a chunked one cannot.
        let limit = if self.body_used && !is_discarded { MOST } else { SKIPPED };
        if self.skippable(left, limit).is_none() {
            self.response.close_anyway();
        }
    }

    /// Nobody reads the rest of the body: it is skipped if that costs little, so that the connection can
    /// be kept. Otherwise the connection will be closed.
    pub fn leave_body(&mut self) {
        if self.intake.is_received() || self.response.closes() || self.faulty {
            return;
        }
        let left = self.with_stream(|this, stream| Ok(this.intake.dispose(stream).ok().flatten()));
        // It is too late to announce the end of the connection when the head has left.
        let limit = if self.response.has_left() { MOST } else { SKIPPED };
        let skipped = self.skippable(left, limit).map(|skip| {
            self.with_stream(|this, stream| {
                stream.input.set_skip(skip);
                this.intake.give_up();
                Ok(())
            })
        });
        if !matches!(skipped, Some(Ok(()))) {
            self.response.close_anyway();
        }
    }

    /// Whether so much of a body can be skipped, `limit` bytes at most: how much. A client that was not
    /// told to go on may send its next request instead (RFC 9110 10.1.1).
    fn skippable(&self, left: Result<Option<u64>, Problem>, limit: u64) -> Option<u32> {
        let left = left.ok().flatten().filter(|_| !self.expects_continue)?;
        if left <= limit { u32::try_from(left).ok() } else { None }
    }

    /// What to do before waiting for more of the body: all that the client may wait for is sent.
    pub fn prepare_wait(&mut self) -> Result<usize, Problem> {
        self.recall();
        self.promise_continue();
        self.send_out()
    }

    /// The body is not what it has to be: answers with a refusal if that is still possible.
    fn broken(&mut self, failure: BodyFailure) -> Problem {
        match failure {
            BodyFailure::Refused(refusal) => self.refuse_body(&refusal),
            BodyFailure::Io(error) => self.failed(error),
        }
    }

    /// Refuses the request while its body is read.
    pub fn refuse_body(&mut self, refusal: &Refusal) -> Problem {
        self.faulty = true;
        if !self.has_left() {
            self.refuse(refusal);
        }
        Problem::Refused(refusal.words().to_owned())
    }
}
