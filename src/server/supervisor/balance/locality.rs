//! Hot connections whose packets come in at the same processor are brought together in one worker.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Instant;

use super::super::guest::Reserved;
use super::super::occupation::Pace;
use super::grouping::{Member, Step, regroup};
use super::observation::{Observed, Paced};
use crate::server::ipc::ticket::Ticket;
use crate::server::supervisor::{PATIENCE, Supervisor};

/// So many workers are compared at once, each with each.
const COMPARED: usize = 16;

impl Supervisor {
    /// Lets the workers of a pool exchange hot connections, so that each has to do with as few
    /// processors as can be, and gives some to a worker that has time where too few have any.
    pub(in crate::server::supervisor) fn gather(
        &mut self,
        workers: &[&Paced],
        hot: &[Observed],
        now: Instant,
    ) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
