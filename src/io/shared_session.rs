//! The TLS session of a transport, which the thread that sends [deferred output](crate::sys::os::flusher) shares with it.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use super::tls::TlsSession;
use crate::sys::os::output_slot::Seal;
use crate::sys::os::transfer;

/// A session. Its owner waits for the thread, which never waits for its owner.
#[derive(Debug)]
pub struct SharedSession(Arc<RwLock<TlsSession>>);

/// A session that is being looked at.
pub type SessionGuard<'a> = RwLockReadGuard<'a, TlsSession>;

impl SharedSession {
    /// A session that nobody shares yet.
    pub fn new(session: TlsSession) -> Self {
        SharedSession(Arc::new(RwLock::new(session)))
    }

    /// The session.
    pub fn read(&self) -> SessionGuard<'_> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, to be changed.
    pub fn write(&mut self) -> RwLockWriteGuard<'_, TlsSession> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What seals deferred output.
    pub fn seal(&self) -> Arc<dyn Seal> {
        self.0.clone()
    }
}

impl Seal for RwLock<TlsSession> {
    fn send(&self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        let mut session = match self.try_write() {
            Ok(session) => session,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
        };
        send_sealed(&mut session, &[IoSlice::new(bytes)], |records| transfer::send(socket, records))
    }
}

/// Seals and sends the parts, in order, as far as it goes without blocking; the number of bytes sent, 0 during the
/// handshake. After a send that was blocked, the parts of the next one must begin with what was not sent.
///
/// # Errors
/// `WouldBlock` if nothing can be sent now, else what the system reports, or TLS.
pub fn send_sealed(
    session: &mut TlsSession,
    parts: &[IoSlice<'_>],
    send: impl Fn(&[u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut sent = 0;
    loop {
        let outcome = send_records(session, &send).and_then(|()| {
            sent += session.take_sent();
            session.seal(parts, sent)
        });
        match outcome {
            Ok(true) => {}
            Ok(false) => return Ok(sent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && sent > 0 => return Ok(sent),
            Err(error) => return Err(error),
        }
    }
}

/// Sends what the session has ready.
///
/// # Errors
/// What the system reports.
pub fn send_records(
    session: &mut TlsSession,
    send: impl Fn(&[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    while session.has_unsent() {
        let sent = send(session.unsent())?;
        session.sent(sent);
    }
    Ok(())
}
