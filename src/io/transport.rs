//! The transport of a stream: a descriptor, and for TLS the session that its bytes pass through.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, RwLockWriteGuard};

use nix::poll::PollFlags;

pub use super::plain_transport::DescriptorKind;
use super::plain_transport::PlainTransport;
use super::shared_session::{SessionGuard, SharedSession, send_records, send_sealed};
use super::tls::TlsSession;
use super::wait::Direction;
use crate::sys::os::error_text::CodedError;
use crate::sys::os::output_slot::Seal;
use crate::sys::os::{file_transfer, fork_detection};

/// How much of a file is copied at once where the system cannot send it, in bytes.
const COPY: usize = 16 * 1024;

/// A descriptor and its TLS session, if it has one. Dropping it ends a TCP connection as its
/// `SO_LINGER` says.
#[derive(Debug)]
pub struct Transport {
    plain: PlainTransport,
    session: Option<SharedSession>,
    /// The process that the session belongs to.
    owner: u64,
}

impl Transport {
    /// A connection or descriptor of its own.
    pub fn owned(fd: OwnedFd, kind: DescriptorKind) -> Transport {
        Transport { plain: PlainTransport::owned(fd, kind), session: None, owner: 0 }
    }

    /// A standard stream of the process.
    pub fn standard(fd: BorrowedFd<'static>) -> Transport {
        Transport { plain: PlainTransport::standard(fd), session: None, owner: 0 }
    }

    /// The descriptor, past the session.
    #[inline(always)]
    pub fn plain(&self) -> &PlainTransport {
        &self.plain
    }

    /// All further bytes pass through `session`.
    pub fn secure(&mut self, session: TlsSession) {
        (self.session, self.owner) =
            (Some(SharedSession::new(session)), fork_detection::generation());
    }

    /// Whether the session belongs to the process that this one was forked from. A child that sent or received records
    /// would use the numbers that its parent goes on with (RFC 8446 5.3).
    pub fn is_inherited(&self) -> bool {
        self.session.is_some() && self.owner != fork_detection::generation()
    }

    /// The parts, if there is a session.
    fn secured(
        &mut self,
    ) -> io::Result<Option<(&PlainTransport, RwLockWriteGuard<'_, TlsSession>)>> {
        if self.is_inherited() {
            let text = "the connection's TLS belongs to the process that this one was forked from: leave the \
                        connection to that one, and open another one here";
            return Err(CodedError { code: "forked", text: text.to_owned() }.into());
        }
        Ok(self.session.as_mut().map(|session| (&self.plain, session.write())))
    }

    /// What follows is not for the session any more.
    pub fn drop_session(&mut self) {
        self.session = None;
    }

    /// How many bytes the session has ready beside the output.
    pub fn pending(&self) -> usize {
        self.session().map_or(0, |session| session.unsent().len())
    }

    /// Goes on with the handshake, or sends these, as far as that goes without blocking.
    ///
    /// # Errors
    /// What the system reports, or TLS.
    #[inline(always)]
    pub fn settle(&mut self) -> io::Result<()> {
        if self.session.is_none() { Ok(()) } else { self.settle_session() }
    }

