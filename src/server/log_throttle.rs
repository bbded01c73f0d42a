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
        let count = self.rest()?;
        self.mentioned = Some(now);
        Some(count)
    }

    /// When events that are not mentioned yet will be; then count none.
    pub fn due(&self) -> Option<Instant> {
        self.mentioned.filter(|_| self.count > 0).map(|mentioned| mentioned + INTERVAL)
    }

    /// Nothing more will happen: the number of events that are not mentioned yet, if there are any.
    pub fn rest(&mut self) -> Option<usize> {
        Some(std::mem::take(&mut self.count)).filter(|count| *count > 0)
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
        assert_eq!(throttle.due(), None);
        assert_eq!(throttle.count(4, now), None);
        assert_eq!(throttle.due(), Some(now + INTERVAL));
        assert_eq!(throttle.count(5, now + INTERVAL), Some(9));
        assert_eq!(throttle.count(0, now + 2 * INTERVAL), None);
        assert_eq!((throttle.rest(), throttle.due()), (None, None));
        assert_eq!(throttle.count(1, now + 2 * INTERVAL), Some(1));
        assert_eq!(throttle.count(2, now + 2 * INTERVAL), None);
        assert_eq!((throttle.rest(), throttle.rest()), (Some(2), None));
    }
}
