//! The clock that supervisor and workers share, also those of later generations: monotonic milliseconds.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollTimeout;

use crate::sys::os::monotonic::MonotonicTime;

/// When the clock was started, also as a time of the monotonic clock.
static START: OnceLock<(Instant, MonotonicTime)> = OnceLock::new();

fn start_now() -> (Instant, MonotonicTime) {
    (Instant::now(), MonotonicTime::now())
}

/// Starts the clock, in the supervisor, before the first fork: workers inherit it.
pub fn start() {
    START.get_or_init(start_now);
}

/// Starts the clock as another process has, in a later generation of the same server: at this time, as
/// [`started`] gives it.
pub fn start_at(started: MonotonicTime) {
    let (now, monotonic) = start_now();
    let age = monotonic.saturating_duration_since(started);
    START.get_or_init(|| (now.checked_sub(age).unwrap_or(now), started.min(monotonic)));
}

/// When the clock was started.
pub fn started() -> MonotonicTime {
    START.get_or_init(start_now).1
}

/// Milliseconds between the start of the clock and `at`.
pub fn milliseconds(at: Instant) -> u64 {
    let (start, _) = *START.get_or_init(start_now);
    u64::try_from(at.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX)
}

/// The instant that many milliseconds after the start of the clock.
pub fn instant(milliseconds: u64) -> Instant {
    let (start, _) = *START.get_or_init(start_now);
    // A worker may have scribbled over the number: never overflow.
    start.checked_add(Duration::from_millis(milliseconds)).unwrap_or(start)
}

/// As [`milliseconds`], of a time of the monotonic clock.
pub fn monotonic_milliseconds(at: MonotonicTime) -> u64 {
    at.nanoseconds().saturating_sub(started().nanoseconds()) / 1_000_000
}

/// The time of the monotonic clock that many milliseconds after the start of the clock.
pub fn monotonic_at(milliseconds: u64) -> MonotonicTime {
    started() + Duration::from_millis(milliseconds)
}

/// How long an event loop sleeps: rounded up, so that nothing is due too early; without a time, forever.
pub fn timeout(wait: Option<Duration>) -> EpollTimeout {
    let Some(wait) = wait else { return EpollTimeout::NONE };
    // In 64 bits: whole microseconds of a `Duration` have 128, which cost a call to divide.
    let parts = u64::from(wait.subsec_nanos().div_ceil(1_000_000));
    let milliseconds = wait.as_secs().saturating_mul(1000).saturating_add(parts);
    EpollTimeout::try_from(i32::try_from(milliseconds).unwrap_or(i32::MAX))
        .unwrap_or(EpollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up() {
        let wait = |nanoseconds| timeout(Some(Duration::from_nanos(nanoseconds)));
        assert_eq!(wait(0), EpollTimeout::ZERO);
        assert_eq!(wait(1), EpollTimeout::from(1u16));
        assert_eq!(wait(1_000_000), EpollTimeout::from(1u16));
        assert_eq!(wait(2_000_000_001), EpollTimeout::from(2001u16));
        assert_eq!(wait(u64::MAX), EpollTimeout::MAX);
        assert_eq!(timeout(None), EpollTimeout::NONE);
    }

    #[test]
    fn both_kinds_of_times_have_the_same_milliseconds() {
        let (instant, monotonic) = start_now();
        let (one, other) = (milliseconds(instant), monotonic_milliseconds(monotonic));
        assert!(one.abs_diff(other) <= 1);
        assert_eq!(monotonic_milliseconds(monotonic_at(other + 5)), other + 5);
    }
}
