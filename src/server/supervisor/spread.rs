//! Which workers have too many connections: those that are stuck in a handler, and those that have
//! much more than others.

use std::time::Instant;

use super::super::scoreboard::Activity;
use super::{PATIENCE, Phase, Supervisor};

/// How a worker stands, between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// It is idle.
    Idle,
    /// It is busy, and was idle at the look before.
    Awake,
    /// It was busy both times, with different turns.
    Busy,
    /// It was busy both times with the same turn.
    Stuck,
}

impl Pace {
    /// Whether it was idle at one of the looks.
    fn has_time(self) -> bool {
        matches!(self, Pace::Idle | Pace::Awake)
    }
}

/// A worker, its pool, its connections, and how it stands.
struct Paced {
    pid: i32,
    pool: usize,
    leases: usize,
    pace: Pace,
}

impl Paced {
    /// How many connections it gives away, if `share` is what a worker of its pool has on average.
    ///
    /// Who has connections to give while others have time gives them only if a processor has time,
    /// too: else more processes would only be in each other's way.
    fn surplus(
        &self,
        share: usize,
        others_have_time: bool,
        processor_has_time: impl FnOnce() -> bool,
    ) -> usize {
        let keeps = if self.pace == Pace::Stuck { 0 } else { share };
        if self.leases <= keeps + keeps / 4 {
            return 0;
        }
        let gives = match self.pace {
            Pace::Idle => false,
            Pace::Awake => others_have_time && processor_has_time(),
            Pace::Busy => !others_have_time || self.leases > 2 * share || processor_has_time(),
            Pace::Stuck => true,
        };
        if gives { self.leases - keeps } else { 0 }
    }
}

impl Supervisor {
    /// Takes connections from workers whose handler runs for long, and from busy workers that have
    /// much more of them than others.
    pub(super) fn relieve(&mut self, now: Instant) {
        if self.phase != Phase::Serving || self.workers.values().all(|w| w.leases.is_empty()) {
            self.next_round = None;
            return;
        }
        match self.next_round {
            Some(round) if round > now => return,
            _ => self.next_round = Some(now + PATIENCE),
        }
        let shares = self.shares();
        let paces = self.paces();
        let mut with_time = vec![0; self.pools.len()];
        for paced in paces.iter().filter(|paced| paced.pace.has_time()) {
            with_time[paced.pool] += 1;
        }
        for paced in paces {
            let others_with_time = with_time[paced.pool] - usize::from(paced.pace.has_time());
            let processors = &mut self.processors;
            let surplus = paced.surplus(shares[paced.pool], others_with_time > 0, || {
                processors.any_idle(now) == Some(true)
            });
            if surplus > 0 {
                self.revoke_leases(paced.pid, surplus);
            }
        }
    }

    /// How many connections a worker of each pool has on average, rounded up; one at least.
    fn shares(&self) -> Vec<usize> {
        let share = |pool| {
            let serving = self.workers.values().filter(|w| w.pool == pool && w.is_serving());
            let (workers, leases) =
                serving.fold((0, 0), |(count, sum), worker| (count + 1, sum + worker.leases.len()));
            leases.div_ceil(workers.max(1)).max(1)
        };
        (0..self.pools.len()).map(share).collect()
    }

    /// How each worker stands since the last call.
    fn paces(&mut self) -> Vec<Paced> {
        let mut paces = Vec::with_capacity(self.workers.len());
        for (pid, worker) in &mut self.workers {
            let cell = self.pools[worker.pool].pool.scoreboard.cell(worker.cell);
            let turn = (cell.activity() == Activity::Busy).then(|| cell.turns());
            let before = std::mem::replace(&mut worker.last_turn, turn);
            let pace = match (before, turn) {
                (Some(before), Some(turn)) if before == turn => Pace::Stuck,
                (Some(_), Some(_)) => Pace::Busy,
                (None, Some(_)) => Pace::Awake,
                (_, None) => Pace::Idle,
            };
            let (pool, leases) = (worker.pool, worker.leases.len());
            paces.push(Paced { pid: *pid, pool, leases, pace });
        }
        paces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESSORS: [bool; 2] = [false, true];

    fn surplus(pace: Pace, leases: usize, others_have_time: bool, processor: bool) -> usize {
        Paced { pid: 1, pool: 0, leases, pace }.surplus(8, others_have_time, || processor)
    }

    #[test]
    fn who_is_idle_gives_nothing_and_who_is_stuck_gives_all() {
        for processor in PROCESSORS {
            for others in [false, true] {
                assert_eq!(surplus(Pace::Idle, 16, others, processor), 0);
                assert_eq!(surplus(Pace::Stuck, 16, others, processor), 16);
                assert_eq!(surplus(Pace::Stuck, 0, others, processor), 0);
            }
        }
    }

    #[test]
    fn a_quarter_more_than_the_share_is_no_surplus() {
        for pace in [Pace::Awake, Pace::Busy] {
            assert_eq!(surplus(pace, 10, true, true), 0);
            assert_eq!(surplus(pace, 11, true, true), 3);
        }
    }

    #[test]
    fn a_surplus_needs_somebody_with_time_and_a_processor() {
        assert_eq!(surplus(Pace::Awake, 16, true, true), 8);
        assert_eq!(surplus(Pace::Awake, 16, true, false), 0);
        assert_eq!(surplus(Pace::Awake, 16, false, true), 0);
        assert_eq!(surplus(Pace::Busy, 16, true, true), 8);
        assert_eq!(surplus(Pace::Busy, 16, true, false), 0);
    }

    #[test]
    fn among_busy_workers_and_beyond_twice_the_share_it_does_not() {
        for processor in PROCESSORS {
            assert_eq!(surplus(Pace::Busy, 16, false, processor), 8);
            assert_eq!(surplus(Pace::Busy, 17, true, processor), 9);
        }
    }
}
