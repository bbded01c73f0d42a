//! What a handler decides about its connection.

use std::time::Duration;

use crate::server::ipc::connection_state::{Then, Unsent};

/// How long a client may take nothing of the output that is queued for it, unless the handler says
/// otherwise.
pub const STALL: Duration = Duration::from_secs(60);

/// What becomes of a connection when its handler has returned and its output is sent. The client may
/// take nothing of that for the time `stall`, if there is one; then the connection is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It is closed.
    Close,
    /// The push process has it, with its output, from then on.
    Hold,
    /// It is parked from then on, for so long if there is a limit.
    Park { timeout: Option<Duration>, stall: Option<Duration> },
    /// Its output is finished; from then on its input is discarded until the client's end, or for so long.
    Linger { timeout: Duration, stall: Option<Duration> },
}

impl Disposition {
    /// How long the client may take nothing of the output.
    pub fn stall(self) -> Option<Duration> {
        match self {
            Disposition::Close | Disposition::Hold => Some(STALL),
            Disposition::Park { stall, .. } | Disposition::Linger { stall, .. } => stall,
        }
    }

    /// What another process has to do, which gets the last `bytes` of output, or a `file` up to that position.
    pub fn unsent(self, bytes: usize, file: Option<u64>) -> Unsent {
        let then = match self {
            // What is held does not wait for its output here.
            Disposition::Close | Disposition::Hold => Then::Close,
            Disposition::Park { timeout, .. } => Then::Park(timeout.map(milliseconds)),
            Disposition::Linger { timeout, .. } => Then::Linger(milliseconds(timeout)),
        };
        Unsent { bytes: bytes as u64, file, then, stall: self.stall().map(milliseconds) }
    }

    /// What another process has left to be done.
    pub fn left(unsent: &Unsent) -> Self {
        let time = Duration::from_millis;
        let stall = unsent.stall.map(time);
        match unsent.then {
            Then::Close => Disposition::Close,
            Then::Park(timeout) => Disposition::Park { timeout: timeout.map(time), stall },
            Then::Linger(timeout) => Disposition::Linger { timeout: time(timeout), stall },
        }
    }
}

/// A time as messages tell it.
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_has_as_much_time_as_this_one_had() {
        let second = Duration::from_secs(1);
        let stall = Some(5 * second);
        for disposition in [
            Disposition::Close,
            Disposition::Park { timeout: Some(second), stall },
            Disposition::Park { timeout: None, stall: None },
            Disposition::Linger { timeout: second, stall },
        ] {
            assert_eq!(Disposition::left(&disposition.unsent(3, None)), disposition);
        }
    }
}
