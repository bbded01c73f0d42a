//! One connection (or other descriptor) with its buffers: what makes system calls for them. No Lua type
//! is known here.
//!
//! A stream never blocks except in [`Stream::wait`], [`Stream::flush`], [`Stream::send_all`],
//! [`Stream::finish`] and [`Stream::close`]. Errors are those of the system, and they stick: after a failed
//! read every read fails with "Previous read error", after a failed write every write with "Previous write
//! error". The two directions are independent.

mod error;
mod file_tail;
mod handler_state;
mod input;
mod loss;
mod output;
mod shared_transport;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::poll::PollFlags;
use socket2::SockAddr;

use super::address::Endpoints;
use super::tls::TlsSession;
use super::transport::{DescriptorKind, Transport};
use super::wait;
use crate::sys::os::hangup::{Ended, ended};
use crate::sys::os::output_slot::DeferredOutput;
use loss::Loss;
use output::{Output, total};
use shared_transport::{SharedTransport, not_connected};

pub use super::wait::Direction;
pub use file_tail::FileTail;
pub use handler_state::{HandlerState, Wakeup};
pub use input::{Fill, Input};

/// How far the end of a stream has come by calls of this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ClosePhase {
    Open,
    /// By [`Stream::finish`]: nothing further is written.
    Finished,
    /// By [`Stream::close`] and [`Stream::reset`].
    Closed,
}

/// A connection with its input and output. Dropping it resets the connection.
#[derive(Debug)]
pub struct Stream {
    /// Written and not yet sent. Dropped before the descriptor is closed.
    pub output: Output,
    transport: SharedTransport,
    /// Received and not yet read.
    pub input: Input,
    phase: ClosePhase,
    /// What the last operation that blocked waits for; reading if there was none.
    interest: Direction,
    /// The addresses of both ends, asked for when first needed.
    endpoints: Endpoints,
    loss: Loss,
    /// What the server and its handler tell each other.
    pub handler: HandlerState,
}

impl Stream {
    /// A connection that a listener of this library accepted (with `SO_LINGER` on and 0, so that
    /// dropping it resets it), or one that another process passed on.
    ///
    /// `peer` is what `accept` reported; without it the system is asked when needed.
    pub fn accepted(fd: OwnedFd, peer: Option<SockAddr>) -> Stream {
        let kind = match &peer {
            Some(peer) => DescriptorKind::of_domain(peer.domain()),
            None => DescriptorKind::of(fd.as_fd()),
        };
        Stream::over(Transport::owned(fd, kind), peer)
    }

