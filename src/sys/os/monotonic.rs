//! The monotonic clock, which all processes share. A time is one number: it is asked for, compared and
//! subtracted for each request, which costs several times as much with `std::time::Instant`.

use std::ops::Add;
use std::time::Duration;

/// A time of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonotonicTime(u64);

impl MonotonicTime {
    /// The present.
    #[inline]
    pub fn now() -> Self {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call stores the time in `now`. It does not fail with this clock.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
        MonotonicTime(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }

    /// The time at which the clock shows that many nanoseconds.
    #[inline]
    pub fn at(nanoseconds: u64) -> Self {
        MonotonicTime(nanoseconds)
    }

    /// What the clock shows, in nanoseconds.
    #[inline]
    pub fn nanoseconds(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was at this time; nothing if that was later.
    #[inline]
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// So long after a time; at most the end of the clock, in 500 years.
impl Add<Duration> for MonotonicTime {
    type Output = Self;

    #[inline]
    fn add(self, time: Duration) -> Self {
        let seconds = time.as_secs().saturating_mul(1_000_000_000);
        MonotonicTime(self.0.saturating_add(seconds).saturating_add(time.subsec_nanos().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let before = MonotonicTime::now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(MonotonicTime::now() >= before + Duration::from_millis(2));
    }

    #[test]
    fn times_neither_overflow_nor_become_negative() {
        let (early, late) = (MonotonicTime::at(5), MonotonicTime::at(1_000_000_007));
        assert_eq!(late.saturating_duration_since(early), Duration::new(1, 2));
        assert_eq!(early.saturating_duration_since(late), Duration::ZERO);
        assert_eq!(early + Duration::new(1, 2), late);
        assert_eq!(late + Duration::MAX, MonotonicTime::at(u64::MAX));
    }
}
