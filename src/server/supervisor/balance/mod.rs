//! Which workers have which connections: their load is sampled, and connections move.
//!
//! | module | what it is |
//! |---|---|
//! | [`placement`] | from a view of the load to moves (pure) |

pub mod placement;

use std::time::{Duration, Instant};

use super::children::Children;
use super::handover::connection::Reserved;
use super::handover::{Handover, WorkerId};
use super::load::Demand;
use crate::server::ipc::ticket::Ticket;
use placement::{HotConnection, Move, View, WorkerLoad, moves};

/// The sampling interval of workers. A handler that runs for as long keeps its worker's other
/// connections waiting, and what is taken from a worker is reserved for as long.
pub const INTERVAL: Duration = Duration::from_millis(20);

/// The sampling interval of connections, for each [`SAMPLED`] of them: a sample takes less than a
/// microsecond.
const CONNECTIONS: Duration = Duration::from_millis(50);

/// So many connections are sampled in one interval.
const SAMPLED: usize = 256;

/// With fewer turns in a second, it does not matter which processor receives a connection's packets.
const MIN_TURN_RATE: f64 = 100.0;

/// Connections count as equally hot up to this factor.
const FACTOR: f64 = 8.0;

/// Leases that are to be revoked, and which workers may have the connections.
#[derive(Debug, Clone, Copy)]
pub enum Revocation {
    /// So many of a worker's, whichever they are.
    Any(WorkerId, usize),
    /// That of one connection.
    Of(WorkerId, Ticket, Reserved),
}

/// When what is sampled, and what has been.
pub struct Balance {
    demand: Demand,
    next: Option<Instant>,
    connections_sampled: Instant,
    next_connections: Instant,
    round: usize,
}

impl Balance {
    /// The first samples are due soon.
    pub fn new(now: Instant) -> Self {
        Balance {
            demand: Demand::default(),
            next: None,
            connections_sampled: now,
            next_connections: now,
            round: 0,
        }
    }

    /// When the next sample is due: none as long as there are no leases.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Samples the load of each pool if that is due, and gives what is to be done about it then.
    pub fn advance(
        &mut self,
        children: &mut Children,
        handover: &mut Handover,
        now: Instant,
    ) -> Option<Vec<Revocation>> {
        let leases: usize =
            children.iter().map(|child| handover.store().lease_count(child.pid())).sum();
        if leases == 0 {
            self.next = None;
            return None;
        }
        if self.next.is_some_and(|next| next > now) {
            return None;
        }
        self.next = Some(now + INTERVAL);
        let spare = self.demand.leaves_some(now, || children.times());
        let period = self.connection_period(leases, now);
        let mut revocations = Vec::new();
        for pool in 0..handover.store().pools() {
            let mut workers = Vec::new();
            let (processors, round) = (self.demand.processors, self.round);
            let mut view = View { processors, spare, round, ..View::default() };
            for child in children.of_pool_mut(pool) {
                let (load, worker) = (child.sample_load(now), child.worker);
                let leases = handover.store().lease_count(worker.pid);
                view.workers.push(WorkerLoad { load, leases, serves: child.is_serving() });
                workers.push(worker);
            }
            let hot = match period {
                Some(period) => sample(&mut view, &workers, handover, period),
                None => Vec::new(),
            };
            revocations.extend(moves(&view).into_iter().map(|step| match step {
                Move::Away(from, count) => Revocation::Any(workers[from], count),
                Move::To(connection, to) => {
                    let (from, ticket) = hot[connection];
                    let reserved = Reserved::For(workers[to].pid, now + INTERVAL);
                    Revocation::Of(from, ticket, reserved)
                }
            }));
        }
        Some(revocations)
    }

    /// If connections are to be sampled: the time since they last were.
    fn connection_period(&mut self, leases: usize, now: Instant) -> Option<Duration> {
        if now < self.next_connections {
            return None;
        }
        let period = now.saturating_duration_since(self.connections_sampled);
        let interval = CONNECTIONS * (1 + leases / SAMPLED) as u32;
        (self.connections_sampled, self.next_connections) = (now, now + interval);
        self.round = self.round.wrapping_add(1);
        Some(period)
    }
}

/// Adds the pool's hot connections to the view. Returns their workers and tickets.
fn sample(
    view: &mut View,
    workers: &[WorkerId],
    handover: &mut Handover,
    period: Duration,
) -> Vec<(WorkerId, Ticket)> {
    let mut sampled = Vec::new();
    for (index, worker) in workers.iter().enumerate() {
        let turns = handover.sample(*worker);
        sampled.extend(turns.into_iter().map(|(ticket, turns)| (index, ticket, turns)));
    }
    let typical = typical_turns(sampled.iter().map(|(.., turns)| *turns));
    let is_brisk = typical >= MIN_TURN_RATE * period.as_secs_f64();
    let mut hot = Vec::new();
    for (index, ticket, turns) in sampled {
        if is_hot(turns, typical) {
            let sampled = is_brisk.then(|| handover.sample_processor(workers[index], ticket));
            view.connections.push(HotConnection {
                worker: index,
                turns,
                processors: sampled.flatten(),
            });
            hot.push((workers[index], ticket));
        }
    }
    hot
}

/// How many turns the connection of an average turn had: what makes most of the work counts, not what
/// there is most of.
fn typical_turns(turns: impl Iterator<Item = u64> + Clone) -> f64 {
    let sum: f64 = turns.clone().map(|turns| turns as f64).sum();
    let squares: f64 = turns.map(|turns| (turns as f64).powi(2)).sum();
    squares / sum.max(1.0)
}

/// Whether a connection with this number of turns makes about as much work as the others.
fn is_hot(turns: u64, typical: f64) -> bool {
    turns > 0 && (typical / FACTOR..=typical * FACTOR).contains(&(turns as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hot(turns: &[u64]) -> Vec<u64> {
        let typical = typical_turns(turns.iter().copied());
        turns.iter().copied().filter(|turns| is_hot(*turns, typical)).collect()
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
