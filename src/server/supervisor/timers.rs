//! When interval and main listeners run: pure bookkeeping over instants.

use std::time::{Duration, Instant};

/// Where a timer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The next tick is due at this time.
    Waiting(Instant),
    /// The tick that was due at this time waits for a worker.
    Due(Instant),
    /// The handler for the tick that was due at this time runs.
    Running(Instant),
    /// There is no further tick.
    Done,
}

/// One interval listener, or a main listener, which ticks once.
#[derive(Debug, Clone)]
pub struct Timer {
    /// Position of the listener in its pool.
    pub listener: u32,
    repeat: Option<Repeat>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
struct Repeat {
    delay: Duration,
    strict: bool,
}

impl Timer {
    /// A timer whose first tick is one `delay` from `now`.
    pub fn interval(listener: u32, delay: Duration, strict: bool, now: Instant) -> Self {
        Timer {
            listener,
            repeat: Some(Repeat { delay, strict }),
            phase: Phase::Waiting(now + delay),
        }
    }

    /// A main listener: due at once, and once.
    pub fn main(listener: u32, now: Instant) -> Self {
        Timer { listener, repeat: None, phase: Phase::Due(now) }
    }

    /// Whether this is a main listener, with which the server ends.
    pub fn is_main(&self) -> bool {
        self.repeat.is_none()
    }

    /// Where the timer stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a tick waits for a worker.
    pub fn is_due(&self) -> bool {
        matches!(self.phase, Phase::Due(_))
    }

    /// Lets the time come to `now`; returns when the timer must be looked at next.
    pub fn advance(&mut self, now: Instant) -> Option<Instant> {
        if let Phase::Waiting(due) = self.phase {
            if due > now {
                return Some(due);
            }
            self.phase = Phase::Due(due);
        }
        None
    }

    /// A worker runs the handler.
    pub fn started(&mut self) {
        if let Phase::Due(due) = self.phase {
            self.phase = Phase::Running(due);
        }
    }

    /// The worker that was to run the handler has not begun: the tick is due as before.
    pub fn take_back(&mut self) {
        if let Phase::Running(due) = self.phase {
            self.phase = Phase::Due(due);
        }
    }

    /// No further tick: the server shuts down. A handler that runs is not affected.
    pub fn give_up(&mut self) {
        if !matches!(self.phase, Phase::Running(_)) {
            self.phase = Phase::Done;
        }
    }

    /// The handler returned, threw, or its worker died. A strict timer keeps its rhythm but never
    /// catches up on missed ticks.
    pub fn ended(&mut self, now: Instant) {
        if let Phase::Running(due) = self.phase {
            self.phase = match self.repeat {
                None => Phase::Done,
                Some(Repeat { delay, strict: true }) => Phase::Waiting((due + delay).max(now)),
                Some(Repeat { delay, strict: false }) => Phase::Waiting(now + delay),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_tick_comes_after_one_delay() {
        let start = Instant::now();
        let mut timer = Timer::interval(0, SECOND, false, start);
        assert_eq!(timer.advance(start), Some(start + SECOND));
        assert_eq!(timer.advance(start + SECOND), None);
        assert!(timer.is_due());
    }

    #[test]
    fn the_run_time_delays_the_next_tick_unless_strict() {
        let start = Instant::now();
        for (strict, next) in [(false, 3), (true, 2)] {
            let mut timer = Timer::interval(0, SECOND, strict, start);
            timer.advance(start + SECOND);
            timer.started();
            assert!(!timer.is_due());
            timer.ended(start + 2 * SECOND);
            assert_eq!(timer.phase(), Phase::Waiting(start + next * SECOND));
        }
    }

    #[test]
    fn missed_ticks_of_a_strict_timer_are_not_made_up() {
        let start = Instant::now();
        let mut timer = Timer::interval(0, SECOND, true, start);
        timer.advance(start + SECOND);
        timer.started();
        timer.ended(start + 10 * SECOND);
        assert_eq!(timer.phase(), Phase::Waiting(start + 10 * SECOND));
    }

    #[test]
    fn a_main_listener_runs_once() {
        let start = Instant::now();
        let mut timer = Timer::main(3, start);
        assert!(timer.is_due());
        timer.started();
        timer.ended(start + SECOND);
        assert_eq!(timer.phase(), Phase::Done);
        assert!(!timer.is_due());
    }
}
