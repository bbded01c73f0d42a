//! One connection (or other descriptor) with its buffers and its state. No Lua type is known here.
//!
//! A stream never blocks except in [`Stream::wait`], [`Stream::flush`], [`Stream::finish`] and
//! [`Stream::close`]. Errors stick: after a failed read every read fails, after a failed write
//! every write; the two directions are independent.

mod ending;
mod input;
mod output;
mod standing;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::address::Endpoints;
use super::awaits::Awaits;
use super::buffer::{KEEP, Queue};
use super::transport::{Kind, Transport};
use super::wait;

pub use super::wait::Direction;
pub use standing::Standing;

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
    /// What the suspended read waits for.
    awaits: Awaits,
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
    /// The error (errno) that ended the connection in both directions, as a write has learned: the
    /// system tells it only once, and lets reads see an orderly end afterwards.
    lost: Option<i32>,
    /// A worker serves it: other processes may hold duplicates of the descriptor, so that closing it
    /// here ends nothing.
    served: bool,
    /// This process is a child of the one that owns it.
    inherited: bool,
    /// The descriptor of a served connection that is closed. See [`Stream::take_closed`].
    closed_fd: Option<OwnedFd>,
    /// Why the handler has it.
    wakeup: Wakeup,
    /// Until when it was parked.
    parked_until: Option<Instant>,
    /// It came from another process with input.
    preloaded: bool,
    /// Its handle carries fields of the user's.
    personal: bool,
    /// A message has begun of which something is kept elsewhere.
    begun: bool,
    /// No further message will be taken from it.
    last: bool,
    /// How far it has got with its messages.
    standing: Standing,
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
    /// Keeps an error that could not be reported yet.
    fn keep(&mut self, error: &io::Error) {
        if let Some(errno) = error.raw_os_error() {
            *self = Trouble::Unreported(errno);
        }
    }

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
            awaits: Awaits::More,
            endpoints: Endpoints::with_peer(peer),
            closed: false,
            finished: false,
            eof: false,
            read_trouble: Trouble::None,
            write_trouble: Trouble::None,
            lost: None,
            served: false,
            inherited: false,
            closed_fd: None,
            wakeup: Wakeup::None,
            parked_until: None,
            preloaded: false,
            personal: false,
            begun: false,
            last: false,
            standing: Standing::default(),
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

    /// The server's side: other processes may hold duplicates of the descriptor (the supervisor, a
    /// child of the handler's), so that FIN and RST must be sent explicitly.
    pub fn set_served(&mut self) {
        self.served = true;
    }

    /// In a child of the process that serves it: what is queued is for that process to send, and the
    /// end of this stream is not the end of the connection.
    pub fn disown(&mut self) {
        self.inherited = true;
        self.output = Queue::new();
    }

    /// The server's side: the descriptor of a closed stream that was served. An epoll set goes on
    /// watching a connection whose number is closed as long as a duplicate is open elsewhere, so
    /// whoever watches it must take it out of the set before this is dropped.
    pub fn take_closed(&mut self) -> Option<OwnedFd> {
        self.closed_fd.take()
    }

    /// The server's side: input that another process has received already.
    pub fn preload(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
        self.preloaded = !bytes.is_empty();
    }

    /// The server's side: output that another process could not send.
    pub fn preload_output(&mut self, bytes: &[u8]) {
        self.output.push(bytes);
    }

    /// Whether its first input was received by another process and is still unused.
    pub fn is_preloaded(&self) -> bool {
        self.preloaded && self.consumed == 0
    }

    /// Whether its handle carries fields of the user's. They cannot follow the connection into another
    /// process, so it stays with this one.
    pub fn is_personal(&self) -> bool {
        self.personal
    }

    /// The server's side: see [`Stream::is_personal`].
    pub fn set_personal(&mut self, personal: bool) {
        self.personal = personal;
    }

    /// Whether something is kept elsewhere of a message that is still incomplete.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// For whoever reads messages from it: see [`Stream::has_begun`].
    pub fn set_begun(&mut self, begun: bool) {
        self.begun = begun;
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

    /// Whether its handler is called for the last time: the server shuts down.
    pub fn is_last(&self) -> bool {
        self.last || self.wakeup == Wakeup::Shutdown
    }

    /// The server's side: see [`Stream::is_last`].
    pub fn set_last(&mut self, last: bool) {
        self.last = last;
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

    /// The addresses of both ends. What was not asked for before the end of the connection is
    /// unknown afterwards (the peer of an accepted connection is always known).
    pub fn endpoints(&mut self) -> &Endpoints {
        self.endpoints.resolve(self.transport.as_ref().map(Transport::fd));
        &self.endpoints
    }

    /// The address of the client, if it is known without asking the system.
    pub fn known_peer(&self) -> Option<SocketAddr> {
        self.endpoints.peer()
    }

    /// Hands the descriptor over, e.g. to another process. The stream is closed without a sign to
    /// the peer; buffered bytes are dropped, so see [`Stream::input`] and [`Stream::pending`] before.
    pub fn detach(&mut self) -> Option<OwnedFd> {
        let fd = self.transport.take()?.into_fd();
        self.end();
        fd
    }
}

/// The error of using a stream whose descriptor is closed.
fn closed() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOTCONN)
}

#[cfg(test)]
mod tests;
