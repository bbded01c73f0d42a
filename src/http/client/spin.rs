//! Adaptive spinning: whether to poll for a response for a moment before sleeping.
//!
//! Waking a sleeping thread takes tens of microseconds on an otherwise idle processor, more than a
//! server on the same machine needs for its answer. Polling costs as much processor time as it takes,
//! so it must be likely to succeed: the client polls only where the last responses on the connection
//! came quickly, and only for as long as waking up would take.

use std::time::Duration;

/// How long to poll at most.
pub const SPIN_TIME: Duration = Duration::from_micros(50);

/// A response came in time if it came within this time although the thread slept, waking included.
const WAKE_TIME: Duration = Duration::from_micros(100);

/// Credit from which on polling is worth it.
const ENOUGH: i8 = 2;
/// The highest credit.
const MOST: i8 = 8;
/// What a failed attempt costs.
const LOSS: i8 = 6;
/// The credit after a failed attempt that leaves less than enough.
const BACKOFF: i8 = -16;

/// What the last responses on a connection say about the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdaptiveSpin {
    credit: i8,
}

impl AdaptiveSpin {
    /// Whether to poll for the next response before sleeping.
    pub fn spins(self) -> bool {
        self.credit >= ENOUGH
    }

    /// Takes into account how long a response took; `spun`: the client polled for it.
    ///
    /// A response that came late although the client polled means that other processes want the
    /// processor: then sleeping is better, too.
    #[must_use]
    pub fn after(self, took: Duration, spun: bool) -> AdaptiveSpin {
        let in_time = took <= if spun { SPIN_TIME } else { WAKE_TIME };
        let credit = match (in_time, spun) {
            (true, _) => self.credit.saturating_add(1).min(MOST),
            (false, true) if self.credit - LOSS < ENOUGH => BACKOFF,
            (false, true) => self.credit - LOSS,
            (false, false) => self.credit.min(0),
        };
        AdaptiveSpin { credit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` responses, each after `micros`, the client polls for.
    fn polled(count: usize, micros: impl Fn(usize) -> u64) -> usize {
        let mut spin = AdaptiveSpin::default();
        let polled = (0..count).filter(|&index| {
            let spins = spin.spins();
            spin = spin.after(Duration::from_micros(micros(index)), spins);
            spins
        });
        polled.count()
    }

    #[test]
    fn quick_responses_are_polled_for_after_the_first_ones() {
        assert_eq!(polled(100, |_| 20), 98);
    }

    #[test]
    fn slow_responses_are_never_polled_for() {
        assert_eq!(polled(100, |_| 200), 0);
    }

    #[test]
    fn a_server_that_has_become_slow_costs_two_attempts() {
        let before = polled(50, |_| 20);
        assert_eq!(polled(100, |index| if index < 50 { 20 } else { 500 }), before + 2);
    }

    #[test]
    fn responses_that_come_a_little_too_late_are_seldom_polled_for() {
        assert_eq!(polled(100, |_| 80), 6);
    }

    #[test]
    fn a_late_response_among_quick_ones_changes_nothing() {
        assert_eq!(polled(100, |index| if index % 10 == 9 { 5000 } else { 20 }), 98);
    }
}
