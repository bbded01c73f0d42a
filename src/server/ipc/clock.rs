//! The clock that supervisor and workers share: monotonic milliseconds.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollTimeout;

static START: OnceLock<Instant> = OnceLock::new();

/// Starts the clock, in the supervisor, before the first fork: workers inherit it.
pub fn start() {
    START.get_or_init(Instant::now);
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
