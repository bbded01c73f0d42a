//! A descriptor: a TCP connection, a local socket, or anything else; and how each of them receives,
//! sends and ends without blocking and without raising SIGPIPE.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use socket2::{Domain, SockRef};

use super::wait::{Direction, ready};
use crate::sys::os::disconnect::disconnect;
use crate::sys::os::{file_transfer, pipe, standard, transfer};

/// How many bytes of unread input a closing connection throws away at most, so that a peer which
/// never stops sending cannot hold the caller.
const DRAIN_LIMIT: usize = 4 * 1024 * 1024;

/// The kinds of descriptors, which differ in how they send and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescriptorKind {
    /// A TCP connection: has half-close, FIN and RST.
    Tcp,
    /// A Unix domain socket.
    Local,
    /// Anything else: a pipe, a terminal, a file.
    Plain,
}

impl DescriptorKind {
    /// Asks the system what `fd` is.
    pub fn of(fd: BorrowedFd<'_>) -> DescriptorKind {
        match SockRef::from(&fd).local_addr() {
            Ok(address) => DescriptorKind::of_domain(address.domain()),
            Err(_) => DescriptorKind::Plain,
        }
    }

    /// The kind of sockets of an address family.
    pub fn of_domain(domain: Domain) -> DescriptorKind {
        if domain == Domain::IPV4 || domain == Domain::IPV6 {
            DescriptorKind::Tcp
        } else {
            DescriptorKind::Local
        }
    }
}

/// A descriptor and its kind. Dropping it ends a TCP connection as its `SO_LINGER` says.
#[derive(Debug)]
pub struct PlainTransport {
    fd: Descriptor,
    kind: DescriptorKind,
}

/// Whether a descriptor ends with its handle.
#[derive(Debug)]
enum Descriptor {
    /// Closed with the handle.
    Owned(OwnedFd),
    /// A standard stream: other code of the process relies on its number staying in use.
    Standard(BorrowedFd<'static>),
}

impl PlainTransport {
    /// A connection or descriptor of its own.
    pub fn owned(fd: OwnedFd, kind: DescriptorKind) -> Self {
        PlainTransport { fd: Descriptor::Owned(fd), kind }
    }

    /// A standard stream of the process.
    pub fn standard(fd: BorrowedFd<'static>) -> Self {
        PlainTransport { kind: DescriptorKind::of(fd), fd: Descriptor::Standard(fd) }
    }

    /// The kind of the descriptor.
    pub fn kind(&self) -> DescriptorKind {
        self.kind
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Descriptor::Owned(fd) => fd.as_fd(),
            Descriptor::Standard(fd) => *fd,
        }
    }

    /// The descriptor's number.
    pub fn raw_fd(&self) -> RawFd {
        self.fd().as_raw_fd()
    }

    /// The descriptor itself, for another owner; `None` for a standard stream.
    pub fn into_fd(self) -> Option<OwnedFd> {
        match self.fd {
            Descriptor::Owned(fd) => Some(fd),
            Descriptor::Standard(_) => None,
        }
    }

