//! Whether a pool is full: all workers it may have are busy, and something waits. A pure policy over
//! looks and instants.

use std::time::{Duration, Instant};

/// How often a pool is looked at that has as many workers as it may.
const LOOK: Duration = Duration::from_secs(1);

/// How soon again where it seems to be full, and how often in a row it must: a moment is no news.
const CONFIRM: Duration = Duration::from_millis(250);
const LOOKS: u32 = 5;

/// How often the log tells that a pool is full.
const TELL: Duration = Duration::from_secs(60);

/// What was seen of a pool.
#[derive(Debug)]
pub struct Fullness {
    next: Instant,
    /// At how many looks in a row it seemed to be full.
    seemed: u32,
    told: Option<Instant>,
}

impl Fullness {
    /// A pool that has not been looked at.
    pub fn new(now: Instant) -> Self {
        Fullness { next: now, seemed: 0, told: None }
    }

    /// When to look (again).
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Notes a look; whether the log is to tell that the pool is full.
    pub fn note(&mut self, full: bool, now: Instant) -> bool {
        self.seemed = if full { self.seemed.saturating_add(1) } else { 0 };
        let confirmed = self.seemed >= LOOKS;
        self.next = now + if full && !confirmed { CONFIRM } else { LOOK };
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
        let mut fullness = Fullness::new(start);
        for seems in [true, true, true, true, false, true, true, true, true] {
            let now = fullness.next();
            assert!(!fullness.note(seems, now));
            assert_eq!(fullness.next(), now + if seems { CONFIRM } else { LOOK });
        }
        let now = fullness.next();
        assert!(fullness.note(true, now));
    }

    #[test]
    fn the_log_tells_it_once_a_minute() {
        let start = Instant::now();
        let mut fullness = Fullness::new(start);
        let told = (0..150).filter(|second| fullness.note(true, start + LOOK * *second));
        assert_eq!(told.collect::<Vec<u32>>(), [4, 64, 124]);
    }
}
