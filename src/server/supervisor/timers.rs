//! When interval and main listeners run: pure bookkeeping over instants.

use std::time::{Duration, Instant};

use crate::server::ipc::clock;
use crate::server::ipc::generation::JobState;
use crate::server::listen::listener::Listener;
use crate::server::listen::spec::ListenerSpec;

/// The interval and main listeners of a pool. Each is named by its position among all listeners.
pub struct Timers(Vec<Timer>);

impl Timers {
    /// The timers of these listeners.
    pub fn new(listeners: &[Listener], now: Instant) -> Self {
        let timer = |(index, listener): (usize, &Listener)| match &listener.spec {
            ListenerSpec::Interval { delay, strict, .. } => {
                Some(Timer::interval(index as u32, *delay, *strict, now))
            }
            ListenerSpec::Main { .. } => Some(Timer::main(index as u32, now)),
            _ => None,
        };
        Timers(listeners.iter().enumerate().filter_map(timer).collect())
    }

    /// Lets the time come to `now`. Returns when the next tick is due.
    pub fn advance(&mut self, now: Instant) -> Option<Instant> {
        self.0.iter_mut().filter_map(|timer| timer.advance(now)).min()
    }

    /// A listener whose tick waits for a worker.
    pub fn due(&self) -> Option<u32> {
        self.0
            .iter()
            .find(|timer| matches!(timer.state, TimerState::Due(_)))
            .map(|timer| timer.listener)
    }

    /// A worker runs that listener's handler.
    pub fn started(&mut self, listener: u32) {
        self.with(listener, Timer::started);
    }

    /// The worker that was to run the handler has not begun: the tick is due as before.
    pub fn take_back(&mut self, listener: u32) {
        self.with(listener, Timer::take_back);
    }

    /// The handler returned, threw, or its worker died. True if it was that of a main listener, with
    /// which the server ends.
    pub fn ended(&mut self, listener: u32, now: Instant) -> bool {
        self.with(listener, |timer| {
            timer.ended(now);
            timer.repeat.is_none()
        })
        .unwrap_or(false)
    }

    /// No further ticks: the server shuts down. Handlers that run are not affected.
    pub fn give_up(&mut self) {
        self.0.iter_mut().for_each(Timer::give_up);
    }

    /// Where each listener stands, by its position.
    pub fn states(&self) -> impl Iterator<Item = (u32, JobState)> {
        self.0.iter().filter_map(|timer| {
            let state = match timer.state {
                TimerState::Waiting(due) | TimerState::Due(due) => {
                    JobState::Due(clock::milliseconds(due))
                }
                TimerState::Running(_) | TimerState::Held => JobState::Running,
                TimerState::Done => return None,
            };
            Some((timer.listener, state))
        })
    }

    /// The previous generation says where the same listener stands there. As long as it runs, it does not
    /// run here; an interval keeps its time, unless it has become shorter.
    pub fn inherit(&mut self, listener: u32, state: JobState, now: Instant) {
        self.with(listener, |timer| match (state, timer.repeat) {
            (JobState::Running, _) => timer.state = TimerState::Held,
            (JobState::Due(at), Some(repeat)) => {
                let due = clock::instant(at).min(now + repeat.delay);
                timer.state = TimerState::Waiting(due);
            }
            (JobState::Due(_), None) => {}
            (JobState::Ended, _) => timer.release(now),
        });
    }

    /// The previous generation is gone: nothing runs there any more.
    pub fn release(&mut self, now: Instant) {
        self.0.iter_mut().for_each(|timer| timer.release(now));
    }

    fn with<T>(&mut self, listener: u32, act: impl FnOnce(&mut Timer) -> T) -> Option<T> {
        self.0.iter_mut().find(|timer| timer.listener == listener).map(act)
    }
}

/// What a timer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimerState {
    /// The next tick is due at this time.
    Waiting(Instant),
    /// The tick that was due at this time waits for a worker.
    Due(Instant),
    /// The handler for the tick that was due at this time runs.
    Running(Instant),
    /// The handler runs in the previous generation of the server.
    Held,
    /// There is no further tick.
    Done,
}

/// One interval listener, or a main listener, which ticks once.
#[derive(Debug, Clone)]
struct Timer {
    /// Position of the listener in its pool.
    listener: u32,
    repeat: Option<Repeat>,
    state: TimerState,
}

#[derive(Debug, Clone, Copy)]
struct Repeat {
    delay: Duration,
    strict: bool,
}

impl Timer {
    /// A timer whose first tick is one `delay` from `now`.
    fn interval(listener: u32, delay: Duration, strict: bool, now: Instant) -> Self {
        Timer {
            listener,
            repeat: Some(Repeat { delay, strict }),
            state: TimerState::Waiting(now + delay),
        }
    }

    /// A main listener: due at once, and once.
    fn main(listener: u32, now: Instant) -> Self {
        Timer { listener, repeat: None, state: TimerState::Due(now) }
    }

