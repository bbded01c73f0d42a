//! One connection (or other descriptor) with its buffers and its state. No Lua type is known here.
//!
//! A stream never blocks except in [`Stream::wait`], [`Stream::flush`], [`Stream::finish`] and
//! [`Stream::close`]. Errors stick: after a failed read every read fails, after a failed write
//! every write; the two directions are independent.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::address::Endpoints;
use super::buffer::{KEEP, Queue};
use super::transport::{Kind, Transport};
use super::wait;
use crate::sys::disconnect::disconnect;

pub use super::wait::Direction;

/// What one receive usually asks for: a request, or a packet of a bulk transfer.
const FILL: usize = 16 * 1024;

/// How many parts one send passes to the system without copying; the rest waits in the queue.
const PARTS: usize = 16;

/// The outcome of one non-blocking read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// So many bytes were appended to the input, at least one.
    Data(usize),
    /// The peer will send no more.
    Eof,
    /// Nothing is there now.
    Block,
}

/// Why the handler was called for a connection, as the server tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wakeup {
    /// It is new, or nobody supervises it.
    #[default]
    None,
    /// It was parked and has input (or the peer has closed).
    Input,
    /// It was parked and its time is up.
    Timeout,
    /// It was parked and the server shuts down.
    Shutdown,
}

impl Wakeup {
    /// The value of `socket.wakeup`.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Wakeup::None => None,
            Wakeup::Input => Some("input"),
            Wakeup::Timeout => Some("timeout"),
            Wakeup::Shutdown => Some("shutdown"),
        }
    }
}

/// A connection with its input and output buffers. Dropping it resets the connection.
#[derive(Debug)]
pub struct Stream {
    /// `None` once the descriptor is closed: by `close`, `reset`, or `finish` of a local socket.
    transport: Option<Transport>,
    /// Received and not yet read.
    input: Queue,
    /// Written and not yet sent.
    output: Queue,
    /// What the next receive asks for; grows while a bulk transfer fills it.
    fill_size: usize,
    /// How many bytes of input were consumed so far.
    consumed: u64,
    /// What the last operation that blocked waits for; reading if there was none.
    interest: Direction,
    /// Leading input bytes a suspended read has seen and cannot use: they do not count as ready.
    held: usize,
    /// The addresses of both ends, asked for when first needed.
    endpoints: Endpoints,
    /// Set by `close` and `reset`.
    closed: bool,
    /// Set by `finish`.
    finished: bool,
    /// The peer has sent all it will send.
    eof: bool,
    /// Whether a read has failed, and so will all others.
    read_trouble: Trouble,
    /// Whether a write has failed, and so will all others.
    write_trouble: Trouble,
    /// Another process holds a duplicate of the descriptor: closing it here ends nothing.
    shared: bool,
    /// Why the handler has it.
    wakeup: Wakeup,
    /// Until when it was parked.
    parked_until: Option<Instant>,
}

/// The state of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// All is well.
    None,
    /// An error (errno) that the caller has not seen yet.
    Unreported(i32),
    /// The caller has seen the error.
    Reported,
}

impl Trouble {
    /// The error to report now, if there is one; `later` is the text once it was reported.
    fn report(&mut self, later: &str) -> io::Result<()> {
        match std::mem::replace(self, Trouble::Reported) {
            Trouble::None => {
                *self = Trouble::None;
                Ok(())
            }
            Trouble::Unreported(errno) => Err(io::Error::from_raw_os_error(errno)),
            Trouble::Reported => Err(io::Error::other(later)),
        }
    }
}

impl Stream {
    /// A connection that a listener of this library accepted (with `SO_LINGER` on and 0, so that
    /// dropping it resets it), or one that another process passed on.
    ///
    /// `peer` is what `accept` reported; without it the system is asked when needed.
    pub fn accepted(fd: OwnedFd, peer: Option<SockAddr>) -> Stream {
        let kind = match &peer {
            Some(peer) => Kind::of_domain(peer.domain()),
            None => Kind::of(std::os::fd::AsFd::as_fd(&fd)),
        };
        Stream::over(Transport::owned(fd, kind), peer)
    }

    /// A stream over any transport.
    pub fn over(transport: Transport, peer: Option<SockAddr>) -> Stream {
        Stream {
            transport: Some(transport),
            input: Queue::new(),
            output: Queue::new(),
            fill_size: FILL,
            consumed: 0,
            interest: Direction::Read,
            held: 0,
            endpoints: Endpoints::with_peer(peer),
            closed: false,
            finished: false,
            eof: false,
            read_trouble: Trouble::None,
            write_trouble: Trouble::None,
            shared: false,
            wakeup: Wakeup::None,
            parked_until: None,
        }
    }

    /// The deadline it was parked with, if it was parked with one.
    pub fn parked_until(&self) -> Option<Instant> {
        self.parked_until
    }

    /// The server's side: the deadline it was parked with.
    pub fn set_parked_until(&mut self, deadline: Option<Instant>) {
        self.parked_until = deadline;
    }

