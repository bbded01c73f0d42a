//! Events that the log mentions once a minute, with their number.

use std::time::{Duration, Instant};

/// The log mentions them this often at most.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// What has happened since the last mention.
#[derive(Debug, Default)]
pub struct LogThrottle {
    mentioned: Option<Instant>,
    count: usize,
}

impl LogThrottle {
    /// Counts `more` events. Returns the number to be logged now, if it is time.
    pub fn count(&mut self, more: usize, now: Instant) -> Option<usize> {
        self.count += more;
        if self.mentioned.is_some_and(|mentioned| now < mentioned + INTERVAL) {
            return None;
        }
        self.mentioned = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_logged_once_in_a_while() {
        let mut throttle = LogThrottle::default();
        let now = Instant::now();
        assert_eq!(throttle.count(3, now), Some(3));
        assert_eq!(throttle.count(4, now), None);
        assert_eq!(throttle.count(5, now + INTERVAL), Some(9));
    }
}
