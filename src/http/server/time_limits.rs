//! The time limits of a turn.

use std::time::Duration;

use crate::amount::MAX_SECONDS;

/// The time limits of a turn (reference, "HTTP module"); `None`: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeLimits {
    /// `idle_timeout`
    pub idle: Option<Duration>,
    /// `request_header_timeout`
    pub header: Option<Duration>,
    /// `stall_timeout`
    pub stall: Option<Duration>,
    /// `request_body_timeout`
    pub body: Option<Duration>,
    /// `request_body_minimum_rate`, in bytes a second.
    pub rate: Option<f64>,
    /// `drain_timeout`
    pub drain: Option<Duration>,
}

impl TimeLimits {
    /// How long a body is waited for of which so many bytes are missing, before the handler is called.
    pub fn of_body(&self, missing: u64) -> Option<Duration> {
        let (Some(limit), Some(rate)) = (self.body, self.rate) else { return self.stall };
        let stall = self.stall.map_or(limit, |stall| stall.min(limit)).as_secs_f64();
        let seconds = (stall + missing as f64 / rate).min(MAX_SECONDS);
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_waited_for_longer_the_more_is_missing() {
        let second = Duration::from_secs;
        let times =
            TimeLimits { body: Some(second(20)), rate: Some(500.0), ..TimeLimits::default() };
        assert_eq!(times.of_body(0), Some(second(20)));
        assert_eq!(times.of_body(5000), Some(second(30)));
        let times = TimeLimits { stall: Some(second(5)), ..times };
        assert_eq!(times.of_body(5000), Some(second(15)));
        assert_eq!(TimeLimits { rate: None, ..times }.of_body(5000), Some(second(5)));
    }
}
