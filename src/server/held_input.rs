//! Input of a waiting connection, which its reader cannot use yet: the supervisor holds it and adds to
//! it, without looking for more than what the reader awaits.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::message::MAX_PAYLOAD;
use crate::io::Awaits;

/// Received input, all of it seen by the reader or searched for what the reader awaits.
#[derive(Debug, Default)]
pub struct HeldInput {
    bytes: Vec<u8>,
    awaits: Awaits,
}

impl HeldInput {
    /// Input that its reader has seen and cannot use until what it awaits is there.
    pub fn new(bytes: Vec<u8>, awaits: Awaits) -> Self {
        HeldInput { bytes, awaits }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Something came from the client: receives it if it may be of no use alone. True if the
    /// reader is to look again: because what it awaits is there, the client sends no more, or there
    /// is as much as can be passed on.
    pub fn is_due(&mut self, connection: BorrowedFd<'_>) -> bool {
        if self.bytes.is_empty() || self.awaits == Awaits::More {
            return true;
        }
        let mut piece = [0; 16 * 1024];
        let room = MAX_PAYLOAD.saturating_sub(self.bytes.len()).min(piece.len());
        match recv(connection.as_raw_fd(), &mut piece[..room], MsgFlags::MSG_DONTWAIT) {
            Ok(count) if count > 0 => {
                let seen = self.bytes.len();
                self.bytes.reserve_exact(count.max(seen / 8).min(room));
                self.bytes.extend_from_slice(&piece[..count]);
                self.bytes.len() >= MAX_PAYLOAD || self.awaits.is_met(&self.bytes, seen)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => false,
            // The end, or a failure: the reader gets to know.
            Ok(_) | Err(_) => true,
        }
    }

    /// The bytes and what they lack, for a message.
    pub fn take(&mut self) -> (Vec<u8>, Awaits) {
        let HeldInput { bytes, awaits } = std::mem::take(self);
        (bytes, awaits)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn input_is_due_when_the_reader_can_use_it() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut input = HeldInput::new(b"GET / HTTP/1.1\r\n".to_vec(), Awaits::EmptyLine(1000));
        assert!(!input.is_due(ours.as_fd()), "nothing came");
        for (piece, due) in [("Host: a\r", false), ("\n", false), ("\r\nrest", true)] {
            theirs.write_all(piece.as_bytes()).unwrap();
            assert_eq!(input.is_due(ours.as_fd()), due, "{piece:?}");
        }
        assert_eq!(input.take().0, b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest");
    }

    #[test]
    fn input_is_due_at_the_end_and_when_it_is_too_much_for_a_message() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut input = HeldInput::new(vec![b'a'; MAX_PAYLOAD - 20_000], Awaits::Bytes(1 << 40));
        theirs.write_all(&[b'b'; 30_000]).unwrap();
        while !input.is_due(ours.as_fd()) {}
        assert_eq!(input.take().0.len(), MAX_PAYLOAD);
        let mut input = HeldInput::new(b"a".to_vec(), Awaits::EmptyLine(1 << 40));
        drop(theirs);
        while !input.is_due(ours.as_fd()) {}
        assert_eq!(recv(ours.as_raw_fd(), &mut [0; 9], MsgFlags::MSG_DONTWAIT), Ok(0));
    }

    #[test]
    fn input_that_is_not_held_stays_with_the_system() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"x").unwrap();
        assert!(HeldInput::default().is_due(ours.as_fd()));
        assert!(HeldInput::new(b"a".to_vec(), Awaits::More).is_due(ours.as_fd()));
        assert_eq!(recv(ours.as_raw_fd(), &mut [0; 9], MsgFlags::MSG_DONTWAIT), Ok(1));
    }
}
