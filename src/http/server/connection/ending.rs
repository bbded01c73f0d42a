//! How a request's turn ends, and its connection with it or behind it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{HttpConnection, Problem};
use crate::io::stream::{Fill, Stream};

/// How long a handler may go on for a client that has sent FIN and that gets nothing more anyway.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// How a turn ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The connection is ready for its next request.
    Keep,
    /// It can be closed at once.
    Close,
    /// There is output, or input, to be seen to.
    More,
}

impl HttpConnection {
    /// The handler has returned: ends the response and sends it, and says what follows. `goes_on`: the
    /// connection may have further requests. `reads`: the body's rest has a reader.
    pub fn conclude(&mut self, goes_on: bool, reads: bool) -> Result<Conclusion, Problem> {
        self.recall();
        if !goes_on {
            self.response.close_anyway();
        }
        if !reads {
            self.leave_body();
        }
        Ok(match self.finish()? {
            0 if !reads && self.is_reusable() => Conclusion::Keep,
            0 if !reads && self.may_close_at_once() => Conclusion::Close,
            _ => Conclusion::More,
        })
    }

    /// A handler that sends without anything leaving notices the end of its connection all the same.
    /// When the response has no body to come, that includes the client's FIN: one that has closed would
    /// not answer a write with RST, as there is none. A client that only half-closes has its time to
    /// take the head.
    pub(super) fn check_client(&mut self) -> Result<(), Problem> {
        let complete = self.response.is_in_body() && !self.response.has_body();
        self.with_stream(|this, stream| {
            let half_closed = stream.check_peer().map_err(|error| this.failed(error))?;
            if !half_closed || !complete {
                return Ok(());
            }
            let since = *this.half_closed.get_or_insert_with(Instant::now);
            match since.elapsed() < HALF_CLOSED {
                true => Ok(()),
                false => Err(this.failed(io::Error::from_raw_os_error(libc::EPIPE))),
            }
        })
    }

    /// Whether, the response being sent, the connection is ready for its next request.
    pub fn is_reusable(&self) -> bool {
        self.response.is_finished()
            && !self.response.closes()
            && !self.response.switches_protocols()
            && self.intake.is_received()
            && !self.faulty
    }

    /// Whether closing needs no lingering: the client has sent nothing that was not read.
    pub fn may_close_at_once(&self) -> bool {
        let unread = |stream: &Rc<RefCell<Stream>>| {
            stream.try_borrow().map_or(true, |stream| !stream.input().is_empty())
        };
        self.intake.is_received() && !self.stream.as_ref().is_some_and(unread)
    }

    /// Ends the connection by closing or resetting the stream.
    pub fn end_stream(&self, end: fn(&mut Stream) -> io::Result<()>) {
        if let Some(Ok(mut stream)) = self.stream.as_ref().map(|stream| stream.try_borrow_mut())
            && stream.is_open()
        {
            // The fields of the handle stay readable. A client that has gone is no failure.
            stream.endpoints();
            let _ = end(&mut stream);
        }
    }

    /// Sends EOF behind the output, unless that was done before.
    pub fn shut_down(&mut self) -> Result<(), Problem> {
        self.with_stream(|this, stream| match stream.is_finished() {
            true => Ok(()),
            false => stream.finish().map_err(|error| this.failed(error)),
        })
    }

    /// Throws away all input that is there; false once the client has sent all it will send.
    pub fn drain(&mut self) -> Result<bool, Problem> {
        self.with_stream(|this, stream| {
            loop {
                stream.consume(stream.input().len());
                match stream.fill() {
                    Ok(Fill::Data(_)) => {}
                    Ok(Fill::Block) => return Ok(true),
                    Ok(Fill::Eof) => return Ok(false),
                    Err(error) => return Err(this.failed(error)),
                }
            }
        })
    }
}
