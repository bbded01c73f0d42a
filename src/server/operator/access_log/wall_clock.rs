//! From the monotonic clock, which all processes share, to the local time.

use super::moment::Moment;
use crate::sys::os::calendar::{self, LocalTime};
use crate::sys::os::monotonic::MonotonicTime;

/// Microseconds.
const SECOND: u64 = 1_000_000;

/// The local time. The last second is kept.
pub struct WallClock {
    /// Microseconds from the start of the monotonic clock to that of the epoch.
    difference: u64,
    /// When the second begins, in microseconds since the epoch; a time that never comes: none is kept.
    second: u64,
    moment: Moment,
}

impl WallClock {
    /// Set by the system's clock.
    pub fn new() -> Self {
        let moment = Moment::new(LocalTime::default());
        let mut clock = WallClock { difference: 0, second: u64::MAX, moment };
        clock.set();
        clock
    }

    /// Sets it anew.
    pub fn set(&mut self) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(0));
        self.difference = now.saturating_sub(MonotonicTime::now().nanoseconds() / 1000);
        self.second = u64::MAX;
    }

    /// A time of the monotonic clock, in microseconds.
    pub fn at(&mut self, monotonic: u64) -> &Moment {
        let time = monotonic.wrapping_add(self.difference);
        let mut within = time.wrapping_sub(self.second);
        if within >= SECOND {
            within = time % SECOND;
            self.second = time - within;
            self.moment = Moment::new(calendar::local_time(time / SECOND));
        }
        self.moment.set_millisecond(within / 1000);
        &self.moment
    }
}
