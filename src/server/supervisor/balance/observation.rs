//! What workers and their leased connections do, between two looks.

use std::time::Instant;

use super::super::occupation::Pace;
use crate::server::ipc::scoreboard::Activity;
use crate::server::ipc::ticket::Ticket;
use crate::server::supervisor::Supervisor;

/// Connections count as equally hot up to this factor.
const FACTOR: f64 = 8.0;

/// A worker between two looks.
pub struct Paced {
    /// Its process id.
    pub pid: i32,
    /// The position of its pool.
    pub pool: usize,
    /// How many connections it has on lease.
    pub leases: usize,
    /// How it stands.
    pub pace: Pace,
}

/// A connection on lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// The position of its worker.
    pub worker: usize,
    /// Its ticket there.
    pub ticket: Ticket,
    /// Its turns since the last look.
    pub turns: u64,
}

impl Supervisor {
    /// How each worker stands since the last call.
    pub(in crate::server::supervisor) fn paces(&mut self, now: Instant) -> Vec<Paced> {
        let mut paces = Vec::with_capacity(self.workers.len());
        for (pid, worker) in &mut self.workers {
            let cell = self.pools[worker.pool].pool.scoreboard.cell(worker.cell);
            let turn = (cell.activity() == Activity::Busy).then(|| cell.turns());
            let pace = worker.occupation.look(turn, worker.pid, now);
            let (pool, leases) = (worker.pool, worker.leases.len());
            paces.push(Paced { pid: *pid, pool, leases, pace });
        }
        paces
    }

    /// The pool's leased connections, and what they did since they were last looked at.
    pub(in crate::server::supervisor) fn observe(
        &mut self,
        pool: usize,
        workers: &[&Paced],
    ) -> Vec<Observed> {
        let leases = &self.pools[pool].pool.leases;
        let mut observed = Vec::new();
        for (worker, paced) in workers.iter().enumerate() {
            let Some(entry) = self.workers.get_mut(&paced.pid) else { continue };
            let cell = entry.cell;
            for (ticket, lent) in &mut entry.leases {
                let Some(lease) = leases.lease(cell, ticket.index()) else { continue };
                let before = std::mem::replace(&mut lent.turns, lease.turns());
                let turns = lent.turns.saturating_sub(before);
                observed.push(Observed { worker, ticket: *ticket, turns });
            }
        }
        observed
    }
}

/// How many turns the connection had, on average over all turns, whose turn it was: what makes most
/// of the work counts, not what there is most of.
pub fn usual(observed: &[Observed]) -> f64 {
    let sum: f64 = observed.iter().map(|connection| connection.turns as f64).sum();
    let squares: f64 = observed.iter().map(|connection| (connection.turns as f64).powi(2)).sum();
    squares / sum.max(1.0)
}

/// Whether a connection with so many turns makes about as much work as is usual.
pub fn is_hot(turns: u64, usual: f64) -> bool {
    turns > 0 && (usual / FACTOR..=usual * FACTOR).contains(&(turns as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hot(turns: &[u64]) -> Vec<u64> {
        let observed = |turns: &u64| Observed { worker: 0, ticket: Ticket::of(0), turns: *turns };
        let usual = usual(&turns.iter().map(observed).collect::<Vec<_>>());
        turns.iter().copied().filter(|turns| is_hot(*turns, usual)).collect()
    }

    #[test]
    fn only_connections_that_make_most_of_the_work_are_hot() {
        assert_eq!(hot(&[1000, 900, 300, 3, 2, 1, 0]), [1000, 900, 300]);
        assert_eq!(hot(&[7; 3]), [7; 3]);
        assert_eq!(hot(&[0; 3]), []);
        assert_eq!(hot(&[]), []);
        let mut many = vec![1; 500];
        many.push(10_000);
        assert_eq!(hot(&many), [10_000]);
    }
}
