//! A client, and what is known of its connection from the server's side.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

/// What a client has done and seen.
pub(super) struct Client {
    pub(super) socket: UnixStream,
    /// Names the connection: the same for every descriptor of its other end.
    pub(super) inode: u64,
    /// Requests sent, and bytes of the next one.
    pub(super) sent: usize,
    pub(super) part: usize,
    /// Answers received, and bytes of the next one.
    pub(super) answered: usize,
    pub(super) received: Vec<u8>,
    pub(super) ended: bool,
}

/// What is known of a connection from the server's side.
pub(super) struct ServedConnection {
    /// Requests that a handler has answered.
    pub(super) handled: usize,
    /// So many answers have to arrive though the connection may end; none: it may not end.
    pub(super) due: Option<usize>,
}

impl ServedConnection {
    /// The connection may end when so many answers have arrived.
    pub(super) fn may_end(&mut self, due: usize) {
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }
}

impl Client {
    pub(super) fn send(&mut self, bytes: &[u8]) {
        // Small: if the connection has ended, reading tells.
        let _ = self.socket.write_all(bytes);
    }

    pub(super) fn request(&self, large: bool) -> Vec<u8> {
        let size = if large { 'L' } else { 's' };
        format!("{:05} {size}{:>8}\n", self.sent, "").into_bytes()
    }

    /// Receives what is there.
    pub(super) fn read(&mut self) {
        let mut piece = vec![0; 1 << 16];
        loop {
            match self.socket.read(&mut piece) {
                Ok(0) => break self.ended = true,
                Ok(size) => self.received.extend_from_slice(&piece[..size]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => break self.ended = true,
            }
        }
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let number: usize = String::from_utf8_lossy(&line[..5]).parse().unwrap();
            assert_eq!(number, self.answered, "an answer is missing, or has come twice");
            self.answered += 1;
        }
    }
}
