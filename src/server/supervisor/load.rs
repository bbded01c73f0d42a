//! How busy workers are, and whether they leave processors for others.

use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use crate::server::supervisor::progress::{Clock, Progress, Times};

/// A handler that has had so much of the time between two samples keeps its worker's other connections
/// waiting. Less than the sampling interval, since the kernel counts in ticks of some milliseconds.
const LONG: Duration = Duration::from_millis(14);

/// How busy a worker is, between two samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// It was idle at one of them.
    HasTime,
    /// It was busy both times.
    Busy,
    /// It was busy both times with the same turn, and did not just wait for a processor.
    Stuck,
}

/// What a worker was busy with at the last sample.
#[derive(Default)]
pub struct LoadSampler {
    turn: Option<u64>,
    progress: Progress,
}

impl LoadSampler {
    /// The load since the last sample. `turn`: what the worker is busy with, if it is.
    pub fn sample(&mut self, turn: Option<u64>, clock: &mut Clock, now: Instant) -> Load {
        let before = std::mem::replace(&mut self.turn, turn);
        if turn.is_none() {
            return Load::HasTime;
        }
        if before == turn {
            let had = self.progress.sample(clock, now);
            return if had >= LONG { Load::Stuck } else { Load::Busy };
        }
        self.progress.begin(clock, now);
        if before.is_some() { Load::Busy } else { Load::HasTime }
    }
}

/// For how long is measured what workers demand of the processors.
const WINDOW: Duration = Duration::from_millis(100);

/// A window that has become so long tells nothing about now.
const STALE: Duration = Duration::from_millis(500);

/// What all workers together demand of the processors: the time in which they run, or are ready to.
pub struct Demand {
    /// How many processors this process may use.
    pub processors: usize,
    /// The times of all workers, at the beginning of the window.
    before: Option<(Instant, Times)>,
    leaves_some: bool,
}

impl Default for Demand {
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        Demand { processors, before: None, leaves_some: false }
    }
}

impl Demand {
    /// Whether workers left at least half a processor in the last complete window. `times` gives the sum
    /// of their times. A window in which a worker has ended, so that the sum is less, does not count.
    pub fn leaves_some(&mut self, now: Instant, times: impl FnOnce() -> Times) -> bool {
        let passed = self.before.map(|(since, _)| now.saturating_duration_since(since));
        if passed.is_some_and(|passed| passed < WINDOW) {
            return self.leaves_some;
        }
        let times = times();
        if let (Some((_, before)), Some(passed)) = (self.before.replace((now, times)), passed) {
            let Times { ran, waited } = times.since(before);
            let most = passed.mul_f64(self.processors as f64 - 0.5);
            let counts = passed < STALE && times.ran >= before.ran;
            self.leaves_some = counts && ran + waited <= most;
        }
        self.leaves_some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_stuck_if_it_sleeps_in_one_turn() {
        // A process that does not exist: all time counts.
        let mut clock = Clock::new(nix::unistd::Pid::from_raw(i32::MAX));
        let start = Instant::now();
        let mut sampler = LoadSampler::default();
        let mut sample =
            |turn, at| sampler.sample(turn, &mut clock, start + Duration::from_millis(at));
        assert_eq!(sample(None, 0), Load::HasTime);
        assert_eq!(sample(Some(1), 20), Load::HasTime);
        assert_eq!(sample(Some(2), 40), Load::Busy);
        assert_eq!(sample(Some(2), 60), Load::Stuck);
        assert_eq!(sample(Some(2), 80), Load::Stuck);
        assert_eq!(sample(Some(3), 100), Load::Busy);
        assert_eq!(sample(None, 120), Load::HasTime);
    }

    #[test]
    fn half_a_processor_that_workers_leave_counts() {
        let start = Instant::now();
        let mut demand = Demand { processors: 2, ..Demand::default() };
        let mut leaves_some = |at, ran, waited| {
            let ms = Duration::from_millis;
            demand.leaves_some(start + ms(at), || Times { ran: ms(ran), waited: ms(waited) })
        };
        assert!(!leaves_some(0, 1000, 0), "nothing is known");
        assert!(!leaves_some(50, 1000, 0), "the window is not over");
        assert!(leaves_some(100, 1100, 50));
        assert!(leaves_some(150, 1300, 50), "the last window counts");
        assert!(!leaves_some(200, 1220, 90), "160 of 200 ms");
        assert!(!leaves_some(900, 1220, 90), "what was long ago says nothing about now");
    }
}
