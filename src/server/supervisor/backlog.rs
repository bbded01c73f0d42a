//! What waits in the backlogs when the server shuts down.

use std::time::Instant;

use super::{Birth, Phase, Supervisor};

impl Supervisor {
    /// At a shutdown, workers serve the backlogs before they end. Where the last of them has ended
    /// for another reason (its handler did not return true), a new one goes on, also with output that
    /// the ended one has left. Gives the birth of one in the new process.
    pub(super) fn drain_backlogs(&mut self, now: Instant) -> Option<Box<Birth>> {
        if self.phase != Phase::Draining {
            return None;
        }
        for index in 0..self.pools.len() {
            let is_served = self.workers.values().any(|worker| worker.pool == index);
            let state = &mut self.pools[index];
            let owes = state.callers.iter().any(|guest| guest.unsent.is_some());
            if is_served || state.has_closed_ports() && !owes {
                continue;
            }
            if state.sizing.is_failing() || !owes && !state.has_backlog() {
                state.close_ports();
                continue;
            }
            state.forked_for_backlog();
            if let Some(birth) = self.fork(index, now) {
                return Some(birth);
            }
            for worker in self.workers.values_mut().filter(|worker| worker.pool == index) {
                worker.drain();
            }
        }
        None
    }
}
