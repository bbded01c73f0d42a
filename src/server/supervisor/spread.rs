//! Which workers have too many connections: those that are stuck in a handler, and those that have
//! much more than others.

use std::time::Instant;

use super::super::guest::Reserved;
use super::super::scoreboard::Activity;
use super::heat::Observed;
use super::{PATIENCE, Phase, Supervisor};

/// How a worker stands, between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// It was idle at one of them.
    HasTime,
    /// It was busy both times, with different turns.
    Busy,
    /// It was busy both times with the same turn.
    Stuck,
}

/// A worker, its pool, its connections, and how it stands.
pub(super) struct Paced {
    pub pid: i32,
    pub pool: usize,
    pub leases: usize,
    pub pace: Pace,
}

impl Supervisor {
    /// Takes connections from workers whose handler runs for long, and from busy workers that have
    /// much more of them than others.
    ///
    /// Those that are busy while others have time give some away only if a processor has time, too:
    /// else more processes would only be in each other's way.
    pub(super) fn relieve(&mut self, now: Instant) {
        if self.phase != Phase::Serving || self.workers.values().all(|w| w.leases.is_empty()) {
            self.next_round = None;
            return;
        }
        match self.next_round {
            Some(round) if round > now => return,
            _ => self.next_round = Some(now + PATIENCE),
        }
        let paces = self.paces();
        let mut has_time = vec![false; self.pools.len()];
        for paced in paces.iter().filter(|paced| paced.pace == Pace::HasTime) {
            has_time[paced.pool] = true;
        }
        let mut surplus = Vec::new();
        for &Paced { pid, pool, leases, pace } in &paces {
            let share = match pace {
                Pace::HasTime => continue,
                Pace::Stuck => 0,
                Pace::Busy => self.pools[pool].fair_share(),
            };
            let unfair = pace == Pace::Stuck || !has_time[pool] || leases > 2 * share;
            if leases > share + share / 4 && (unfair || self.processors.any_idle(now) == Some(true))
            {
                surplus.push((pid, leases - share));
            }
        }
        if surplus.is_empty() {
            self.feel(&paces, now);
        }
        for (pid, count) in surplus {
            self.revoke_leases(pid, count);
        }
        self.count_leases();
    }

    /// A worker that is busy for several hot connections gives half of them to one that has time and
    /// none of them, if a processor has time, too.
    pub(super) fn share_out(&mut self, workers: &[&Paced], hot: &[Observed], now: Instant) {
        let count = |worker: usize| hot.iter().filter(|c| c.worker == worker).count();
        let with =
            |pace: Pace| (0..workers.len()).filter(move |worker| workers[*worker].pace == pace);
        let busy: Vec<usize> = with(Pace::Busy).filter(|worker| count(*worker) > 1).collect();
        let free: Vec<usize> = with(Pace::HasTime).filter(|worker| count(*worker) == 0).collect();
        if busy.is_empty() || free.is_empty() || self.processors.any_idle(now) != Some(true) {
            return;
        }
        for (from, to) in busy.into_iter().zip(free) {
            let reserved = Reserved::For(workers[to].pid, now + PATIENCE);
            for connection in hot.iter().filter(|c| c.worker == from).take(count(from) / 2) {
                self.reassign(workers[from].pid, connection.ticket, reserved);
            }
        }
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
                _ => Pace::HasTime,
            };
            let (pool, leases) = (worker.pool, worker.leases.len());
            paces.push(Paced { pid: *pid, pool, leases, pace });
        }
        paces
    }

    /// Finds out how many connections a worker of each pool has on average.
    fn count_leases(&mut self) {
        for (index, state) in self.pools.iter_mut().enumerate() {
            let serving = self.workers.values().filter(|w| w.pool == index && w.is_serving());
            let (workers, leases) =
                serving.fold((0, 0), |(count, sum), worker| (count + 1, sum + worker.leases.len()));
            state.note_leases(workers, leases);
        }
    }
}
