//! Where each connection is found: by its key, in the lobby, in its pool's queue, or by its worker.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use nix::sys::epoll::Epoll;

use super::connection::{Held, Key, Location, Reserved, SupervisedConnection, reset};
use super::lobby::Lobby;
use crate::server::ipc::clock;
use crate::server::ipc::ticket::Ticket;

/// All connections. Each one is found in the way that its location says, and in no other.
pub struct Store {
    /// In boxes: the nodes of a tree that grows at its end are half empty.
    connections: BTreeMap<Key, Box<SupervisedConnection>>,
    last: Key,
    lobby: Lobby,
    pools: Vec<PoolIndex>,
    workers: HashMap<i32, WorkerIndex>,
}

/// What became of a pool's connections.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Waiting connections that were closed because descriptors or memory were short.
    pub shed: u64,
    /// Parked connections taken from workers.
    pub reclaimed: u64,
    /// Connections that broke off without their handler's or client's doing.
    pub lost: u64,
}

/// The connections of one pool that no worker has.
#[derive(Default)]
struct PoolIndex {
    counts: Counts,
    waiting: usize,
    /// Those that wait for a worker. The first one is next.
    queue: VecDeque<Key>,
    /// When all workers may have each of them.
    reserved_until: Option<Instant>,
}

/// The connections of one worker.
#[derive(Default)]
struct WorkerIndex {
    leased: BTreeMap<Ticket, Key>,
    sent: BTreeSet<Key>,
}

impl Store {
    /// A store for that many pools. Events of the lobby carry `token` | key.
    pub fn new(epoll: Rc<Epoll>, token: u64, pools: usize) -> Self {
        Store {
            connections: BTreeMap::new(),
            last: 0,
            lobby: Lobby::new(epoll, token),
            pools: (0..pools).map(|_| PoolIndex::default()).collect(),
            workers: HashMap::new(),
        }
    }

    /// How many pools there are.
    pub fn pools(&self) -> usize {
        self.pools.len()
    }

    /// A worker was forked.
    pub fn add_worker(&mut self, pid: i32) {
        self.workers.insert(pid, WorkerIndex::default());
    }

    /// A worker is gone, and its connections have left.
    pub fn remove_worker(&mut self, pid: i32) {
        self.workers.remove(&pid);
    }

    /// Takes in a connection, which is where its location says. None if that is not possible: it is reset if
    /// the kernel cannot watch it, and closed if there is no memory for it, as there may be as many as
    /// clients like.
    pub fn enter(&mut self, pool: usize, descriptor: OwnedFd, location: Location) -> Option<Key> {
        let (key, mut connection) =
            (self.last + 1, SupervisedConnection { pool, descriptor, location });
        let pool = &mut self.pools[pool];
        match &mut connection.location {
            Location::Waiting(_) | Location::Lingering(_) => {
                if self.lobby.enter(key, &connection).is_err() {
                    pool.counts.lost += 1;
                    reset(connection.descriptor);
                    return None;
                }
                pool.waiting += usize::from(matches!(connection.location, Location::Waiting(_)));
            }
            Location::Queued(held, _) => {
                if pool.queue.try_reserve(1).is_err() {
                    pool.counts.shed += 1;
                    connection.close();
                    return None;
                }
                pool.queue.push_back(key);
                held.state.queued.get_or_insert_with(|| clock::milliseconds(Instant::now()));
                pool.reserved_until = pool.reserved_until.max(held.reserved.until());
            }
            Location::Sent(worker, ..) => {
                self.workers.entry(*worker).or_default().sent.insert(key);
            }
            Location::Leased(lease) => {
                let worker = self.workers.entry(lease.worker).or_default();
                if let Some(previous) = worker.leased.insert(lease.ticket, key) {
                    // A worker does not lease a ticket twice, but nothing keeps it from that.
                    self.connections.remove(&previous);
                }
            }
        }
        self.connections.insert(key, Box::new(connection));
        self.last = key;
        Some(key)
    }

    /// A connection leaves.
    pub fn leave(&mut self, key: Key) -> Option<SupervisedConnection> {
        let connection = self.connections.remove(&key)?;
        let pool = &mut self.pools[connection.pool];
        match &connection.location {
            Location::Waiting(_) | Location::Lingering(_) => {
                self.lobby.leave(key, &connection);
                pool.waiting -= usize::from(matches!(connection.location, Location::Waiting(_)));
            }
            Location::Queued(..) if pool.queue.front() == Some(&key) => {
                pool.queue.pop_front();
            }
            Location::Queued(..) => {
                let place = pool.queue.iter().rposition(|other| *other == key);
                place.map(|place| pool.queue.remove(place));
            }
            Location::Sent(worker, ..) => {
                self.workers.entry(*worker).or_default().sent.remove(&key);
            }
            Location::Leased(lease) => {
                self.workers.entry(lease.worker).or_default().leased.remove(&lease.ticket);
            }
        }
        Some(*connection)
    }

