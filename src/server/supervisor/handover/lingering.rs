//! Connections of the lobby that linger: their output is finished, and what still comes is discarded
//! until the client closes, or until it has had time enough for that.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;

use crate::sys::os::socket_queues::unsent;

/// How long a lingering connection may stay, at most, because its client still sends: as long as
/// nginx's `lingering_time`.
const LINGER_WHILE_SENDING: Duration = Duration::from_secs(30);

/// How much is discarded at once.
const PIECE: usize = 16 * 1024;

/// The state of a lingering connection.
#[derive(Debug)]
pub struct Lingering {
    /// How long the client may be silent when it has received all.
    timeout: Duration,
    /// How long it may receive nothing of what is left; none: as long as it likes.
    stall: Option<Duration>,
    /// Bytes that the client had not received at the last check, if there was one.
    unsent: Option<usize>,
    /// When it had last received some.
    received: Instant,
    /// Its client has sent something since the last check.
    heard: bool,
    /// Until when that counts.
    heard_until: Instant,
    /// When to check again.
    pub until: Instant,
}

/// How soon a client that still receives is checked again, at the least.
const CHECK_AGAIN: Duration = Duration::from_millis(100);

impl Lingering {
    /// From now on it lingers: for `timeout`, as long as the client does nothing.
    pub fn new(timeout: Duration, stall: Option<Duration>, now: Instant) -> Self {
        let until = now.checked_add(timeout).unwrap_or(now);
        let heard_until = now + LINGER_WHILE_SENDING;
        Lingering { timeout, stall, unsent: None, received: now, heard: false, heard_until, until }
    }

    /// How many milliseconds it may receive nothing of what is left, if there is a limit.
    pub fn stall(&self) -> Option<u64> {
        self.stall.map(|stall| u64::try_from(stall.as_millis()).unwrap_or(u64::MAX))
    }

    /// Discards input; true if the client has closed. The connection then ends gracefully, where an
    /// early end (the time is up) resets it.
    pub fn discard(&mut self, connection: &OwnedFd) -> bool {
        match discard(connection, PIECE) {
            Ok(0) => {
                let _ = SockRef::from(connection).set_linger(None);
                true
            }
            Ok(_) => {
                self.heard = true;
                false
            }
            Err(errno) => !matches!(errno, Errno::EAGAIN | Errno::EINTR),
        }
    }

    /// Its time is up: whether it may stay longer, because its client still sends, which counts for
    /// a limited time, or still receives. A client that has received the last of it since the last
    /// check has time to close as well.
    pub fn stays(&mut self, connection: &OwnedFd, now: Instant) -> bool {
        let left = unsent(connection.as_fd());
        let before = self.unsent.replace(left);
        if before.is_none_or(|before| left < before) {
            self.received = now;
        }
        let stalled = |stall| now.saturating_duration_since(self.received) >= stall;
        let receives = before.unwrap_or(left) > 0 && !self.stall.is_some_and(stalled);
        let sends = std::mem::take(&mut self.heard) && now < self.heard_until;
        let wait = self.stall.map_or(self.timeout, |stall| self.timeout.min(stall));
        let wait = wait.max(CHECK_AGAIN);
        self.until = now.checked_add(wait).unwrap_or(now + CHECK_AGAIN);
        receives || sends
    }
}

/// At the end of the server, the kernel goes on sending what the client has not received.
pub fn leave_to_kernel(connection: &OwnedFd) {
    if unsent(connection.as_fd()) > 0 {
        let _ = SockRef::from(connection).set_linger(None);
    }
}

/// Receives and discards up to `limit` bytes, without blocking; how many, 0 at the end. The
/// amount is bounded: a client that sends without end must not keep the supervisor.
pub fn discard(connection: &OwnedFd, limit: usize) -> Result<usize, Errno> {
    let mut scrap = [0u8; PIECE];
    let scrap = &mut scrap[..limit.min(PIECE)];
    recv(connection.as_raw_fd(), scrap, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn lingering(now: Instant) -> Lingering {
        Lingering::new(Duration::from_secs(1), Some(Duration::from_secs(5)), now)
    }

    #[test]
    fn a_connection_stays_as_long_as_its_client_receives() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        // Each piece leaves the system's buffer as a whole.
        (0..3).for_each(|_| ours.write_all(&[7; 1000]).unwrap());
        let (ours, mut lingering) = (OwnedFd::from(ours), lingering(start));
        assert!(lingering.stays(&ours, at(1)));
        for second in [4, 8, 12] {
            theirs.read_exact(&mut [0; 1000]).unwrap();
            assert!(lingering.stays(&ours, at(second)), "it has received something");
        }
        assert!(!lingering.stays(&ours, at(13)), "it has received all and does not close");
    }

    #[test]
    fn a_connection_stays_as_long_as_its_client_sends_within_limits() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (ours, mut lingering) = (OwnedFd::from(ours), lingering(start));
        for second in [1, 2, 20] {
            theirs.write_all(b"x").unwrap();
            assert!(!lingering.discard(&ours), "it has not closed");
            assert!(lingering.stays(&ours, at(second)));
        }
        assert!(!lingering.stays(&ours, at(21)), "it has sent nothing since");
        theirs.write_all(b"x").unwrap();
        assert!(!lingering.discard(&ours));
        assert!(!lingering.stays(&ours, at(30)), "it has had time enough");
    }

    #[test]
    fn a_client_that_receives_nothing_has_a_limited_time() {
        let start = Instant::now();
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"x").unwrap();
        let (ours, mut lingering) = (OwnedFd::from(ours), lingering(start));
        assert!(lingering.stays(&ours, start + Duration::from_secs(1)));
        assert!(lingering.stays(&ours, start + Duration::from_secs(5)));
        assert!(!lingering.stays(&ours, start + Duration::from_secs(6)));
    }
}
