//! Hot connections whose packets come in at the same processor are brought together in one worker.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::{Duration, Instant};

use super::super::grouping::{Member, Step, regroup};
use super::super::guest::Reserved;
use super::super::parking::Ticket;
use super::spread::{Pace, Paced};
use super::{PATIENCE, Supervisor};

/// How often is looked, for each [`LOOKED_AT`] connections: looking costs less than a microsecond
/// for each.
const INTERVAL: Duration = Duration::from_millis(50);

/// So many connections are looked at in one interval.
const LOOKED_AT: usize = 256;

/// Connections with fewer turns in a second than this are not worth the effort.
const BRISK: f64 = 100.0;

/// Connections count as equally hot up to this factor.
const FACTOR: f64 = 8.0;

/// So many workers are compared at once, each with each.
const COMPARED: usize = 16;

/// When the connections are looked at.
pub struct Looks {
    count: u64,
    last: Instant,
    next: Instant,
}

impl Looks {
    /// The first look is soon.
    pub fn new(now: Instant) -> Self {
        Looks { count: 0, last: now, next: now }
    }
}

/// A connection on lease: the position of its worker, its ticket, its turns since the last look.
struct Observed {
    worker: usize,
    ticket: Ticket,
    turns: u64,
}

impl Supervisor {
    /// Lets the workers of each pool exchange hot connections, so that each has to do with as few
    /// processors as can be, and gives some to a worker that has time where too few have any.
    pub(super) fn gather(&mut self, paces: &[Paced], now: Instant) {
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
            let observed = self.observe(pool, &workers);
            // After a pause it is not known since when they had so many turns.
            if workers.len() > 1 && passed < 2 * interval {
                self.regroup(&workers, &hot(observed, passed), now);
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

    /// Finds out what to exchange, and does it.
    fn regroup(&mut self, workers: &[&Paced], hot: &[Observed], now: Instant) {
        let active: HashSet<usize> = hot.iter().map(|connection| connection.worker).collect();
        let compared = sample(workers, self.looks.count);
        let (mut members, mut places) = (Vec::new(), Vec::new());
        for Observed { worker, ticket, turns } in hot.iter().filter(|c| compared[c.worker]) {
            let pid = workers[*worker].pid;
            let lent = self.workers.get_mut(&pid).and_then(|entry| entry.leases.get_mut(ticket));
            if let Some((before, processor)) = lent.and_then(|lent| lent.look()) {
                let (worker, settled) = (*worker, before == processor);
                members.push(Member { worker, processor, settled, turns: *turns });
                places.push((pid, *ticket));
            }
        }
        let few = active.len() < self.processors.count() && active.len() < hot.len();
        let is_free =
            |(paced, compared): (&&Paced, &bool)| few && *compared && paced.pace == Pace::HasTime;
        let free: Vec<bool> = workers.iter().zip(&compared).map(is_free).collect();
        let idle = free.contains(&true) && self.processors.any_idle(now) == Some(true);
        let wanted = if idle { self.processors.count() } else { 0 };
        let until = now + PATIENCE;
        for step in regroup(&members, &free, wanted) {
            match step {
                Step::Move(member, to) => {
                    let (pid, ticket) = places[member];
                    self.reassign(pid, ticket, Reserved::For(workers[to].pid, until));
                }
                Step::Swap(one, other) => self.swap(places[one], places[other], until),
            }
        }
    }

    /// Lets two connections change places: both or none, else one worker would have more in the end.
    fn swap(&mut self, one: (i32, Ticket), other: (i32, Ticket), until: Instant) {
        if self.is_parked(other.0, other.1)
            && self.reassign(one.0, one.1, Reserved::For(other.0, until))
        {
            self.reassign(other.0, other.1, Reserved::For(one.0, until));
        }
    }
}

/// Which workers are compared with each other this time: not more than [`COMPARED`], others the next
/// time.
fn sample(workers: &[&Paced], count: u64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..workers.len()).collect();
    if workers.len() > COMPARED {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        order.sort_by_cached_key(|index| hasher.hash_one((workers[*index].pid, count)));
    }
    let mut compared = vec![false; workers.len()];
    order.iter().take(COMPARED).for_each(|index| compared[*index] = true);
    compared
}

/// The connections that make most of the work, if there is enough of it to care: those whose turns
/// are about as many as, on average over all turns, the connection had whose turn it was.
fn hot(mut observed: Vec<Observed>, passed: Duration) -> Vec<Observed> {
    let sum: f64 = observed.iter().map(|connection| connection.turns as f64).sum();
    let squares: f64 = observed.iter().map(|connection| (connection.turns as f64).powi(2)).sum();
    let usual = squares / sum.max(1.0);
    if usual < BRISK * passed.as_secs_f64() {
        return Vec::new();
    }
    let range = usual / FACTOR..=usual * FACTOR;
    observed.retain(|connection| range.contains(&(connection.turns as f64)));
    observed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(turns: &[u64]) -> Vec<u64> {
        let observed = |turns: &u64| Observed { worker: 0, ticket: Ticket::of(0), turns: *turns };
        let observed = turns.iter().map(observed).collect();
        hot(observed, Duration::from_secs(1)).iter().map(|connection| connection.turns).collect()
    }

    #[test]
    fn only_connections_that_make_most_of_the_work_are_hot() {
        assert_eq!(turns(&[1000, 900, 300, 3, 2, 1, 0]), [1000, 900, 300]);
        assert_eq!(turns(&[99; 3]), []);
        assert_eq!(turns(&[0; 3]), []);
        assert_eq!(turns(&[]), []);
        let mut many = vec![1; 500];
        many.push(10_000);
        assert_eq!(turns(&many), [10_000]);
    }

    #[test]
    fn all_workers_are_compared_sooner_or_later() {
        let worker = |pid| Paced { pid, pool: 0, leases: 9, pace: Pace::Busy };
        let workers: Vec<Paced> = (1..=100).map(worker).collect();
        let workers: Vec<&Paced> = workers.iter().collect();
        assert_eq!(sample(&workers[..COMPARED], 1), [true; COMPARED]);
        let mut seen = [false; 100];
        for count in 0..100 {
            let compared = sample(&workers, count);
            assert_eq!(compared.iter().filter(|compared| **compared).count(), COMPARED);
            seen.iter_mut().zip(compared).for_each(|(seen, compared)| *seen |= compared);
        }
        assert_eq!(seen, [true; 100]);
    }
}
