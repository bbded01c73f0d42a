//! Bytes in both directions: what moves them between the buffers and the transport.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use nix::poll::PollFlags;

use super::file_tail::FileTail;
use super::input::{Fill, Input};
use super::loss::Loss;
use super::output::{Output, total};
use super::shared_transport::{SharedTransport, not_connected};
use crate::io::shared_session::SessionGuard;
use crate::io::transport::{DescriptorKind, Transport};
use crate::io::wait::{self, Direction};
use crate::sys::os::hangup::{Ended, ended};
use crate::sys::os::output_slot::DeferredOutput;

/// Input, output, and the transport below them.
#[derive(Debug)]
pub struct Duplex {
    /// Written and not yet sent. Dropped before the descriptor is closed.
    pub output: Output,
    pub(super) transport: SharedTransport,
    /// Received and not yet read.
    pub input: Input,
    /// What the last operation that blocked waits for; reading if there was none.
    pub(super) interest: Direction,
    loss: Loss,
}

impl Duplex {
    /// Nothing was received or written yet.
    pub fn over(transport: Transport) -> Duplex {
        Duplex {
            output: Output::default(),
            transport: SharedTransport::new(transport),
            input: Input::new(),
            interest: Direction::Read,
            loss: Loss::default(),
        }
    }

    // Input.

    /// One non-blocking receive into the input buffer.
    pub fn fill(&mut self) -> io::Result<Fill> {
        self.fill_at_least(0)
    }

    /// The same, asking for about `size` bytes if that is more than usual.
    pub fn fill_at_least(&mut self, size: usize) -> io::Result<Fill> {
        self.input.check()?;
        let outcome = self.receive(size);
        if outcome.is_err() {
            self.input.fail();
        }
        outcome
    }

    /// As [`Duplex::fill`]. If receiving fails, what was received before stays, and a read reports the error.
    #[cold]
    pub fn fill_or_keep(&mut self) -> io::Result<Fill> {
        self.input.check()?;
        let outcome = self.receive(0);
        if let Err(error) = &outcome {
            self.input.keep_error(error);
        }
        outcome
    }

    #[inline(always)]
    fn receive(&mut self, size: usize) -> io::Result<Fill> {
        if self.input.is_eof() {
            return Ok(Fill::Eof);
        }
        let outcome = self.loss.correct(self.transport.receive(&mut self.input, size));
        if let Ok(Fill::Block) = outcome {
            self.interest = Direction::Read;
            self.release();
        }
        outcome
    }

    /// Gives back the memory of empty buffers, which an idle connection does not need.
    pub fn release(&mut self) {
        self.input.release();
        self.output.release();
        self.transport.get_mut().into_iter().for_each(Transport::release);
    }

    /// For the event loop that watches the connection of a suspended read, which has seen all input:
    /// receives once. Returns whether to resume the read: what it awaits is there, the peer will send no
    /// more, or receiving has failed, which the read will report.
    pub fn receive_awaited(&mut self) -> bool {
        let seen = self.input().len();
        match self.fill_or_keep() {
            Ok(Fill::Data(_)) => self.input.suffices(seen),
            Ok(Fill::Block) => false,
            Ok(Fill::Eof) | Err(_) => true,
        }
    }

    /// Discards available input that is to be skipped; returns true if there is nothing else.
    pub fn skips(&mut self) -> io::Result<bool> {
        Ok(self.input.skip() > 0 && self.fill()? == Fill::Block)
    }

    /// Received input that was not yet read.
    pub fn input(&self) -> &[u8] {
        self.input.live()
    }

    /// Drops the first `n` bytes of the input, O(1) amortised.
    pub fn consume(&mut self, n: usize) {
        self.input.consume(n);
    }

    /// Whether a fill would find something without asking the system.
    pub fn has_received(&self) -> bool {
        self.transport.get().is_some_and(Transport::has_received)
    }

    /// Whether the peer has sent all it will send (buffered input may still wait).
    pub fn is_eof(&self) -> bool {
        self.input.is_eof() || self.transport.get().is_none()
    }

    /// How much was received that nobody has read, in this process or as records.
    pub fn unread(&self) -> usize {
        self.input().len() + self.session().map_or(0, |session| session.held())
    }

    // Output.