    /// What became of a pool's connections.
    pub fn counts(&mut self, pool: usize) -> &mut Counts {
        &mut self.pools[pool].counts
    }

    /// How many leased connections of a worker are sent a file.
    pub fn sent_files(&self, pid: i32) -> usize {
        let location = |key: Key| self.get(key).map(|connection| &connection.location);
        let is_sent = |key: Key| matches!(location(key), Some(Location::Leased(leased)) if leased.sending.is_some());
        self.leases(pid).filter(|(_, key)| is_sent(*key)).count()
    }

    /// The connection with that key.
    pub fn get(&self, key: Key) -> Option<&SupervisedConnection> {
        self.connections.get(&key).map(Box::as_ref)
    }

    /// The connection with that key. Its location stays of the same kind.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut SupervisedConnection> {
        self.connections.get_mut(&key).map(Box::as_mut)
    }

    /// All connections that no worker has, in the order of their arrival.
    pub fn without_worker(&self) -> Vec<Key> {
        let has_none = |entry: &SupervisedConnection| {
            !matches!(entry.location, Location::Sent(..) | Location::Leased(_))
        };
        self.connections.iter().filter(|(_, entry)| has_none(entry)).map(|(key, _)| *key).collect()
    }

    /// Descriptors of connections that are held.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// The connections that wait for input, or linger.
    pub fn lobby(&mut self) -> &mut Lobby {
        &mut self.lobby
    }

    /// How many connections of a pool wait for input or for a worker.
    pub fn waiting(&self, pool: usize) -> usize {
        self.pools[pool].waiting + self.queued(pool)
    }

    /// How many connections of a pool wait for a worker.
    pub fn queued(&self, pool: usize) -> usize {
        self.pools[pool].queue.len()
    }

    /// From now on all workers may have each queued connection.
    pub fn release_all(&mut self) {
        for key in self.pools.iter().flat_map(|pool| &pool.queue) {
            if let Some(SupervisedConnection { location: Location::Queued(held, _), .. }) =
                self.connections.get_mut(key).map(Box::as_mut)
            {
                held.reserved = Reserved::No;
            }
        }
    }

    /// The next connection of a pool that waits for a worker.
    pub fn next(&self, pool: usize) -> Option<Key> {
        self.pools[pool].queue.front().copied()
    }

    /// The connection that has entered the queue of a pool last is next.
    pub fn promote_last(&mut self, pool: usize) {
        self.pools[pool].queue.rotate_right(1);
    }

    /// The next connection of a pool that waits for a worker and that this worker may have.
    pub fn next_for(&self, pid: i32, pool: usize, now: Instant) -> Option<Key> {
        let allows = |key: &&Key| self.held(**key).is_some_and(|h| h.reserved.allows(pid, now));
        self.pools[pool].queue.iter().find(allows).copied()
    }

    /// When all workers may have a queued connection that is reserved for some now.
    pub fn released(&self, pool: usize, now: Instant) -> Option<Instant> {
        self.pools[pool].reserved_until.filter(|until| *until > now)?;
        let queue = self.pools[pool].queue.iter();
        let until = queue.filter_map(|key| self.held(*key)?.reserved.until());
        until.filter(|until| *until > now).min()
    }

    /// Of the queued connections that hold input, the one that came last: it is served last.
    pub fn last_queued_holder(&self) -> Option<Key> {
        let holds = |key: &&Key| self.held(**key).is_some_and(|held| !held.input.is_empty());
        self.pools.iter().find_map(|pool| pool.queue.iter().rev().find(holds)).copied()
    }

    fn held(&self, key: Key) -> Option<&Held> {
        match &self.connections.get(&key)?.location {
            Location::Queued(held, _) => Some(held),
            _ => None,
        }
    }

    /// Workers that are known.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The connections that a worker has on lease.
    pub fn leases(&self, pid: i32) -> impl Iterator<Item = (Ticket, Key)> {
        let leased = self.workers.get(&pid).into_iter().flat_map(|worker| &worker.leased);
        leased.map(|(ticket, key)| (*ticket, *key))
    }

    /// How many connections a worker has on lease.
    pub fn lease_count(&self, pid: i32) -> usize {
        self.workers.get(&pid).map_or(0, |worker| worker.leased.len())
    }

    /// The connection that a worker has on lease under that ticket.
    pub fn leased(&self, pid: i32, ticket: Ticket) -> Option<Key> {
        self.workers.get(&pid)?.leased.get(&ticket).copied()
    }

    /// Whether that connection is on its way to this worker.
    pub fn is_sent(&self, pid: i32, key: Key) -> bool {
        self.workers.get(&pid).is_some_and(|worker| worker.sent.contains(&key))
    }

    /// All connections of a worker.
    pub fn of_worker(&self, pid: i32) -> Vec<Key> {
        let Some(worker) = self.workers.get(&pid) else { return Vec::new() };
        worker.leased.values().chain(&worker.sent).copied().collect()
    }
}
