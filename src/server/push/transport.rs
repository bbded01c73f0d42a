//! What the bytes of a held connection pass through: its socket, and its TLS session if it has one.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv};

use crate::http::wire::websocket::frame::{EMPTY_PONG, is_empty_pong};
use crate::io::shared_session::SessionGuard;
use crate::io::tls::TlsSession;
use crate::io::transport::{DescriptorKind, Transport};
use crate::sys::os::socket_queues::unsent;

/// The socket, and the session.
pub struct PushTransport(Transport);

impl PushTransport {
    /// Over a socket, with a session that goes on here.
    pub fn new(socket: OwnedFd, session: Option<TlsSession>) -> Self {
        let kind = DescriptorKind::of(socket.as_fd());
        let mut transport = Transport::owned(socket, kind);
        session.into_iter().for_each(|session| transport.secure(session));
        PushTransport(transport)
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.0.plain().fd()
    }

    /// The socket, for another owner.
    pub fn into_socket(self) -> Option<OwnedFd> {
        self.0.into_fd()
    }

    /// Whether it is a Unix domain socket.
    pub fn is_local(&self) -> bool {
        self.0.plain().kind() == DescriptorKind::Local
    }

    /// The TLS session.
    pub fn session(&self) -> Option<SessionGuard<'_>> {
        self.0.session()
    }

    /// Another process goes on with the session: its keys are not needed here any more.
    pub fn forget_session(&mut self) {
        self.0.drop_session();
    }

    /// The session goes on here again.
    pub fn take_back(&mut self, session: Option<TlsSession>) {
        session.into_iter().for_each(|session| self.0.secure(session));
    }

    /// Sends what goes without blocking: how many bytes. If that is not all, the rest must come next.
    ///
    /// # Errors
    /// The client is gone, or the keys are used up.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = match self.0.send(&[IoSlice::new(bytes)], false) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            outcome => outcome?,
        };
        if sent == bytes.len() {
            self.0.release();
        }
        Ok(sent)
    }

    /// How many bytes the client has not taken, if `left` bytes are not sent: here and in the kernel.
    pub fn untaken(&self, left: usize) -> usize {
        let records = self.session().map(|session| session.progress()).unwrap_or_default();
        // What is sealed stands in both.
        let excess = records.unsent.saturating_sub(records.sealed) as usize;
        left + excess + unsent(self.socket())
    }

    /// Appends to `input` what the client has sent in records. False if it sends no more, or something forbidden.
    pub fn hear(&mut self, input: &mut Vec<u8>) -> bool {
        let outcome = self.0.receive(input);
        self.0.release();
        match outcome {
            Ok(received) => received > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Takes the answer to a ping, if that is all that the client has sent without records.
    pub fn take_pong(&self) -> bool {
        let (socket, mut bytes) = (self.socket().as_raw_fd(), [0; EMPTY_PONG + 1]);
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(socket, &mut bytes, peek) == Ok(EMPTY_PONG)
            && is_empty_pong(&bytes[..EMPTY_PONG])
            && recv(socket, &mut bytes[..EMPTY_PONG], MsgFlags::MSG_DONTWAIT).is_ok()
    }

    /// Everything is sent, and what the client has sent is of no use: a local socket that is closed before it is read
    /// would take from the client what that has not read.
    pub fn discard_input(&self) {
        self.0.plain().discard_input();
    }

    /// Everything is sent: with TLS, sends `close_notify`. False if that has not left yet.
    pub fn send_close_notify(&mut self) -> bool {
        self.0.send_close_notify().unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_not_taken_counts_here_and_in_the_kernel() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut transport = PushTransport::new(ours.into(), None);
        let bytes = vec![1; 4 << 20];
        let sent = transport.send(&bytes).unwrap();
        assert!(sent > 0 && sent < bytes.len());
        assert_eq!(transport.send(&bytes[sent..]).unwrap(), 0);
        assert!(transport.untaken(5) > 5);
        assert!(
            transport.is_local() && transport.session().is_none() && transport.send_close_notify()
        );
        drop(theirs);
        assert!(transport.send(&bytes).is_err());
    }

    #[test]
    fn a_pong_is_taken_if_nothing_else_is_there() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let transport = PushTransport::new(ours.into(), None);
        assert!(!transport.take_pong());
        theirs.write_all(&[0x8a, 0x80, 1, 2, 3, 4]).unwrap();
        assert!(transport.take_pong() && !transport.take_pong());
        theirs.write_all(&[0x8a, 0x80, 1, 2, 3, 4, 0x81]).unwrap();
        assert!(!transport.take_pong());
    }
}