    /// Lets output wait for more: until it is [recalled](Duplex::recall), until something else is sent
    /// or this thread waits for something, or for a second.
    ///
    /// # Errors
    /// The output, if it cannot wait.
    pub fn defer(&mut self, waiting: DeferredOutput) -> Result<(), DeferredOutput> {
        match self.transport.get().filter(|transport| transport.is_sent_for()) {
            Some(transport) => self.output.defer(transport.plain().fd(), transport.seal(), waiting),
            None => Err(waiting),
        }
    }

    /// Takes back output that waits; `None` if there is none, or a part has left. Then the rest is queued.
    #[inline(always)]
    pub fn recall(&mut self) -> Option<DeferredOutput> {
        self.output.recall().unwrap_or_else(|errno| {
            self.note_loss(errno);
            None
        })
    }

    /// What waits goes before what follows.
    fn queue_deferred(&mut self) {
        if self.output.is_deferred()
            && let Some(mut waiting) = self.recall()
        {
            waiting.complete();
            self.output.put(&waiting.bytes);
        }
    }

    /// Queues output without sending.
    pub fn put(&mut self, bytes: &[u8]) {
        self.queue_deferred();
        self.output.put(bytes);
    }

    /// Queues a part of a file after what is queued.
    ///
    /// # Errors
    /// A file is queued already.
    pub fn put_file(&mut self, file: FileTail) -> io::Result<()> {
        self.queue_deferred();
        self.output.put_file(file).map_err(|_| io::Error::other("A file is being sent already"))
    }

    /// How many bytes were written: sent, or queued.
    pub fn written(&self) -> u64 {
        self.output.written()
    }

    /// The number of queued output bytes.
    pub fn pending(&self) -> usize {
        match self.output.len() {
            0 => self.transport.get().map_or(0, Transport::pending),
            queued => queued,
        }
    }

    /// Notices the end of the connection as a write would, without writing; whether the peer sends no
    /// more, which leaves writing possible.
    pub fn check_peer(&mut self) -> io::Result<bool> {
        self.output.check()?;
        let Some(transport) = self.transport.get() else { return Err(not_connected()) };
        match ended(transport.plain().fd()) {
            Ended::Nothing => Ok(false),
            Ended::Sending => Ok(true),
            Ended::Both => {
                self.output.end();
                let errno = transport.plain().take_error().unwrap_or(libc::EPIPE);
                self.loss.note(Some(errno));
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }

    /// Sends what goes without blocking; the number of bytes that remain queued.
    pub fn flush_nb(&mut self) -> io::Result<usize> {
        self.send_nb(&[])
    }

    /// Sends the queue and then `parts` as far as it goes without blocking, usually with one system
    /// call; queues what is left and returns its size.
    pub fn send_nb(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        self.queue_deferred();
        self.output.check()?;
        let parts = self.put_behind_file(parts);
        let parts = self.output.put_small(parts);
        let sent = self.transmit(parts, 0)?;
        self.output.put_rest(parts, sent);
        if self.output.is_empty() {
            self.settle()?;
        }
        let left = self.pending();
        self.interest = if left > 0 { Direction::Write } else { Direction::Read };
        Ok(left)
    }

    /// Sends all that is queued, waiting as long as it takes.
    pub fn flush(&mut self) -> io::Result<()> {
        self.send_all(&[])
    }

    /// Sends the queue and then `parts`, waiting as long as it takes.
    pub fn send_all(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.queue_deferred();
        self.output.check()?;
        let parts = self.put_behind_file(parts);
        let parts = self.output.put_small(parts);
        let total = total(parts);
        let mut sent = 0;
        loop {
            sent = self.transmit(parts, sent)?;
            if self.output.is_empty() && sent == total {
                self.settle()?;
                if self.is_established() && self.pending() == 0 {
                    return Ok(());
                }
            }
            self.wait(Direction::Write, None)?;
        }
    }

    /// All output is sent: goes on with a handshake, or with what the protocol has to say by itself.
    fn settle(&mut self) -> io::Result<()> {
        let outcome = self.transport.settle();
        if let Err(error) = &outcome {
            self.note_loss(error.raw_os_error());
            self.output.fail();
        }
        outcome
    }

    /// What is written after a file is queued; what is still to be sent.
    fn put_behind_file<'a, 'b>(&mut self, parts: &'a [&'b [u8]]) -> &'a [&'b [u8]] {
        if !self.output.has_file() {
            return parts;
        }
        parts.iter().for_each(|part| self.output.put(part));
        &[]
    }

