//! Whether a pool is full: all workers it may have are busy, and something waits. A pure policy over
//! checks and instants.

use std::time::{Duration, Instant};

/// The interval of checks, for a pool that has as many workers as it may.
const CHECK: Duration = Duration::from_secs(1);

/// The interval while it seems to be full, and how often in a row it must: a moment is no news.
const CONFIRM: Duration = Duration::from_millis(250);
const CHECKS: u32 = 5;

/// The interval at which the log tells that a pool is full.
const TELL: Duration = Duration::from_secs(60);

/// What the checks of a pool found.
#[derive(Debug)]
pub struct Saturation {
    next: Instant,
    /// At how many checks in a row it seemed to be full.
    seemed: u32,
    told: Option<Instant>,
}

impl Saturation {
    /// A pool that has not been checked.
    pub fn new(now: Instant) -> Self {
        Saturation { next: now, seemed: 0, told: None }
    }

    /// When to check (again).
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Notes a check. Returns whether the log is to tell that the pool is full.
    pub fn note(&mut self, full: bool, now: Instant) -> bool {
        self.seemed = if full { self.seemed.saturating_add(1) } else { 0 };
        let confirmed = self.seemed >= CHECKS;
        self.next = now + if full && !confirmed { CONFIRM } else { CHECK };
        let tell = confirmed && self.told.is_none_or(|told| told + TELL <= now);
        if tell {
            self.told = Some(now);
        }
        tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_full_if_it_is_so_for_a_while() {
        let start = Instant::now();
        let mut saturation = Saturation::new(start);
        for seems in [true, true, true, true, false, true, true, true, true] {
            let now = saturation.next();
            assert!(!saturation.note(seems, now));
            assert_eq!(saturation.next(), now + if seems { CONFIRM } else { CHECK });
        }
        let now = saturation.next();
        assert!(saturation.note(true, now));
    }

    #[test]
    fn the_log_tells_it_once_a_minute() {
        let start = Instant::now();
        let mut saturation = Saturation::new(start);
        let told = (0..150).filter(|second| saturation.note(true, start + CHECK * *second));
        assert_eq!(told.collect::<Vec<u32>>(), [4, 64, 124]);
    }
}
