//! When a worker makes Lua forget what it knew of a crowd of connections that has left (pure). Lua collects garbage as
//! the application makes new objects, which an idle worker does not.

use std::time::Duration;

use crate::sys::os::monotonic::MonotonicTime;

/// The share of its time that a worker may use for that: one part of so many.
const SHARE: u32 = 100;

/// What is to be done, and when.
pub struct Tidying {
    is_wanted: bool,
    /// Not before.
    from: MonotonicTime,
}

impl Tidying {
    /// Nothing is to be done yet.
    pub fn new(now: MonotonicTime) -> Self {
        Tidying { is_wanted: false, from: now }
    }

    /// A crowd has left.
    pub fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Whether a worker that has nothing else to do is to tidy up.
    #[inline(always)]
    pub fn is_due(&self, now: MonotonicTime) -> bool {
        self.is_wanted && self.from <= now
    }

    /// That is done, and has taken a while.
    pub fn done(&mut self, begun: MonotonicTime, now: MonotonicTime) {
        let taken: Duration = now.saturating_duration_since(begun);
        *self = Tidying { is_wanted: false, from: now + taken * SHARE };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_once_for_each_crowd_and_takes_a_small_share_of_the_time() {
        let start = MonotonicTime::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut tidying = Tidying::new(start);
        assert!(!tidying.is_due(at(0)));
        tidying.want();
        assert!(tidying.is_due(at(0)));
        tidying.done(at(0), at(10));
        assert!(!tidying.is_due(at(2000)));
        tidying.want();
        assert!(!tidying.is_due(at(1009)) && tidying.is_due(at(1010)));
    }
}
