//! A WebSocket that hears topics and whose TLS session stays in its worker: frames of the push process's pass by.

use std::io;
use std::time::Duration;

use crate::http::wire::websocket::cursor::FrameCursor;
use crate::server::ipc::held_state::HeldState;
use crate::sys::os::monotonic::MonotonicTime;

/// The length of the name that comes first.
const NAME: usize = size_of::<u64>();

/// What a worker knows of one.
pub struct RelayedSocket {
    /// The beginning of its name in the push process.
    name: Vec<u8>,
    frames: FrameCursor,
    /// When it ends by itself.
    deadline: Option<u64>,
    heartbeat: Duration,
    /// When its client was sent a ping to which nothing has come yet.
    pinged: Option<MonotonicTime>,
}

impl RelayedSocket {
    /// One that the push process has not named yet, or has given that name.
    pub fn new(held: &HeldState, name: Option<u64>) -> Self {
        let name = name.map_or_else(Vec::new, |name| name.to_le_bytes().to_vec());
        let heartbeat = held.rules.heartbeat.as_ref().map_or(0, |(time, _)| *time);
        RelayedSocket {
            name,
            frames: FrameCursor::default(),
            deadline: held.deadline,
            heartbeat: Duration::from_millis(heartbeat),
            pinged: None,
        }
    }

    /// Its name in the push process.
    pub fn name(&self) -> Option<u64> {
        self.name.first_chunk::<NAME>().map(|name| u64::from_le_bytes(*name))
    }

    /// Whether it has one, and the last frame is complete.
    pub fn is_between(&self) -> bool {
        self.name().is_some() && self.frames.is_between()
    }

    /// Whether its time is up.
    pub fn is_over(&self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Its client has sent something.
    pub fn note_sign(&mut self) {
        self.pinged = None;
    }

    /// The push process has sent these bytes: what of them is for the client.
    ///
    /// # Errors
    /// They are no frames, or the client has not answered the last ping when it gets another one. This worker may
    /// have been busy: then several come at once.
    pub fn pass<'a>(&mut self, bytes: &'a [u8], now: MonotonicTime) -> io::Result<&'a [u8]> {
        let (name, bytes) = bytes.split_at((NAME - self.name.len()).min(bytes.len()));
        self.name.extend_from_slice(name);
        let invalid = |_| io::ErrorKind::InvalidData;
        if self.frames.pass(bytes).map_err(invalid)? {
            let pinged = *self.pinged.get_or_insert(now);
            if now.saturating_duration_since(pinged) > self.heartbeat / 2 {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ipc::held_state::Rules;

    #[test]
    fn the_name_comes_first_and_pings_are_to_be_answered() {
        let rules = Rules { heartbeat: Some((1000, Vec::new())), ..Rules::default() };
        let held = HeldState { deadline: Some(5), rules, ..HeldState::default() };
        let mut socket = RelayedSocket::new(&held, None);
        assert!(!socket.is_over(4) && socket.is_over(5));
        let now = MonotonicTime::now();
        let at = |milliseconds| now + Duration::from_millis(milliseconds);
        assert_eq!(socket.pass(&7_u64.to_le_bytes()[..3], now).unwrap(), b"");
        assert_eq!((socket.name(), socket.is_between()), (None, false));
        let rest = [&7_u64.to_le_bytes()[3..], &[0x81]].concat();
        assert_eq!(socket.pass(&rest, now).unwrap(), [0x81]);
        assert_eq!((socket.name(), socket.is_between()), (Some(7), false));
        assert_eq!(socket.pass(&[1, b'x', 0x89, 0], now).unwrap(), [1, b'x', 0x89, 0]);
        assert!(socket.is_between());
        assert!(socket.pass(&[0x89, 0], at(5)).is_ok(), "both have waited for the worker");
        socket.note_sign();
        assert!(socket.pass(&[0x89, 0], at(1000)).is_ok());
        assert!(socket.pass(&[0x89, 0], at(2000)).is_err());
        assert_eq!(RelayedSocket::new(&held, Some(9)).name(), Some(9));
    }
}
