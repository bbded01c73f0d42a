//! Events that the log tells of once a minute, with their number.

use std::time::{Duration, Instant};

/// How often the log tells of them at most.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What has happened since the log was told.
#[derive(Debug, Default)]
pub struct Tally {
    told: Option<Instant>,
    count: usize,
}

impl Tally {
    /// So many more have happened. Gives how many the log is to tell of now, if it is to.
    pub fn tell(&mut self, more: usize, now: Instant) -> Option<usize> {
        self.count += more;
        if self.told.is_some_and(|told| now < told + TOLD_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_once_in_a_while() {
        let mut tally = Tally::default();
        let now = Instant::now();
        assert_eq!(tally.tell(3, now), Some(3));
        assert_eq!(tally.tell(4, now), None);
        assert_eq!(tally.tell(5, now + TOLD_EVERY), Some(9));
    }
}