    /// Lets the time come to `now`; gives when the next tick is due.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        if let TimerState::Waiting(due) = self.state {
            if due > now {
                return Some(due);
            }
            self.state = TimerState::Due(due);
        }
        None
    }

    /// The handler has ended in the previous generation.
    fn release(&mut self, now: Instant) {
        if self.state == TimerState::Held {
            self.state = match self.repeat {
                None => TimerState::Due(now),
                Some(repeat) => TimerState::Waiting(now + repeat.delay),
            };
        }
    }

    /// A worker runs the handler.
    fn started(&mut self) {
        if let TimerState::Due(due) = self.state {
            self.state = TimerState::Running(due);
        }
    }

    /// The worker that was to run the handler has not begun: the tick is due as before.
    fn take_back(&mut self) {
        if let TimerState::Running(due) = self.state {
            self.state = TimerState::Due(due);
        }
    }

    /// No further tick: the server shuts down. A handler that runs is not affected.
    fn give_up(&mut self) {
        if !matches!(self.state, TimerState::Running(_)) {
            self.state = TimerState::Done;
        }
    }

    /// The handler returned, threw, or its worker died. A strict timer keeps its rhythm but never
    /// catches up on missed ticks.
    fn ended(&mut self, now: Instant) {
        if let TimerState::Running(due) = self.state {
            self.state = match self.repeat {
                None => TimerState::Done,
                Some(Repeat { delay, strict: true }) => TimerState::Waiting((due + delay).max(now)),
                Some(Repeat { delay, strict: false }) => TimerState::Waiting(now + delay),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::listen::dry_run::DryRun;
    use crate::server::listen::inherited::Inheritance;

    const SECOND: Duration = Duration::from_secs(1);

    fn interval(delay: Duration) -> ListenerSpec {
        ListenerSpec::Interval { name: String::new(), delay, strict: false }
    }

    fn listener(spec: ListenerSpec) -> Listener {
        Listener::check(1, spec, &Inheritance::default(), &DryRun::default()).unwrap()
    }

    #[test]
    fn the_first_tick_comes_after_one_delay() {
        let start = Instant::now();
        let mut timer = Timer::interval(0, SECOND, false, start);
        assert_eq!(timer.advance(start), Some(start + SECOND));
        assert_eq!(timer.advance(start + SECOND), None);
        assert!(matches!(timer.state, TimerState::Due(_)));
    }

    #[test]
    fn the_run_time_delays_the_next_tick_unless_strict() {
        let start = Instant::now();
        for (strict, next) in [(false, 3), (true, 2)] {
            let mut timer = Timer::interval(0, SECOND, strict, start);
            timer.advance(start + SECOND);
            timer.started();
            assert!(!matches!(timer.state, TimerState::Due(_)));
            timer.ended(start + 2 * SECOND);
            assert_eq!(timer.state, TimerState::Waiting(start + next * SECOND));
        }
    }

    #[test]
    fn missed_ticks_of_a_strict_timer_are_not_made_up() {
        let start = Instant::now();
        let mut timer = Timer::interval(0, SECOND, true, start);
        timer.advance(start + SECOND);
        timer.started();
        timer.ended(start + 10 * SECOND);
        assert_eq!(timer.state, TimerState::Waiting(start + 10 * SECOND));
    }

    #[test]
    fn what_runs_in_the_previous_generation_does_not_run_here() {
        clock::start();
        let start = Instant::now();
        let listeners =
            [listener(ListenerSpec::Main { name: String::new() }), listener(interval(SECOND))];
        let mut timers = Timers::new(&listeners, start);
        timers.inherit(0, JobState::Running, start);
        timers.inherit(1, JobState::Running, start);
        assert_eq!(timers.advance(start + 9 * SECOND), None);
        assert_eq!(timers.due(), None);
        assert!(timers.states().all(|(_, state)| state == JobState::Running));
        timers.inherit(1, JobState::Ended, start + 9 * SECOND);
        assert_eq!(timers.advance(start + 9 * SECOND), Some(start + 10 * SECOND));
        timers.release(start + 9 * SECOND);
        assert_eq!(timers.due(), Some(0));
    }

    #[test]
    fn an_interval_keeps_its_time_across_generations() {
        clock::start();
        let start = clock::instant(clock::milliseconds(Instant::now()));
        let listeners = [listener(interval(9 * SECOND))];
        let at = |time| JobState::Due(clock::milliseconds(start + time));
        for (due, next) in [(4 * SECOND, 4 * SECOND), (99 * SECOND, 9 * SECOND)] {
            let mut timers = Timers::new(&listeners, start);
            timers.inherit(0, at(due), start);
            assert_eq!(timers.advance(start), Some(start + next));
        }
    }

    #[test]
    fn a_main_listener_runs_once() {
        let start = Instant::now();
        let mut timer = Timer::main(3, start);
        assert!(matches!(timer.state, TimerState::Due(_)));
        timer.started();
        timer.ended(start + SECOND);
        assert_eq!(timer.state, TimerState::Done);
        assert!(!matches!(timer.state, TimerState::Due(_)));
    }
}
