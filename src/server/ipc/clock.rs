//! The clock that supervisor and workers share, also those of later generations: monotonic milliseconds.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollTimeout;

use crate::sys::os::monotonic;

/// When the clock was started, also in nanoseconds of the monotonic clock.
static START: OnceLock<(Instant, u64)> = OnceLock::new();

fn start_now() -> (Instant, u64) {
    (Instant::now(), monotonic())
}

/// Starts the clock, in the supervisor, before the first fork: workers inherit it.
pub fn start() {
    START.get_or_init(start_now);
}

/// Starts the clock as another process has, in a later generation of the same server: at this time, as
/// [`started`] gives it.
pub fn start_at(nanoseconds: u64) {
    let (now, monotonic) = start_now();
    let age = Duration::from_nanos(monotonic.saturating_sub(nanoseconds));
    START.get_or_init(|| (now.checked_sub(age).unwrap_or(now), nanoseconds.min(monotonic)));
}

/// When the clock was started, in nanoseconds of the monotonic clock, which all processes share.
pub fn started() -> u64 {
    START.get_or_init(start_now).1
}

/// The monotonic clock, in nanoseconds.
#[inline]
pub fn monotonic() -> u64 {
    monotonic::nanoseconds()
}

/// Milliseconds between the start of the clock and `at`.
pub fn milliseconds(at: Instant) -> u64 {
    let (start, _) = *START.get_or_init(start_now);
    u64::try_from(at.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX)
}

/// The instant that lies so many milliseconds behind the start of the clock.
pub fn instant(milliseconds: u64) -> Instant {
    let (start, _) = *START.get_or_init(start_now);
    // A worker may have scribbled over the number: never overflow.
    start.checked_add(Duration::from_millis(milliseconds)).unwrap_or(start)
}

/// The same for a time of the monotonic clock, which costs less.
pub fn monotonic_milliseconds(nanoseconds: u64) -> u64 {
    let (_, start) = *START.get_or_init(start_now);
    nanoseconds.saturating_sub(start) / 1_000_000
}

/// The instant of a time of the monotonic clock.
pub fn monotonic_instant(nanoseconds: u64) -> Instant {
    let (instant, start) = *START.get_or_init(start_now);
    instant + Duration::from_nanos(nanoseconds.saturating_sub(start))
}

/// A time of the monotonic clock so many milliseconds behind the start of the clock.
pub fn monotonic_at(milliseconds: u64) -> u64 {
    let (_, start) = *START.get_or_init(start_now);
    start.saturating_add(milliseconds.saturating_mul(1_000_000))
}

/// How long an event loop waits until a time: rounded up, so that nothing is due too early.
pub fn timeout(wake: Option<Instant>, now: Instant) -> EpollTimeout {
    let Some(wake) = wake else { return EpollTimeout::NONE };
    if wake <= now {
        return EpollTimeout::ZERO;
    }
    let wait = wake.duration_since(now);
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
    fn a_wait_is_rounded_up_and_never_negative() {
        let now = Instant::now();
        let wait = |nanoseconds| timeout(Some(now + Duration::from_nanos(nanoseconds)), now);
        assert_eq!(wait(0), EpollTimeout::ZERO);
        assert_eq!(timeout(Some(now), now + Duration::from_secs(1)), EpollTimeout::ZERO);
        assert_eq!(wait(1), EpollTimeout::from(1u16));
        assert_eq!(wait(1_000_000), EpollTimeout::from(1u16));
        assert_eq!(wait(2_000_000_001), EpollTimeout::from(2001u16));
        assert_eq!(wait(u64::MAX), EpollTimeout::MAX);
        assert_eq!(timeout(None, now), EpollTimeout::NONE);
    }
}
