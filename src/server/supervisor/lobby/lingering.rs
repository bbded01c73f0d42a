//! Connections of the lobby that linger: their output is finished, and what still comes is discarded
//! until the client closes, or until it has had time enough for that.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::SockRef;

use super::super::guest::discard;
use crate::sys::os::socket_queues::unsent;

/// How long a lingering connection of a server that shuts down may still stay.
pub const LINGER_AT_SHUTDOWN: Duration = Duration::from_secs(2);

/// How long a lingering connection may stay, at most, because its client still sends: as long as
/// nginx's `lingering_time`.
pub const LINGER_WHILE_SENDING: Duration = Duration::from_secs(30);

/// How much is discarded at once.
const PIECE: usize = 16 * 1024;

/// A connection whose output is finished: what still comes is discarded until the client closes.
#[derive(Debug)]
pub struct Farewell {
    /// The connection.
    pub descriptor: OwnedFd,
    /// How long the client may be silent when it has received all.
    pub patience: Duration,
    /// How long it may receive nothing of what is left; none: as long as it likes.
    pub stall: Option<Duration>,
}

/// A connection that lingers, and how it stands with its client.
#[derive(Debug)]
pub struct Lingering {
    pub farewell: Farewell,
    /// Bytes that the client had not received at the last look, if there was one.
    unsent: Option<usize>,
    /// When it had last received some.
    received: Instant,
    /// Its client has sent something since the last look.
    heard: bool,
    /// Until when that counts.
    patience_ends: Instant,
    /// When to look again.
    pub until: Instant,
}

/// How soon a client that still receives is looked at again, at the least.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Lingering {
    /// From now on it lingers.
    pub fn new(farewell: Farewell, now: Instant) -> Self {
        let until = now.checked_add(farewell.patience).unwrap_or(now);
        let patience_ends = now + LINGER_WHILE_SENDING;
        Lingering { farewell, unsent: None, received: now, heard: false, patience_ends, until }
    }

    /// Whether the client has not received all.
    pub fn is_owed(&self) -> bool {
        unsent(self.farewell.descriptor.as_fd()) > 0
    }

    /// Discards input without looking at it; true if the client has closed. The connection then
    /// ends in order, where an early end (the time is up) resets it.
    pub fn discard(&mut self) -> bool {
        match discard(&self.farewell.descriptor, PIECE) {
            Ok(0) => {
                let _ = SockRef::from(&self.farewell.descriptor).set_linger(None);
                true
            }
            Ok(_) => {
                self.heard = true;
                false
            }
            Err(errno) => !matches!(errno, Errno::EAGAIN | Errno::EINTR),
        }
    }

    /// Its time is up: whether it may stay longer, because its client still sends, which does not
    /// count for ever, or still receives. A client that has received the last of it since the last
    /// look has time to close as well.
    pub fn stays(&mut self, now: Instant) -> bool {
        let Farewell { patience, stall, ref descriptor } = self.farewell;
        let left = unsent(descriptor.as_fd());
        let before = self.unsent.replace(left);
        if before.is_none_or(|before| left < before) {
            self.received = now;
        }
        let stalled = |stall| now.saturating_duration_since(self.received) >= stall;
        let receives = before.unwrap_or(left) > 0 && !stall.is_some_and(stalled);
        let sends = std::mem::take(&mut self.heard) && now < self.patience_ends;
        let wait = stall.map_or(patience, |stall| patience.min(stall)).max(LOOK_AGAIN);
        self.until = now.checked_add(wait).unwrap_or(now + LOOK_AGAIN);
        receives || sends
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn lingering(connection: UnixStream, now: Instant) -> Lingering {
        let (patience, stall) = (Duration::from_secs(1), Some(Duration::from_secs(5)));
        Lingering::new(Farewell { descriptor: connection.into(), patience, stall }, now)
    }

    #[test]
    fn a_connection_stays_as_long_as_its_client_receives() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        // Each piece leaves the system's buffer as a whole.
        (0..3).for_each(|_| ours.write_all(&[7; 1000]).unwrap());
        let mut lingering = lingering(ours, start);
        assert!(lingering.stays(at(1)));
        for second in [4, 8, 12] {
            theirs.read_exact(&mut [0; 1000]).unwrap();
            assert!(lingering.stays(at(second)), "it has received something");
        }
        assert!(!lingering.stays(at(13)), "it has received all and does not close");
    }

    #[test]
    fn a_connection_stays_as_long_as_its_client_sends_within_limits() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut lingering = lingering(ours, start);
        for second in [1, 2, 20] {
            theirs.write_all(b"x").unwrap();
            assert!(!lingering.discard(), "it has not closed");
            assert!(lingering.stays(at(second)));
        }
        assert!(!lingering.stays(at(21)), "it has sent nothing since");
        theirs.write_all(b"x").unwrap();
        assert!(!lingering.discard());
        assert!(!lingering.stays(at(30)), "it has had time enough");
    }

    #[test]
    fn a_client_that_receives_nothing_has_a_limited_time() {
        let start = Instant::now();
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"x").unwrap();
        let mut lingering = lingering(ours, start);
        assert!(lingering.stays(start + Duration::from_secs(1)));
        assert!(lingering.stays(start + Duration::from_secs(5)));
        assert!(!lingering.stays(start + Duration::from_secs(6)));
    }
}