    /// The server's side: another process holds a duplicate of the descriptor, so that FIN and RST
    /// must be sent explicitly.
    pub fn set_shared(&mut self) {
        self.shared = true;
    }

    /// The server's side: input that another process has received already.
    pub fn preload(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    /// Whether this is a TCP connection that is not closed.
    pub fn is_tcp(&self) -> bool {
        self.transport.as_ref().is_some_and(|transport| transport.kind() == Kind::Tcp)
    }

    /// Why the handler was called for this connection.
    pub fn wakeup(&self) -> Wakeup {
        self.wakeup
    }

    /// The server's side: why the handler is called for this connection.
    pub fn set_wakeup(&mut self, wakeup: Wakeup) {
        self.wakeup = wakeup;
    }

    /// Whether `close` or `reset` has ended it.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Makes the first read and the first write report `errno`: how a connection that could not be
    /// established at once tells so.
    pub fn set_failure(&mut self, errno: i32) {
        self.read_trouble = Trouble::Unreported(errno);
        self.write_trouble = Trouble::Unreported(errno);
    }

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
        let size = size.max(self.fill_size);
        self.read_trouble.report("Previous read error")?;
        let Some(transport) = &self.transport else { return Ok(Fill::Eof) };
        if self.eof {
            return Ok(Fill::Eof);
        }
        let tail = self.input.tail(size);
        let room = tail.capacity() - tail.len();
        match transport.receive(tail) {
            Ok(0) => {
                // A terminal may deliver more after an end of file.
                self.eof = transport.kind() != Kind::Plain;
                Ok(Fill::Eof)
            }
            Ok(n) => {
                if n == room {
                    self.fill_size = (self.fill_size * 2).min(KEEP);
                }
                Ok(Fill::Data(n))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.interest = Direction::Read;
                Ok(Fill::Block)
            }
            Err(error) => {
                self.read_trouble = Trouble::Reported;
                self.input.clear();
                Err(error)
            }
        }
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
    /// [`Stream::has_input`] is false.
    pub fn hold_input(&mut self) {
        self.held = self.input.len();
    }

    /// Whether a read would find something without asking the system. A hold counts once: who asks
    /// again is not the read that was suspended.
    pub fn has_input(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        self.input.len() > held || (self.transport.is_none() && !self.closed)
    }

    /// Queues output without sending.
    pub fn put(&mut self, bytes: &[u8]) {
        if self.write_trouble != Trouble::Reported {
            self.output.push(bytes);
        }
    }

    /// Whether a write may be tried.
    ///
    /// # Errors
    /// "Previous write error", or the failure of the connection that was not reported yet.
    pub fn check_write(&mut self) -> io::Result<()> {
        self.write_trouble.report("Previous write error")
    }

    /// The number of queued output bytes.
    pub fn pending(&self) -> usize {
        self.output.len()
    }

    /// Sends what goes without blocking; the number of bytes that remain queued.
    ///
    /// # Errors
    /// What the system reports; afterwards "Previous write error".
    pub fn flush_nb(&mut self) -> io::Result<usize> {
        self.send_nb(&[])
    }

    /// Sends the queue and then `parts` as far as it goes without blocking, usually with one system
    /// call; queues what is left and returns its size.
    ///
    /// # Errors
    /// What the system reports; afterwards "Previous write error".
    pub fn send_nb(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        let mut skip = self.transmit(parts, 0)?;
        for part in parts {
            let done = skip.min(part.len());
            skip -= done;
            if done < part.len() {
                self.output.push(part.get(done..).unwrap_or_default());
            }
        }
        let blocked = !self.output.is_empty();
        self.interest = if blocked { Direction::Write } else { Direction::Read };
        Ok(self.output.len())
    }

    /// Sends the queue and then `parts`, waiting as long as it takes.
    ///
    /// # Errors
    /// What the system reports; afterwards "Previous write error".
    pub fn send_all(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut sent = 0;
        loop {
            sent = self.transmit(parts, sent)?;
            if self.output.is_empty() && sent == total {
                return Ok(());
            }
            self.wait(Direction::Write, None)?;
        }
    }

    /// Sends the queue and then `parts` behind their first `sent` bytes until all is sent or the
    /// system takes no more; how many bytes of `parts` are sent now. Nothing is queued.
    fn transmit(&mut self, parts: &[&[u8]], mut sent: usize) -> io::Result<usize> {
        self.check_write()?;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        while self.output.len() + (total - sent) > 0 {
            let Some(transport) = &self.transport else { return Err(closed()) };
            let mut slices = [IoSlice::new(&[]); PARTS];
            let (count, asked) = gather(&mut slices, self.output.live(), parts, sent);
            match transport.send(slices.get(..count).unwrap_or_default()) {
                Ok(n) => {
                    let queued = n.min(self.output.len());
                    self.output.consume(queued);
                    sent += n - queued;
                    // A short count of a socket means that the system's buffer is full.
                    if n < asked && transport.kind() != Kind::Plain {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.write_trouble = Trouble::Reported;
                    self.output.clear();
                    return Err(error);
                }
            }
        }
        Ok(sent)
    }

    /// Sends all that is queued, waiting as long as it takes.
    ///
    /// # Errors
    /// What the system reports; afterwards "Previous write error".
    pub fn flush(&mut self) -> io::Result<()> {
        self.send_all(&[])
    }

    /// Waits until the descriptor is ready, or for `timeout` (`None`: without limit); whether it is
    /// ready. Buffered input is not looked at.
    ///
    /// # Errors
    /// What `ppoll(2)` reports, except `EINTR`; "not connected" on a closed stream.
    pub fn wait(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<bool> {
        match &self.transport {
            Some(transport) => wait::ready(transport.fd(), direction, timeout),
            None => Err(closed()),
        }
    }

    /// The descriptor's number; `None` once it is closed.
    pub fn raw_fd(&self) -> Option<RawFd> {
        self.transport.as_ref().map(Transport::raw_fd)
    }

    /// The descriptor; `None` once it is closed.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.transport.as_ref().map(Transport::fd)
    }

    /// What is behind the stream; `None` once the descriptor is closed.
    pub fn kind(&self) -> Option<Kind> {
        self.transport.as_ref().map(Transport::kind)
    }

    /// Whether neither [`Stream::close`] nor [`Stream::reset`] was called.
    pub fn is_open(&self) -> bool {
        !self.closed
    }

    /// Whether [`Stream::finish`] was called.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether the peer has sent all it will send (buffered input may still wait).
    pub fn is_eof(&self) -> bool {
        self.eof || self.transport.is_none()
    }

    /// Gives back the memory of empty buffers, for a connection that will be idle for a while.
    pub fn release(&mut self) {
        self.input.release();
        self.output.release();
        self.fill_size = FILL;
    }

    /// The memory of the buffers, in bytes.
    pub fn buffer_memory(&self) -> usize {
        self.input.capacity() + self.output.capacity()
    }

    /// The addresses of both ends.
    pub fn endpoints(&mut self) -> &Endpoints {
        self.endpoints.resolve(self.transport.as_ref().map(Transport::fd));
        &self.endpoints
    }

    /// Hands the descriptor over, e.g. to another process. The stream is closed without a sign to
    /// the peer; buffered bytes are dropped, so see [`Stream::input`] and [`Stream::pending`] before.
    pub fn detach(&mut self) -> Option<OwnedFd> {
        let fd = self.transport.take()?.into_fd();
        self.end();
        fd
    }

    /// Sends what is queued and then EOF; input may still be read (reference, "socket:finish").
    /// Whatever is not TCP is closed instead, and its reads see EOF behind the buffered input.
    ///
    /// # Errors
    /// What the system reports for the flush or the shutdown.
    pub fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        self.finished = true;
        self.output.release();
        match &self.transport {
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
        let flushed = if self.finished { Ok(()) } else { self.flush() };
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
        self.endpoints();
        if let Some(transport) = self.transport.as_ref().filter(|_| self.shared) {
            // Not connected any more: there is nothing left to reset.
            let _ = disconnect(transport.fd());
        }
        let outcome = self.transport.take().map_or(Ok(()), Transport::reset);
        self.end();
        outcome
    }

    /// Closes the descriptor in order. The addresses stay known.
    fn hang_up(&mut self) -> io::Result<()> {
        self.endpoints();
        let Some(transport) = self.transport.take() else { return Ok(()) };
        if !self.eof {
            transport.discard_input();
        }
        if self.shared {
            // The peer may be gone already, which is no failure of an orderly end.
            let _ = transport.shutdown_write();
        }
        transport.close()
    }

    /// The stream is over: no buffer is needed any more.
    fn end(&mut self) {
        self.closed = true;
        self.input = Queue::new();
        self.output = Queue::new();
    }
}

/// The error of using a stream whose descriptor is closed.
fn closed() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOTCONN)
}

/// Lists `queued` and then `parts` behind their first `skip` bytes; how many slices were used, and
/// their total size.
fn gather<'a>(
    slices: &mut [IoSlice<'a>; PARTS],
    queued: &'a [u8],
    parts: &[&'a [u8]],
    mut skip: usize,
) -> (usize, usize) {
    let mut room = slices.iter_mut();
    let (mut count, mut size) = (0, 0);
    for part in std::iter::once(&queued).chain(parts).enumerate().map(|(i, part)| {
        let done = if i == 0 { 0 } else { skip.min(part.len()) };
        skip -= done;
        part.get(done..).unwrap_or_default()
    }) {
        if part.is_empty() {
            continue;
        }
        let Some(slot) = room.next() else { break };
        *slot = IoSlice::new(part);
        count += 1;
        size += part.len();
    }
    (count, size)
}

#[cfg(test)]
mod tests;
