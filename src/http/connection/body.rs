//! Receiving the body of a request.

use super::{Connection, Problem, Reader};
use crate::http::intake::{Failure, Supply};
use crate::http::refusal::Refusal;

impl Connection {
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

    /// What to do before waiting for more of the body: all that the client may wait for is sent.
    pub fn prepare_wait(&mut self) -> Result<usize, Problem> {
        self.promise_continue();
        self.send_out()
    }

    /// The body is not what it has to be: answers with a refusal if that is still possible.
    fn broken(&mut self, failure: Failure) -> Problem {
        match failure {
            Failure::Refused(refusal) => self.refuse_body(&refusal),
            Failure::Io(error) => self.failed(error),
        }
    }

    /// Refuses the request while its body is read.
    pub fn refuse_body(&mut self, refusal: &Refusal) -> Problem {
        self.faulty = true;
        if !self.response.has_left() {
            self.refuse(refusal);
        }
        Problem::Refused(refusal.words().to_owned())
    }
}
