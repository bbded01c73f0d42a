//! After which time a silent connection counts as cold.

use std::time::{Duration, Instant};

/// Long enough for a client that is at work, short enough that idle ones do not pile up in the worker.
const USUAL: Duration = Duration::from_secs(1);

/// The longest time.
const LONGEST: Duration = Duration::from_secs(10);

/// With so many connections, each may have to wait for its turn, or its client for those of others.
const MANY: usize = 256;

/// A connection that is silent for so many times as long as is usual between two turns is cold.
const TIMES: u32 = 8;

/// The time for the connections of one worker.
pub struct Cooling {
    limit: Duration,
    /// What has been counted, since when.
    turns: u32,
    since: Instant,
}

impl Cooling {
    /// The usual time.
    pub fn new(now: Instant) -> Self {
        Cooling { limit: USUAL, turns: 0, since: now }
    }

    /// After this, a silent connection is cold.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// One of so many connections had its turn.
    pub fn note_turn(&mut self, connections: usize, now: Instant) {
        self.turns += 1;
        let passed = now.saturating_duration_since(self.since);
        if passed >= USUAL {
            self.limit = limit(connections, self.turns, passed);
            (self.turns, self.since) = (0, now);
        }
    }
}

fn limit(connections: usize, turns: u32, passed: Duration) -> Duration {
    if connections < MANY {
        return USUAL;
    }
    let connections = u32::try_from(connections).unwrap_or(u32::MAX);
    let usual = passed.saturating_mul(connections) / turns.max(1);
    usual.saturating_mul(TIMES).clamp(USUAL, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_connections_cool_later_if_each_has_few_turns() {
        let second = Duration::from_secs(1);
        assert_eq!(limit(5, 1, second), USUAL);
        assert_eq!(limit(2_000, 40_000, second), USUAL);
        assert_eq!(limit(5_000, 20_000, second), 2 * second);
        assert_eq!(limit(5_000, 5_000, 2 * second), LONGEST);
        assert_eq!(limit(5_000, 0, second), LONGEST);
    }

    #[test]
    fn the_time_follows_what_was_counted() {
        let start = Instant::now();
        let mut cooling = Cooling::new(start);
        (0..1000).for_each(|_| cooling.note_turn(1000, start));
        assert_eq!(cooling.limit(), USUAL);
        cooling.note_turn(1000, start + 2 * USUAL);
        assert!(cooling.limit() > 10 * USUAL / 2 && cooling.limit() <= LONGEST);
        (0..9000).for_each(|_| cooling.note_turn(1000, start + 2 * USUAL));
        cooling.note_turn(1000, start + 3 * USUAL);
        assert_eq!(cooling.limit(), USUAL);
    }
}
