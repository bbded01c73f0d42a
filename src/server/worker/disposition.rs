//! What a handler decides about its connection.

use std::time::{Duration, Instant};

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
    /// It is parked, from now on until the deadline if there is one.
    Park {
        /// When the handler has decided that.
        now: Instant,
        deadline: Option<Instant>,
        stall: Option<Duration>,
    },
    /// Its output is finished; its input is discarded until the client's end or this time.
    Linger { until: Instant, stall: Option<Duration> },
}

impl Disposition {
    /// Parked from now on.
    pub fn park(timeout: Option<Duration>, stall: Option<Duration>) -> Self {
        let now = Instant::now();
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        Disposition::Park { now, deadline, stall }
    }

    /// How long the client may take nothing of the output.
    pub fn stall(self) -> Option<Duration> {
        match self {
            Disposition::Close => Some(STALL),
            Disposition::Park { stall, .. } | Disposition::Linger { stall, .. } => stall,
        }
    }

    /// The output is sent at `now`, and the handler had decided at `since`: the time begins again.
    pub fn begin(self, since: Instant, now: Instant) -> Self {
        let waited = now.saturating_duration_since(since);
        match self {
            Disposition::Close => Disposition::Close,
            Disposition::Park { deadline, stall, .. } => {
                let deadline = deadline.and_then(|deadline| deadline.checked_add(waited));
                Disposition::Park { now, deadline, stall }
            }
            Disposition::Linger { until, stall } => {
                Disposition::Linger { until: until.checked_add(waited).unwrap_or(until), stall }
            }
        }
    }

    /// What another process has to do, which gets the last `bytes` of output: the handler has decided
    /// at `since`.
    pub fn unsent(self, bytes: usize, since: Instant) -> Unsent {
        let time = |at: Instant| milliseconds(at.saturating_duration_since(since));
        let then = match self {
            Disposition::Close => Then::Close,
            Disposition::Park { deadline, .. } => Then::Park(deadline.map(time)),
            Disposition::Linger { until, .. } => Then::Linger(time(until)),
        };
        Unsent { bytes: bytes as u64, then, stall: self.stall().map(milliseconds) }
    }

    /// What another process has left to be done.
    pub fn left(unsent: &Unsent, now: Instant) -> Self {
        let stall = unsent.stall.map(Duration::from_millis);
        let after = |time: u64| now.checked_add(Duration::from_millis(time));
        match unsent.then {
            Then::Close => Disposition::Close,
            Then::Park(time) => Disposition::Park { now, deadline: time.and_then(after), stall },
            Then::Linger(time) => Disposition::Linger { until: after(time).unwrap_or(now), stall },
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
        let (since, second) = (Instant::now(), Duration::from_secs(1));
        let (deadline, stall) = (Some(since + second), Some(5 * second));
        for disposition in [
            Disposition::Close,
            Disposition::Park { now: since, deadline, stall },
            Disposition::Park { now: since, deadline: None, stall: None },
            Disposition::Linger { until: since + second, stall },
        ] {
            let later = since + 9 * second;
            let left = Disposition::left(&disposition.unsent(3, since), later);
            assert_eq!(left, disposition.begin(since, later));
        }
    }
}
