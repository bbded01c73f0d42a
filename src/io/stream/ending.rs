//! The ways a connection ends: FIN in one direction, FIN in both, RST.

use std::io;

use super::{Kind, Queue, Stream, Transport};

impl Stream {
    /// Sends what is queued and then EOF; input may still be read (reference, "socket:finish").
    /// Whatever is not TCP is closed instead, and its reads see EOF behind the buffered input.
    ///
    /// # Errors
    /// What the system reports for the flush or the shutdown.
    pub fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        self.finished = true;
        self.end_output()
    }

    /// As [`Stream::finish`], as far as it goes without blocking; the number of bytes that remain
    /// queued. While there are some, EOF is still to come, by a further call.
    ///
    /// # Errors
    /// As [`Stream::finish`].
    pub fn finish_nb(&mut self) -> io::Result<usize> {
        let left = self.flush_nb()?;
        self.finished = true;
        if left == 0 {
            self.end_output()?;
        }
        Ok(left)
    }

    /// Everything is sent: sends EOF.
    fn end_output(&mut self) -> io::Result<()> {
        self.output.release();
        match &self.transport {
            Some(_) if self.inherited => Ok(()),
            Some(transport) if transport.kind() == Kind::Tcp => transport.shutdown_write(),
            _ => self.hang_up(),
        }
    }

    /// Sends what is queued, discards input that is already there and closes: a TCP peer gets FIN
    /// (reference, "socket:close").
    ///
    /// # Errors
    /// What the system reports for the flush; the stream is closed all the same, with RST.
    pub fn close(&mut self) -> io::Result<()> {
        let sent = self.finished && self.output.is_empty();
        let flushed = if sent { Ok(()) } else { self.flush() };
        if flushed.is_err() {
            let _ = self.reset();
            return flushed;
        }
        let closed = self.hang_up();
        self.end();
        closed
    }

    /// Closes at once: a TCP peer gets RST, unsent data is lost (reference, "socket:reset").
    ///
    /// # Errors
    /// What the system reports; the stream is closed all the same.
    pub fn reset(&mut self) -> io::Result<()> {
        let outcome = match self.transport.take() {
            Some(_) if self.inherited => Ok(()),
            Some(transport) if self.served => {
                transport.end_at_once();
                self.closed_fd = transport.into_fd();
                Ok(())
            }
            transport => transport.map_or(Ok(()), Transport::reset),
        };
        self.end();
        outcome
    }

    /// Closes the descriptor in order.
    fn hang_up(&mut self) -> io::Result<()> {
        let Some(transport) = self.transport.take() else { return Ok(()) };
        if self.inherited {
            return Ok(());
        }
        if !self.eof {
            transport.discard_input();
        }
        if self.served {
            let outcome = transport.end_in_order();
            self.closed_fd = transport.into_fd();
            return outcome;
        }
        transport.close()
    }

    /// The stream is over: no buffer is needed any more.
    pub(super) fn end(&mut self) {
        self.closed = true;
        self.input = Queue::new();
        self.output = Queue::new();
    }
}
