//! The clock that supervisor and workers share, also those of later generations: monotonic milliseconds.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollTimeout;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

static START: OnceLock<Instant> = OnceLock::new();

/// Starts the clock, in the supervisor, before the first fork: workers inherit it.
pub fn start() {
    START.get_or_init(Instant::now);
}

/// Starts the clock as another process has, in a later generation of the same server: at this time, as
/// [`started`] gives it.
pub fn start_at(nanoseconds: u64) {
    let age = Duration::from_nanos(monotonic().saturating_sub(nanoseconds));
    let now = Instant::now();
    START.get_or_init(|| now.checked_sub(age).unwrap_or(now));
}

/// When the clock was started, in nanoseconds of the monotonic clock, which all processes share.
pub fn started() -> u64 {
    let age = START.get_or_init(Instant::now).elapsed().as_nanos();
    monotonic().saturating_sub(u64::try_from(age).unwrap_or(0))
}

/// The monotonic clock, in nanoseconds.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or(TimeSpec::new(0, 0));
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Milliseconds between the start of the clock and `at`.
pub fn milliseconds(at: Instant) -> u64 {
    let start = *START.get_or_init(Instant::now);
    u64::try_from(at.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX)
}

/// The instant that lies so many milliseconds behind the start of the clock.
pub fn instant(milliseconds: u64) -> Instant {
    let start = *START.get_or_init(Instant::now);
    // A worker may have scribbled over the number: never overflow.
    start.checked_add(Duration::from_millis(milliseconds)).unwrap_or(start)
}

/// How long an event loop waits until a time: rounded up, so that nothing is due too early.
pub fn timeout(wake: Option<Instant>, now: Instant) -> EpollTimeout {
    let Some(wake) = wake else { return EpollTimeout::NONE };
    let wait = wake.saturating_duration_since(now).as_micros().div_ceil(1000);
    EpollTimeout::try_from(i32::try_from(wait).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::MAX)
}