    /// Receives into the spare capacity of `buffer` without blocking; 0 at EOF.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, else what the system reports.
    pub fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            let outcome = match self.kind {
                DescriptorKind::Plain if !self.ready(Direction::Read) => return Err(would_block()),
                DescriptorKind::Plain => transfer::read_append(self.fd(), buffer),
                _ => transfer::recv_append(self.fd(), buffer),
            };
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    /// Whether the system sends files by itself without blocking.
    pub fn takes_files(&self) -> bool {
        let flags = || fcntl(self.fd(), FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
        self.kind != DescriptorKind::Plain
            && flags().is_ok_and(|flags| flags.contains(OFlag::O_NONBLOCK))
    }

    /// Sends up to `count` bytes of a file, from its position on, as far as it goes without blocking; the number of
    /// bytes sent. The kernel moves the position by as much.
    ///
    /// # Errors
    /// `WouldBlock` if nothing can be sent now, `EINVAL` if the file cannot be sent so, else what the system reports.
    /// Never raises SIGPIPE.
    pub fn send_file(&self, file: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        file_transfer::send(self.fd(), file, count)
    }

    /// Sends the parts, in order, as far as it goes without blocking; the number of bytes sent. With `more` the
    /// system may wait for what follows at once.
    ///
    /// # Errors
    /// `WouldBlock` if nothing can be sent now, else what the system reports. Never raises SIGPIPE.
    pub fn send(&self, parts: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        let more = if more { libc::MSG_MORE } else { 0 };
        loop {
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | more;
            let outcome = match (self.kind, parts) {
                (DescriptorKind::Plain, _) if !self.ready(Direction::Write) => {
                    return Err(would_block());
                }
                (DescriptorKind::Plain, parts) => pipe::write(self.fd(), parts),
                (_, [part]) => SockRef::from(&self.fd()).send_with_flags(part, flags),
                (_, parts) => SockRef::from(&self.fd()).send_vectored_with_flags(parts, flags),
            };
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    /// The same for one part, and nothing at once behind it.
    ///
    /// # Errors
    /// The same.
    pub fn send_one(&self, part: &[u8]) -> io::Result<usize> {
        self.send(&[IoSlice::new(part)], false)
    }

    /// Whether an operation would not block now. Descriptors that `poll` does not know, and those
    /// in error, count as ready: the operation itself reports what is wrong.
    fn ready(&self, direction: Direction) -> bool {
        ready(self.fd(), direction, Some(Duration::ZERO)).unwrap_or(true)
    }

    /// The error that has ended the connection and that nobody was told yet.
    pub fn take_error(&self) -> Option<i32> {
        SockRef::from(&self.fd()).take_error().ok().flatten()?.raw_os_error()
    }

    /// Sends FIN: the peer reads EOF, input may still come. For TCP only.
    ///
    /// # Errors
    /// What `shutdown(2)` reports, e.g. when the peer has reset the connection.
    pub fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(&self.fd()).shutdown(Shutdown::Write)
    }

    /// Throws away input that is already there, up to a limit of a few MiB.
    ///
    /// A socket that is closed with unread input resets the connection (RFC 1122, 4.2.2.13), and
    /// the peer may then lose what was sent to it.
    pub fn discard_input(&self) {
        let mut scratch = Vec::new();
        let mut left = DRAIN_LIMIT;
        while left > 0 {
            let outcome = match self.kind {
                DescriptorKind::Plain => return,
                DescriptorKind::Tcp => transfer::recv_discard(self.fd(), left),
                DescriptorKind::Local => {
                    scratch.clear();
                    scratch.reserve(16 * 1024);
                    transfer::recv_append(self.fd(), &mut scratch)
                }
            };
            match outcome {
                Ok(0) | Err(_) => return,
                Ok(n) => left = left.saturating_sub(n),
            }
        }
    }

    /// Ends the connection gracefully, even if other processes hold a duplicate of the descriptor: the peer reads
    /// EOF after all that was sent. (Closing would do that only with the last duplicate.)
    ///
    /// # Errors
    /// What the system reports.
    pub fn end_in_order(&self) -> io::Result<()> {
        if matches!(
            (&self.fd, self.kind),
            (Descriptor::Standard(_), _) | (_, DescriptorKind::Plain)
        ) {
            return Ok(());
        }
        // First: if this process is killed in between, the supervisor sees how it was to end.
        let outcome = self.lift_linger();
        // Both, as if it were closed: its peer cannot send any more. It may be gone already, which is
        // no failure of an orderly end.
        let _ = SockRef::from(&self.fd()).shutdown(Shutdown::Both);
        outcome
    }

    /// Ends the connection at once, even if other processes hold a duplicate of the descriptor.
    pub fn end_at_once(&self) {
        match (&self.fd, self.kind) {
            (Descriptor::Standard(_), _) | (_, DescriptorKind::Plain) => {}
            _ => disconnect(self.fd()),
        }
    }

    /// Closes the connection gracefully: a TCP peer gets FIN, after all that was sent.
    ///
    /// # Errors
    /// What the system reports; the descriptor is closed all the same.
    pub fn close(self) -> io::Result<()> {
        match self.fd {
            Descriptor::Owned(_) => self.lift_linger(),
            Descriptor::Standard(fd) => standard::replace_by_null(fd),
        }
    }

    /// Prepares a graceful end: whenever the last descriptor of a TCP connection is closed, its
    /// peer gets FIN.
    ///
    /// # Errors
    /// What the system reports.
    pub fn lift_linger(&self) -> io::Result<()> {
        match self.kind {
            DescriptorKind::Tcp => SockRef::from(&self.fd()).set_linger(None),
            _ => Ok(()),
        }
    }

    /// Ends the connection at once: a TCP peer gets RST, unsent data is lost.
    ///
    /// # Errors
    /// What the system reports; the descriptor is closed all the same.
    pub fn reset(self) -> io::Result<()> {
        match self.fd {
            Descriptor::Owned(fd) if self.kind == DescriptorKind::Tcp => {
                SockRef::from(&fd).set_linger(Some(Duration::ZERO))
            }
            Descriptor::Owned(_) => Ok(()),
            Descriptor::Standard(fd) => standard::replace_by_null(fd),
        }
    }
}

fn would_block() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}
