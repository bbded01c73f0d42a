//! The time limits of a turn.

use std::time::Duration;

use crate::amount::MAX_SECONDS;
use crate::server::ipc::held_state::Rules;

/// For how long a client may go on sending outside a worker (see
/// `src/server/supervisor/handover/lingering.rs`).
const SENDING: Duration = Duration::from_secs(30);

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
    /// How long to wait for a body of which `missing` bytes have yet to come, before the handler is called.
    pub fn of_body(&self, missing: u64) -> Option<Duration> {
        let (Some(limit), Some(rate)) = (self.body, self.rate) else { return self.stall };
        let stall = self.stall.map_or(limit, |stall| stall.min(limit)).as_secs_f64();
        let seconds = (stall + missing as f64 / rate).min(MAX_SECONDS);
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// How long to discard a client's input after a response, outside of a server.
    pub fn of_lingering(&self) -> Option<Duration> {
        self.drain.map(|drain| drain.max(SENDING))
    }

    /// Bounds a connection that is held.
    pub fn bound_hold(&self, rules: &mut Rules) {
        rules.idle = self.idle.map(milliseconds);
        rules.drain = self.drain.map_or(u64::from(u32::MAX), milliseconds);
        rules.stall = self.stall.map(milliseconds);
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
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

    #[test]
    fn a_held_connection_is_bounded_by_what_bounds_others() {
        let times = TimeLimits { idle: Some(Duration::from_secs(2)), ..TimeLimits::default() };
        let mut rules = Rules::default();
        times.bound_hold(&mut rules);
        assert_eq!((rules.idle, rules.stall), (Some(2000), None));
        assert_eq!((rules.drain, times.of_lingering()), (u64::from(u32::MAX), None));
        let times = TimeLimits { drain: Some(Duration::from_secs(60)), ..times };
        assert_eq!(times.of_lingering(), Some(Duration::from_secs(60)));
    }
}
