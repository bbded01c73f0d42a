//! How a worker stands, from look to look.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::stretch::Stretch;

/// A handler that has had so much of the time between two looks keeps its worker's other connections
/// waiting. Less than [`crate::server::supervisor::PATIENCE`], since the kernel counts in ticks of some
/// milliseconds.
const LONG: Duration = Duration::from_millis(14);

/// How a worker stands, between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// It was idle at one of them.
    HasTime,
    /// It was busy both times.
    Busy,
    /// It was busy both times with the same turn, and got on with it: it did not just wait for a
    /// processor.
    Stuck,
}

/// What a worker was busy with when it was last looked at.
#[derive(Default)]
pub struct Occupation {
    turn: Option<u64>,
    stretch: Stretch,
}

impl Occupation {
    /// The worker is busy with this turn, if it is.
    pub fn look(&mut self, turn: Option<u64>, pid: Pid, now: Instant) -> Pace {
        let before = std::mem::replace(&mut self.turn, turn);
        if turn.is_none() {
            return Pace::HasTime;
        }
        if before == turn {
            let had = self.stretch.look(pid, now);
            return if had >= LONG { Pace::Stuck } else { Pace::Busy };
        }
        self.stretch.begin(pid, now);
        if before.is_some() { Pace::Busy } else { Pace::HasTime }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_stuck_if_it_sleeps_in_one_turn() {
        // A process that does not exist: all time counts.
        let pid = Pid::from_raw(i32::MAX);
        let start = Instant::now();
        let at = |time| start + Duration::from_millis(time);
        let mut occupation = Occupation::default();
        assert_eq!(occupation.look(None, pid, at(0)), Pace::HasTime);
        assert_eq!(occupation.look(Some(1), pid, at(20)), Pace::HasTime);
        assert_eq!(occupation.look(Some(2), pid, at(40)), Pace::Busy);
        assert_eq!(occupation.look(Some(2), pid, at(60)), Pace::Stuck);
        assert_eq!(occupation.look(Some(2), pid, at(80)), Pace::Stuck);
        assert_eq!(occupation.look(Some(3), pid, at(100)), Pace::Busy);
        assert_eq!(occupation.look(None, pid, at(120)), Pace::HasTime);
    }
}