    /// As [`SharedTransport::send`], and then of the file after it. The parts come before the file.
    fn transmit(&mut self, parts: &[&[u8]], sent: usize) -> io::Result<usize> {
        let mut outcome = self.transport.send(&mut self.output, parts, sent);
        while self.output.has_file() && self.output.queued().is_empty() && outcome.is_ok() {
            let before = self.output.transmitted();
            outcome = self.transport.send_file(&mut self.output).map(|()| sent);
            if self.output.has_file() || self.output.transmitted() == before {
                break;
            }
            outcome = outcome.and_then(|_| self.transport.send(&mut self.output, &[], 0));
        }
        if let Err(error) = &outcome {
            self.note_loss(error.raw_os_error());
            self.output.fail();
        }
        outcome
    }

    /// A write has failed with this error.
    fn note_loss(&mut self, errno: Option<i32>) {
        self.loss.note(errno.filter(|_| self.is_tcp()));
    }

    /// Makes the first read and the first write report `errno`: how a connection that could not be
    /// established at once tells so.
    pub fn set_failure(&mut self, errno: i32) {
        let error = io::Error::from_raw_os_error(errno);
        self.input.keep_error(&error);
        self.output.keep_error(&error);
    }

    // Waiting, and the handshake of TLS.

    /// Waits until the descriptor is ready, or for `timeout` (`None`: without limit); whether it is
    /// ready. Buffered input is not looked at.
    pub fn wait(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<bool> {
        let Some(transport) = self.transport.get() else { return Err(not_connected()) };
        let (read, write) = (direction == Direction::Read, direction == Direction::Write);
        wait::ready_for(transport.plain().fd(), transport.conditions(read, write), timeout)
    }

    /// The conditions of `poll(2)` under which a read, a write, or one of them can get on: in a
    /// handshake both do by either.
    pub fn conditions(&self, read: bool, write: bool) -> PollFlags {
        self.transport.get().map_or(PollFlags::empty(), |to| to.conditions(read, write))
    }

    /// The same where only one condition can be told.
    pub fn condition(&self, direction: Direction) -> Direction {
        self.transport.get().map_or(direction, |transport| transport.condition(direction))
    }

    /// What the last operation that blocked waits for; reading if there was none.
    pub fn interest(&self) -> Direction {
        self.condition(self.interest)
    }

    /// The TLS session, if there is one and it is not closed.
    pub fn session(&self) -> Option<SessionGuard<'_>> {
        self.transport.get()?.session()
    }

    /// Whether there is no handshake that is not over.
    pub fn is_established(&self) -> bool {
        self.session().is_none_or(|session| session.is_established())
    }

    /// Goes on with the handshake as far as possible without blocking; whether it is over, as it is
    /// where there is none. Reads and writes do the same by themselves.
    ///
    /// # Errors
    /// Why there will be no connection; further calls, reads and writes tell the same.
    pub fn handshake_nb(&mut self) -> io::Result<bool> {
        let over = self.transport.get_mut().ok_or_else(not_connected)?.handshake()?;
        self.interest = Direction::Read;
        Ok(over)
    }

    /// The same, waiting as long as it takes.
    ///
    /// # Errors
    /// The same.
    pub fn handshake(&mut self) -> io::Result<()> {
        while !self.handshake_nb()? {
            self.wait(Direction::Read, None)?;
        }
        Ok(())
    }

    // The descriptor.

    /// The descriptor's number; `None` once it is closed.
    pub fn raw_fd(&self) -> Option<RawFd> {
        self.transport.get().map(|transport| transport.plain().raw_fd())
    }

    /// The descriptor; `None` once it is closed.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.transport.fd()
    }

    /// Whether this is a TCP connection that is not closed.
    pub fn is_tcp(&self) -> bool {
        self.transport
            .get()
            .is_some_and(|transport| transport.plain().kind() == DescriptorKind::Tcp)
    }

    /// Whether this is a connection over a local socket that is not closed.
    pub fn is_local(&self) -> bool {
        self.transport
            .get()
            .is_some_and(|transport| transport.plain().kind() == DescriptorKind::Local)
    }
}
