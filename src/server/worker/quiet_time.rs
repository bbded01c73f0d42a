//! How long a parked connection may be quiet before it counts as cold.

use crate::sys::os::monotonic::MonotonicTime;
use std::time::Duration;

/// Long enough for a client that is at work, short enough that idle ones do not pile up in the worker.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest time.
const LONGEST: Duration = Duration::from_secs(10);

/// From this number of connections on, each may have to wait for its turn, or its client for those of others.
const MANY: usize = 256;

/// A connection is cold if it is quiet for this multiple of the mean time between two of its turns.
const TIMES: u32 = 8;

/// The time for the connections of one worker.
pub struct QuietTime {
    limit: Duration,
    /// How many turns there were, since when.
    turns: u32,
    since: MonotonicTime,
}

impl QuietTime {
    /// The shortest time.
    pub fn new(now: MonotonicTime) -> Self {
        QuietTime { limit: SHORTEST, turns: 0, since: now }
    }

    /// After this, a quiet connection is cold.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// One of that many connections had its turn.
    pub fn note_turn(&mut self, connections: usize, now: MonotonicTime) {
        self.turns += 1;
        let passed = now.saturating_duration_since(self.since);
        if passed >= SHORTEST {
            self.limit = limit(connections, self.turns, passed);
            (self.turns, self.since) = (0, now);
        }
    }
}

fn limit(connections: usize, turns: u32, passed: Duration) -> Duration {
    if connections < MANY {
        return SHORTEST;
    }
    let connections = u32::try_from(connections).unwrap_or(u32::MAX);
    let mean = passed.saturating_mul(connections) / turns.max(1);
    mean.saturating_mul(TIMES).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_connections_may_be_quiet_for_longer_if_each_has_few_turns() {
        let second = Duration::from_secs(1);
        assert_eq!(limit(5, 1, second), SHORTEST);
        assert_eq!(limit(2_000, 40_000, second), SHORTEST);
        assert_eq!(limit(5_000, 20_000, second), 2 * second);
        assert_eq!(limit(5_000, 5_000, 2 * second), LONGEST);
        assert_eq!(limit(5_000, 0, second), LONGEST);
    }

    #[test]
    fn the_time_follows_what_was_counted() {
        let start = MonotonicTime::now();
        let mut quiet = QuietTime::new(start);
        (0..1000).for_each(|_| quiet.note_turn(1000, start));
        assert_eq!(quiet.limit(), SHORTEST);
        quiet.note_turn(1000, start + 2 * SHORTEST);
        assert!(quiet.limit() > 10 * SHORTEST / 2 && quiet.limit() <= LONGEST);
        (0..9000).for_each(|_| quiet.note_turn(1000, start + 2 * SHORTEST));
        quiet.note_turn(1000, start + 3 * SHORTEST);
        assert_eq!(quiet.limit(), SHORTEST);
    }
}
