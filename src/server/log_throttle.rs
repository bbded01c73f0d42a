//! Events that the log mentions once a minute, with their number.

use std::time::{Duration, Instant};

/// The log mentions them this often at most.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// An occasion to mention events.
#[derive(Clone, Copy, Debug)]
pub struct Occasion {
    /// When it is.
    pub now: Instant,
    /// Nothing more will happen: what the log has not mentioned, it mentions now or never.
    pub is_last: bool,
}

impl Occasion {
    /// One of many.
    pub fn at(now: Instant) -> Self {
        Occasion { now, is_last: false }
    }

    /// The last one.
    pub fn last() -> Self {
        Occasion { now: Instant::now(), is_last: true }
    }
}

/// What has happened since the last mention.
#[derive(Debug, Default)]
pub struct LogThrottle {
    mentioned: Option<Instant>,
    count: usize,
}

impl LogThrottle {
    /// So many events have happened.
    pub fn note(&mut self, events: usize) {
        self.count = self.count.saturating_add(events);
    }

    /// The number of events to be mentioned on this occasion, if it is time.
    pub fn take(&mut self, occasion: Occasion) -> Option<usize> {
        let is_early = self.mentioned.is_some_and(|mentioned| occasion.now < mentioned + INTERVAL);
        if self.count == 0 || (is_early && !occasion.is_last) {
            return None;
        }
        self.mentioned = Some(occasion.now);
        Some(std::mem::take(&mut self.count))
    }

    /// When events that are not mentioned yet will be; then none needs to be noted.
    pub fn due(&self) -> Option<Instant> {
        self.mentioned.filter(|_| self.count > 0).map(|mentioned| mentioned + INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_logged_once_in_a_while() {
        let mut throttle = LogThrottle::default();
        let now = Instant::now();
        let mut take = |events, after| {
            throttle.note(events);
            (throttle.take(Occasion::at(now + after)), throttle.due())
        };
        let next = Some(now + INTERVAL);
        assert_eq!(take(3, Duration::ZERO), (Some(3), None));
        assert_eq!(take(4, Duration::ZERO), (None, next));
        assert_eq!(take(5, INTERVAL / 2), (None, next));
        assert_eq!(take(0, INTERVAL), (Some(9), None));
        assert_eq!(take(0, 2 * INTERVAL), (None, None));
        assert_eq!(take(1, 3 * INTERVAL), (Some(1), None));
        assert_eq!(take(2, 3 * INTERVAL), (None, Some(now + 4 * INTERVAL)));
        let last = Occasion { now: now + 3 * INTERVAL, is_last: true };
        assert_eq!((throttle.take(last), throttle.take(last)), (Some(2), None));
    }
}