    /// A stream over any transport.
    pub fn over(transport: Transport, peer: Option<SockAddr>) -> Stream {
        Stream {
            transport: SharedTransport::new(transport),
            input: Input::new(),
            output: Output::default(),
            phase: ClosePhase::Open,
            interest: Direction::Read,
            endpoints: Endpoints::with_peer(peer),
            loss: Loss::default(),
            handler: HandlerState::default(),
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
        if self.input.is_eof() {
            return Ok(Fill::Eof);
        }
        let outcome = self.loss.correct(self.transport.receive(&mut self.input, size));
        match outcome {
            Ok(Fill::Block) => {
                self.interest = Direction::Read;
                self.release();
            }
            Ok(_) => {}
            Err(_) => self.input.fail(),
        }
        outcome
    }

    /// Gives back the memory of empty buffers, which an idle connection does not need.
    pub fn release(&mut self) {
        self.input.release();
        self.output.release();
        self.transport.get_mut().into_iter().for_each(Transport::release);
    }

    /// For whoever watches the connection of a suspended read, which has seen all input: receives
    /// once; whether the read is to go on, because what it awaits is there, the peer will send no
    /// more, or receiving has failed, which the read will report.
    pub fn receive_awaited(&mut self) -> bool {
        let seen = self.input().len();
        match self.fill() {
            Ok(Fill::Data(_)) => self.input.suffices(seen),
            Ok(Fill::Block) => false,
            Ok(Fill::Eof) => true,
            Err(error) => {
                self.input.keep_error(&error);
                true
            }
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

    /// Whether a read would find something without asking the system. A hold counts once: who asks
    /// again is not the read that was suspended.
    pub fn has_input(&mut self) -> bool {
        self.input.has_unseen()
            || self.has_received()
            || (self.transport.get().is_none() && self.is_open())
    }

    /// Whether a fill would find something without asking the system.
    pub fn has_received(&self) -> bool {
        self.transport.get().is_some_and(Transport::has_received)
    }

    /// Whether the peer has sent all it will send (buffered input may still wait).
    pub fn is_eof(&self) -> bool {
        self.input.is_eof() || self.transport.get().is_none()
    }

    // Output.

    /// Lets output wait for more: until it is [recalled](Stream::recall), until something else is sent
    /// or this thread waits for something, or for a second.
    ///
    /// # Errors
    /// The output, if it cannot wait.
    pub fn defer(&mut self, waiting: DeferredOutput) -> Result<(), DeferredOutput> {
        match self.transport.get().filter(|transport| transport.sends_as_it_is()) {
            Some(transport) => self.output.defer(transport.fd(), waiting),
            None => Err(waiting),
        }
    }

    /// Takes back output that waits; `None` if there is none, or a part has left. Then the rest is queued.
    pub fn recall(&mut self) -> Option<DeferredOutput> {
        self.output.recall().unwrap_or_else(|errno| {
            self.note_loss(Some(errno));
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

    /// Queues a part of a file behind what is queued.
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
        match ended(transport.fd()) {
            Ended::Nothing => Ok(false),
            Ended::Sending => Ok(true),
            Ended::Both => {
                self.output.end();
                let errno = transport.take_error().unwrap_or(libc::EPIPE);
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

    /// What is written behind a file is queued; what is still to be sent.
    fn put_behind_file<'a, 'b>(&mut self, parts: &'a [&'b [u8]]) -> &'a [&'b [u8]] {
        if !self.output.has_file() {
            return parts;
        }
        parts.iter().for_each(|part| self.output.put(part));
        &[]
    }

    /// As [`SharedTransport::send`], and then of the file behind it. The parts come before the file.
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

    // The end: FIN in one direction, FIN in both, RST.

    /// Sends what is queued and then EOF; input may still be read (reference, "socket:finish").
    /// Whatever is not TCP is closed instead, and its reads see EOF behind the buffered input.
    pub fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        while !self.transport.say_end()? {
            self.wait(Direction::Write, None)?;
        }
        self.end_output()
    }

    /// As [`Stream::finish`], as far as it goes without blocking; the number of bytes that remain
    /// queued. While there are some, EOF is still to come, by a further call.
    pub fn finish_nb(&mut self) -> io::Result<usize> {
        let mut left = self.flush_nb()?;
        if left == 0 && !self.transport.say_end()? {
            left = 1;
            self.interest = Direction::Write;
        }
        match left {
            0 => self.end_output()?,
            _ => self.phase = self.phase.max(ClosePhase::Finished),
        }
        Ok(left)
    }

    /// Everything is sent: sends EOF.
    fn end_output(&mut self) -> io::Result<()> {
        self.phase = self.phase.max(ClosePhase::Finished);
        self.output.release();
        self.transport.finish(self.input.is_eof())
    }

    /// Sends what is queued, discards input that is already there and closes: a TCP peer gets FIN
    /// (reference, "socket:close").
    ///
    /// # Errors
    /// What the system reports for the flush; the stream is closed all the same, with RST.
    pub fn close(&mut self) -> io::Result<()> {
        // A handshake that has come to nothing yet needs no end, and that of TLS is for its own process to say.
        let is_done = self.is_finished() || !self.is_established();
        let sent = is_done && self.output.is_empty() || self.transport.has_inherited_session();
        if !sent && let Err(error) = self.flush() {
            let _ = self.reset();
            return Err(error);
        }
        // Whoever has sent all is told of no failure behind it.
        while !sent && self.transport.say_end().is_ok_and(|said| !said) {
            self.wait(Direction::Write, None)?;
        }
        let closed = self.transport.close(self.input.is_eof());
        self.end();
        closed
    }

    /// Closes at once: a TCP peer gets RST, unsent data is lost (reference, "socket:reset").
    ///
    /// # Errors
    /// What the system reports; the stream is closed all the same.
    pub fn reset(&mut self) -> io::Result<()> {
        self.end();
        self.transport.reset()
    }

    /// Hands the descriptor over, e.g. to another process. The stream is closed without a sign to
    /// the peer; buffered bytes are dropped, so see [`Stream::input`] and [`Stream::pending`] before.
    pub fn detach(&mut self) -> Option<OwnedFd> {
        self.end();
        self.transport.detach()
    }

    /// The stream is over: no buffer is needed any more.
    fn end(&mut self) {
        self.phase = ClosePhase::Closed;
        self.input.drop_all();
        self.output.drop_all();
    }

    /// Whether neither [`Stream::close`] nor [`Stream::reset`] was called.
    pub fn is_open(&self) -> bool {
        self.phase < ClosePhase::Closed
    }

    /// Whether [`Stream::finish`], or what ends the stream altogether, was called.
    pub fn is_finished(&self) -> bool {
        self.phase >= ClosePhase::Finished
    }

    /// The server's side: see [`SharedTransport::set_served`].
    pub fn set_served(&mut self) {
        self.transport.set_served();
    }

    /// In a child of the process that serves it: what is queued is for that process to send, and the
    /// end of this stream is not the end of the connection.
    pub fn disown(&mut self) {
        self.transport.set_inherited();
        self.output.drop_all();
    }

    /// The server's side: see [`SharedTransport::take_closed`].
    pub fn take_closed(&mut self) -> Option<OwnedFd> {
        self.transport.take_closed()
    }

    // The descriptor.

    /// Makes the first read and the first write report `errno`: how a connection that could not be
    /// established at once tells so.
    pub fn set_failure(&mut self, errno: i32) {
        let error = io::Error::from_raw_os_error(errno);
        self.input.keep_error(&error);
        self.output.keep_error(&error);
    }

    /// Waits until the descriptor is ready, or for `timeout` (`None`: without limit); whether it is
    /// ready. Buffered input is not looked at.
    pub fn wait(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<bool> {
        let Some(transport) = self.transport.get() else { return Err(not_connected()) };
        let (read, write) = (direction == Direction::Read, direction == Direction::Write);
        wait::ready_for(transport.fd(), transport.conditions(read, write), timeout)
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

    // TLS.

    /// All further bytes pass through `session`, which begins with a handshake.
    ///
    /// Input that was received already is the beginning of the peer's handshake.
    pub fn secure(&mut self, mut session: TlsSession) {
        let received = self.input().to_vec();
        self.consume(received.len());
        session.preload(&received);
        if let Some(transport) = self.transport.get_mut() {
            transport.secure(session);
        }
    }

    /// The peer does not speak TLS: what is written goes to it as it is.
    pub fn drop_session(&mut self) {
        if let Some(transport) = self.transport.get_mut() {
            transport.drop_session();
        }
    }

    /// Whether there is no handshake that is not over.
    pub fn is_established(&self) -> bool {
        self.session().is_none_or(TlsSession::is_established)
    }

    /// Goes on with a session that another process has begun.
    pub fn resume(&mut self, session: TlsSession) {
        if let Some(transport) = self.transport.get_mut() {
            transport.secure(session);
        }
    }

    /// Whether another process can go on with the connection.
    pub fn is_movable(&self) -> bool {
        !self.handler.personal && self.session().is_none_or(|session| session.state().is_some())
    }

    /// How much was received that nobody has read, in this process or as records.
    pub fn unread(&self) -> usize {
        self.input().len() + self.session().map_or(0, TlsSession::held)
    }

    /// Whether whoever watches the connection knows the keys of its session.
    pub fn are_keys_told(&self) -> bool {
        self.session().is_none_or(TlsSession::is_told)
    }

    /// They are known from now on.
    pub fn set_keys_told(&mut self) {
        if let Some(session) = self.transport.get_mut().and_then(Transport::session_mut) {
            session.set_told();
        }
    }

    /// The TLS session, if there is one and it is not closed.
    pub fn session(&self) -> Option<&TlsSession> {
        self.transport.get()?.session()
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

    /// The descriptor's number; `None` once it is closed.
    pub fn raw_fd(&self) -> Option<RawFd> {
        self.transport.get().map(|transport| transport.raw_fd())
    }

    /// The descriptor; `None` once it is closed.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.transport.fd()
    }

    /// Whether this is a TCP connection that is not closed.
    pub fn is_tcp(&self) -> bool {
        self.transport.get().is_some_and(|transport| transport.kind() == DescriptorKind::Tcp)
    }

    /// Whether this is a connection over a local socket that is not closed.
    pub fn is_local(&self) -> bool {
        self.transport.get().is_some_and(|transport| transport.kind() == DescriptorKind::Local)
    }

    /// The addresses of both ends. What was not asked for before the end of the connection is
    /// unknown afterwards (the peer of an accepted connection is always known).
    pub fn endpoints(&self) -> &Endpoints {
        self.endpoints.resolve(self.transport.fd());
        &self.endpoints
    }

    /// The address of the client. The system is asked once if it is not known.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.endpoints.peer_of(self.transport.fd())
    }
}

#[cfg(test)]
mod tests;
