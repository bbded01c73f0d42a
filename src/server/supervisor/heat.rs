//! Which connections make most of the work, and what follows from it.

use std::time::{Duration, Instant};

use super::super::parking::Ticket;
use super::Supervisor;
use super::spread::Paced;

/// How often is looked, for each [`LOOKED_AT`] connections: looking costs less than a microsecond
/// for each.
const INTERVAL: Duration = Duration::from_millis(50);

/// So many connections are looked at in one interval.
const LOOKED_AT: usize = 256;

/// With fewer turns in a second, it does not matter to a connection where its packets come in.
const BRISK: f64 = 100.0;

/// Connections count as equally hot up to this factor.
const FACTOR: f64 = 8.0;

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
    /// Looks, from time to time, which connections of each pool are hot, and lets them go to other
    /// workers where that helps.
    pub(super) fn feel(&mut self, paces: &[Paced], now: Instant) {
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

    /// The pool's leased connections, and what they did since they were last looked at.
    fn observe(&mut self, pool: usize, workers: &[&Paced]) -> Vec<Observed> {
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
fn usual(observed: &[Observed]) -> f64 {
    let sum: f64 = observed.iter().map(|connection| connection.turns as f64).sum();
    let squares: f64 = observed.iter().map(|connection| (connection.turns as f64).powi(2)).sum();
    squares / sum.max(1.0)
}

fn is_hot(turns: u64, usual: f64) -> bool {
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
