//! Which workers have too many connections: those that are stuck in a handler, and those that have
//! much more than others.

use std::time::{Duration, Instant};

use super::super::guest::Reserved;
use super::super::occupation::Pace;
use super::observation::{Observed, Paced, is_hot, usual};
use crate::server::supervisor::{PATIENCE, Phase, Supervisor};

/// How often is looked, for each [`LOOKED_AT`] connections: looking costs less than a microsecond
/// for each.
const INTERVAL: Duration = Duration::from_millis(50);

/// So many connections are looked at in one interval.
const LOOKED_AT: usize = 256;

/// With fewer turns in a second, it does not matter to a connection where its packets come in.
const BRISK: f64 = 100.0;

/// When the connections are looked at.
pub struct Looks {
    /// How often they have been.
    pub count: u64,
    last: Instant,
    next: Instant,
}

impl Looks {
    /// The first look is soon.
    pub fn new(now: Instant) -> Self {
        Looks { count: 0, last: now, next: now }
    }
}

impl Supervisor {
    /// Takes connections from workers whose handler runs for long, and from busy workers that have
    /// much more of them than others.
    ///
    /// Those that are busy while others have time give some away only if a processor has time, too:
    /// else more processes would only be in each other's way.
    pub(in crate::server::supervisor) fn relieve(&mut self, now: Instant) {
        if self.phase != Phase::Serving || self.workers.values().all(|w| w.leases.is_empty()) {
            self.next_round = None;
            return;
        }
        match self.next_round {
            Some(round) if round > now => return,
            _ => self.next_round = Some(now + PATIENCE),
        }
        self.count_leases();
        let paces = self.paces(now);
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
        self.relieve_frozen(now);
        let mut revoked = 0;
        for (pid, count) in surplus {
            revoked += self.revoke_leases(pid, count);
        }
        // A worker that is stuck with what its handler has for long takes nothing from the others.
        if revoked == 0 {
            self.distribute(&paces, now);
        }
    }

    /// Looks, from time to time, which connections of each pool are hot, and lets them go to other
    /// workers where that helps.
    fn distribute(&mut self, paces: &[Paced], now: Instant) {
        if now < self.looks.next {
            return;
        }
        let passed = now.saturating_duration_since(self.looks.last);
        let leases: usize = self.workers.values().map(|worker| worker.leases.len()).sum();
        let interval = INTERVAL * (1 + leases / LOOKED_AT) as u32;
        self.looks = Looks { count: self.looks.count + 1, last: now, next: now + interval };
        for pool in 0..self.pools.len() {
            let serves = |pid| self.workers.get(&pid).is_some_and(|worker| worker.is_serving());
            let workers: Vec<&Paced> =
                paces.iter().filter(|paced| paced.pool == pool && serves(paced.pid)).collect();
            let mut observed = self.observe(pool, &workers);
            let usual = usual(&observed);
            observed.retain(|connection| is_hot(connection.turns, usual));
            // After a pause it is not known since when they had so many turns.
            if workers.len() < 2 || passed >= 2 * interval {
                continue;
            }
            if usual >= BRISK * passed.as_secs_f64() {
                self.gather(&workers, &observed, now);
            } else {
                self.share_out(&workers, &observed, now);
            }
        }
    }

    /// A worker that is busy for several hot connections gives half of them to one that has time and
    /// none of them, if a processor has time, too.
    fn share_out(&mut self, workers: &[&Paced], hot: &[Observed], now: Instant) {
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
