//! Receiving, and the input that waits to be read.

use std::io;

use super::{Awaits, Direction, Fill, KEEP, Kind, Standing, Stream, Trouble};

impl Stream {
    /// One non-blocking receive into the input buffer.
    ///
    /// # Errors
    /// What the system reports; afterwards "Previous read error".
    pub fn fill(&mut self) -> io::Result<Fill> {
        self.fill_at_least(0)
    }

    /// The same, asking for about `size` bytes if that is more than usual.
    ///
    /// # Errors
    /// What the system reports; afterwards "Previous read error".
    pub fn fill_at_least(&mut self, size: usize) -> io::Result<Fill> {
        loop {
            match self.receive_once(size)? {
                Fill::Data(received) => match self.skip(received) {
                    0 => {}
                    left => return Ok(Fill::Data(left)),
                },
                nothing => return Ok(nothing),
            }
        }
    }

    fn receive_once(&mut self, size: usize) -> io::Result<Fill> {
        let size = size.max(self.fill_size);
        self.check_read()?;
        let Some(transport) = &self.transport else { return Ok(Fill::Eof) };
        if self.eof {
            return Ok(Fill::Eof);
        }
        let tail = self.input.tail(size);
        let room = tail.capacity() - tail.len();
        match transport.receive(tail) {
            Ok(0) => match self.lost {
                Some(errno) => Err(self.fail_read(io::Error::from_raw_os_error(errno))),
                None => {
                    // A terminal may deliver more after an end of file.
                    self.eof = transport.kind() != Kind::Plain;
                    Ok(Fill::Eof)
                }
            },
            Ok(n) => {
                if n == room {
                    self.fill_size = (self.fill_size * 2).min(KEEP);
                }
                Ok(Fill::Data(n))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.interest = Direction::Read;
                // An idle connection needs no buffers.
                self.input.release();
                self.output.release();
                Ok(Fill::Block)
            }
            Err(error) => Err(self.fail_read(error)),
        }
    }

    fn fail_read(&mut self, error: io::Error) -> io::Error {
        self.read_trouble = Trouble::Reported;
        self.input.clear();
        error
    }

    /// Whether a read may be tried.
    ///
    /// # Errors
    /// "Previous read error", or the failure of the connection that was not reported yet.
    pub fn check_read(&mut self) -> io::Result<()> {
        self.read_trouble.report("Previous read error")
    }

    /// Received input that was not yet read.
    pub fn input(&self) -> &[u8] {
        self.input.live()
    }

    /// Drops the first `n` bytes of the input, O(1) amortised.
    pub fn consume(&mut self, n: usize) {
        let n = n.min(self.input.len());
        self.held = 0;
        self.consumed += n as u64;
        self.input.consume(n);
    }

    /// As [`Stream::consume`], but the bytes stay in memory, unchanged, until the stream is used
    /// again: for a caller that copies them at once without holding a borrow.
    pub fn consume_lazily(&mut self, n: usize) {
        let n = n.min(self.input.len());
        self.held = 0;
        self.consumed += n as u64;
        self.input.skip(n);
    }

    /// How many bytes of input were consumed so far: the position of `input()[0]`.
    pub fn position(&self) -> u64 {
        self.consumed
    }

    /// What the last operation that blocked waits for; reading if there was none.
    pub fn interest(&self) -> Direction {
        self.interest
    }

    /// Marks all present input as seen by a suspended read that needs more: until new input comes,
    /// [`Stream::has_input`] is false. `awaits` tells what the read waits for.
    pub fn hold_input(&mut self, awaits: Awaits) {
        (self.held, self.awaits) = (self.input.len(), awaits);
    }

    /// What the read waits for that was suspended last.
    pub fn awaits(&self) -> Awaits {
        self.awaits
    }

    /// For whoever watches the connection of a suspended read, which has seen all input: receives
    /// once; whether the read is to go on, because what it awaits is there, the peer will send no
    /// more, or receiving has failed, which the read will report.
    pub fn receive_awaited(&mut self) -> bool {
        let seen = self.input.len();
        match self.fill() {
            Ok(Fill::Data(_)) => self.awaits.is_met(self.input.live(), seen),
            Ok(Fill::Block) => false,
            Ok(Fill::Eof) => true,
            Err(error) => {
                self.keep_read_error(&error);
                true
            }
        }
    }

    /// Whether a read would find something without asking the system. A hold counts once: who asks
    /// again is not the read that was suspended.
    pub fn has_input(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        self.input.len() > held || (self.transport.is_none() && !self.closed)
    }

    /// The error of a read that the caller of the handle has not seen: the next read reports it.
    pub fn keep_read_error(&mut self, error: &io::Error) {
        self.read_trouble.keep(error);
    }

    /// The state of the connection between its messages.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Sets that state. If input is to be skipped, none may be buffered.
    pub fn set_standing(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// Discards available input that is to be skipped; returns true if there is nothing else.
    ///
    /// # Errors
    /// Like [`Stream::fill`].
    pub fn skips(&mut self) -> io::Result<bool> {
        Ok(self.standing.skip > 0 && self.fill()? == Fill::Block)
    }

    /// Drops what is to be skipped of `received` new bytes; returns how many of them are left.
    fn skip(&mut self, received: usize) -> usize {
        let dropped = received.min(self.standing.skip as usize);
        self.standing.skip -= dropped as u32;
        self.input.consume(dropped);
        received - dropped
    }
}
