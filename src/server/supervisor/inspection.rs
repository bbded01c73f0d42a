//! What the supervisor tells about its pools: in shared memory, on SIGUSR2, in the statistics.

use std::time::Instant;

use super::{Phase, Supervisor};
use crate::server::ipc::scoreboard::{Counter, Total};
use crate::server::operator::log::Level;
use crate::server::operator::status::PoolStatus;

impl Supervisor {
    /// Puts into shared memory what only the supervisor knows; logs worker counts that have changed
    /// if statistics are wanted.
    pub(super) fn publish(&mut self) {
        for worker in self.workers.values_mut() {
            let orders: Vec<String> = worker.journal.iter_mut().flat_map(std::mem::take).collect();
            for text in orders {
                self.log.line(Level::Debug, &worker.prefix(), &text);
            }
        }
        for (index, state) in self.pools.iter_mut().enumerate() {
            let (mut workers, mut parked) = (0, self.lobby.waiting_in(index) + state.callers.len());
            for worker in self.workers.values().filter(|worker| worker.pool == index) {
                workers += 1;
                let alone = state.pool.scoreboard.cell(worker.cell).get(Counter::Parked);
                parked += worker.leases.len() + usize::try_from(alone).unwrap_or(0);
            }
            let board = &state.pool.scoreboard;
            board.publish(Total::Workers, workers);
            board.publish(Total::Parked, parked as u64);
            board.publish(Total::Accepted, state.totals.accepted);
            board.publish(Total::Handled, state.totals.handled);
            board.publish(Total::Errors, state.totals.errors);
            board.publish(Total::Respawns, state.totals.respawns);
            board.publish(Total::Shed, state.totals.shed);
            board.publish(Total::Reclaimed, state.totals.reclaimed);
            board.publish(Total::Lost, state.totals.lost);
            let counted = (workers, state.totals.ended);
            if self.log.logs(Level::Stats) && counted != state.logged {
                state.logged = counted;
                let status = PoolStatus::of(board);
                self.log.stats(&format!("Pool #{}: {status}", state.pool.number));
            }
        }
    }

    /// Tells the service manager how far the server is; when to do so again.
    pub(super) fn notify(&mut self, now: Instant) -> Option<Instant> {
        if self.phase != Phase::Serving {
            self.notifier.stopping();
        } else if self.notifier.awaits_readiness() {
            let serves = |index: usize| {
                self.workers.values().any(|worker| worker.pool == index && worker.has_served)
            };
            if (0..self.pools.len()).all(serves) {
                self.notifier.ready();
            }
        }
        self.notifier.feed(now)
    }

    /// The figures of all pools, for the operator.
    pub(super) fn log_status(&mut self) {
        self.publish();
        for state in &self.pools {
            let status = PoolStatus::of(&state.pool.scoreboard);
            self.log.notice(&format!("Status of pool #{}: {status}", state.pool.number));
        }
    }
}