    fn settle_session(&mut self) -> io::Result<()> {
        if !self.handshake()? {
            return Ok(());
        }
        let Some((plain, mut session)) = self.secured()? else { return Ok(()) };
        match send_ready(plain, &mut session) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            outcome => outcome,
        }
    }

    /// Whether there is a TLS session that no other process can go on with now.
    #[inline]
    pub fn is_bound(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.read().state().is_none())
    }

    /// The TLS session, if there is one.
    pub fn session(&self) -> Option<SessionGuard<'_>> {
        self.session.as_ref().map(SharedSession::read)
    }

    /// The same, to be changed.
    pub fn session_mut(&mut self) -> Option<RwLockWriteGuard<'_, TlsSession>> {
        self.session.as_mut().map(SharedSession::write)
    }

    /// Appends received bytes to `buffer`, without blocking; 0 at EOF. Without TLS into the spare
    /// capacity of `buffer`.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, else what the system reports, or TLS.
    #[inline(always)]
    pub fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if self.session.is_none() { self.plain.receive(buffer) } else { self.decrypt(buffer) }
    }

    fn decrypt(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let Some((plain, mut session)) = self.secured()? else { return Ok(0) };
        loop {
            match session.take_plaintext(buffer)? {
                Some(received) => return Ok(received),
                None => receive_records(plain, &mut session)?,
            }
        }
    }

    /// Whether the system sends files by itself without blocking.
    pub fn takes_files(&self) -> bool {
        self.session.is_none() && self.plain.takes_files()
    }

    /// As [`PlainTransport::send_file`] through memory; the position is moved afterwards.
    ///
    /// # Errors
    /// As [`Transport::send`], and what the system reports of the file.
    pub fn send_copy(&mut self, file: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        let mut piece = [0; COPY];
        let size = file_transfer::peek(file, &mut piece[..count.min(COPY)])?;
        let sent = self.send(&[IoSlice::new(&piece[..size])], size < count)?;
        file_transfer::skip(file, sent)?;
        Ok(sent)
    }

    /// Sends the parts, in order, as far as it goes without blocking; the number of bytes sent. With
    /// `more` the system may wait for what follows at once.
    ///
    /// After a send that was blocked, the parts of the next one must begin with what was not sent.
    ///
    /// # Errors
    /// `WouldBlock` if nothing can be sent now, else what the system reports, or TLS. Never raises SIGPIPE.
    #[inline(always)]
    pub fn send(&mut self, parts: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        if self.session.is_none() { self.plain.send(parts, more) } else { self.encrypt(parts) }
    }

    fn encrypt(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some((plain, mut session)) = self.secured()? else { return Ok(0) };
        loop {
            let sent = send_sealed(&mut session, parts, |records| plain.send_one(records))
                .map_err(|error| reason(plain, &mut session, error))?;
            if sent > 0 || !session.is_handshaking() {
                return Ok(sent);
            }
            receive_records(plain, &mut session)?;
        }
    }

    /// Goes on with the handshake as far as possible without blocking; whether it is over.
    ///
    /// # Errors
    /// What the system reports, or TLS: why there will be no connection.
    pub fn handshake(&mut self) -> io::Result<bool> {
        if self.is_established() {
            return Ok(true);
        }
        match self.send(&[], false) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            outcome => outcome.map(|_| self.is_established()),
        }
    }

    fn is_established(&self) -> bool {
        self.session().is_none_or(|session| session.is_established())
    }

    /// All output is sent: with TLS, sends `close_notify`. Returns whether that has left as well.
    ///
    /// # Errors
    /// What the system reports.
    pub fn send_close_notify(&mut self) -> io::Result<bool> {
        let Some((plain, mut session)) = self.secured()? else { return Ok(true) };
        session.close_notify();
        match send_ready(plain, &mut session) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }

    /// The conditions under which a receive, a send, or one of them can get on.
    pub fn conditions(&self, read: bool, write: bool) -> PollFlags {
        let (read, write) = match self.session() {
            Some(session) if session.is_handshaking() => (true, session.has_unsent()),
            Some(session) => (read, write || read && session.has_unsent()),
            None => (read, write),
        };
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, read);
        flags.set(PollFlags::POLLOUT, write);
        flags
    }

    /// What to wait for where only one condition can be told, to get on in this direction.
    pub fn condition(&self, direction: Direction) -> Direction {
        match self.session() {
            Some(session) if session.is_handshaking() && session.has_unsent() => Direction::Write,
            Some(session) if session.is_handshaking() => Direction::Read,
            _ => direction,
        }
    }

    /// Whether the thread that sends deferred output may send for this process now.
    #[inline(always)]
    pub fn is_sent_for(&self) -> bool {
        self.plain().kind() != DescriptorKind::Plain
            && (self.session.is_none() || self.is_sealed_for())
    }

    fn is_sealed_for(&self) -> bool {
        self.is_established() && !self.is_inherited()
    }

    /// What seals the output that the thread sends.
    #[inline(always)]
    pub fn seal(&self) -> Option<Arc<dyn Seal>> {
        self.session.as_ref().map(SharedSession::seal)
    }

    /// Whether a receive would find something without asking the system.
    pub fn has_received(&self) -> bool {
        self.session().is_some_and(|session| session.has_received())
    }

    /// Gives back memory that an idle connection does not need.
    pub fn release(&mut self) {
        if let Some(session) = &mut self.session {
            session.write().release();
        }
    }

    /// The descriptor itself, for another owner; `None` for a standard stream.
    pub fn into_fd(self) -> Option<OwnedFd> {
        self.plain.into_fd()
    }

    /// As [`PlainTransport::close`].
    ///
    /// # Errors
    /// What the system reports; the descriptor is closed all the same.
    pub fn close(self) -> io::Result<()> {
        self.plain.close()
    }

    /// As [`PlainTransport::reset`].
    ///
    /// # Errors
    /// What the system reports; the descriptor is closed all the same.
    pub fn reset(self) -> io::Result<()> {
        self.plain.reset()
    }
}

/// Receives once for the session, which answers what the protocol asks for, and keeps its failure.
fn receive_records(plain: &PlainTransport, session: &mut TlsSession) -> io::Result<()> {
    // What the peer waits for first; a failure is for a write to report, since input may explain it.
    let sent = send_ready(plain, session);
    match plain.receive(session.room())? {
        0 => match sent {
            Err(error) if is_reset(&error) => return Err(error),
            _ => session.end(),
        },
        _ => session.process(),
    }
    let _ = send_ready(plain, session);
    Ok(())
}

/// Sends what the session has ready.
fn send_ready(plain: &PlainTransport, session: &mut TlsSession) -> io::Result<()> {
    let sent = send_records(session, |records| plain.send_one(records));
    sent.map_err(|error| reason(plain, session, error))
}

/// Why sending has failed: if the connection is gone, the peer's last message may tell.
#[cold]
fn reason(plain: &PlainTransport, session: &mut TlsSession, error: io::Error) -> io::Error {
    if !matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) {
        return error;
    }
    while !session.has_ended() {
        match plain.receive(session.room()) {
            Ok(0) if is_reset(&error) => break,
            Ok(0) => session.end(),
            Ok(_) => session.process(),
            Err(_) => break,
        }
    }
    session.breach().map_or(error, io::Error::from)
}

/// Whether a send tells that the connection was reset. The system tells that once; then a receive finds an end,
/// which is none that the peer has sent.
fn is_reset(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECONNRESET)
}
