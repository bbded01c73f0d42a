//! Tells the operator that a pool has too few workers, and what they are doing.

use std::time::Instant;

use super::Supervisor;
use super::doing::doing;
use crate::server::ipc::scoreboard::Activity;
use crate::server::operator::log::Level;

/// So many workers are named at most.
const NAMED: usize = 20;

impl Supervisor {
    /// Looks, from time to time, whether a pool is full. Tells when to look again; nothing if it can
    /// still grow.
    pub(super) fn look_for_fullness(&mut self, index: usize, now: Instant) -> Option<Instant> {
        let state = &mut self.pools[index];
        let limit = state.pool.config.max_fork;
        let total = self.workers.values().filter(|worker| worker.pool == index).count();
        if total < limit {
            return None;
        }
        if state.fullness.next() > now {
            return Some(state.fullness.next());
        }
        let mut has_time = false;
        for worker in self.workers.values_mut().filter(|worker| worker.pool == index) {
            let cell = state.pool.scoreboard.cell(worker.cell);
            worker.note_turns(cell.turns(), now);
            has_time |=
                matches!(cell.activity(), Activity::Idle | Activity::Claimed | Activity::Offering);
        }
        let is_full = !has_time && state.is_waited_for();
        if state.fullness.note(is_full, now) {
            self.tell_fullness(index, now);
        }
        Some(self.pools[index].fullness.next())
    }

    fn tell_fullness(&mut self, index: usize, now: Instant) {
        let state = &self.pools[index];
        let mut workers: Vec<_> =
            self.workers.values().filter(|worker| worker.pool == index).collect();
        workers.sort_by_key(|worker| worker.pid.as_raw());
        let (number, total) = (state.pool.number, workers.len());
        let text = format!(
            "Pool #{number} is full: its workers ({total}) are busy, and connections or jobs wait"
        );
        self.log.notice(&text);
        for worker in workers.iter().take(NAMED) {
            self.log.line(Level::Notice, &worker.prefix(), &doing(state, worker, now));
        }
        if total > NAMED {
            self.log.notice(&format!("and {} more", total - NAMED));
        }
    }
}
