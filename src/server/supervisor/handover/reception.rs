//! Where connections go that no worker has: into the queue for a worker, into the lobby to wait for their
//! clients or to linger there, or to the next generation, once it serves.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::bounds::Bounds;
use super::connection::{Held, Key, Location, Reserved, SupervisedConnection, reset};
use super::lingering::{self, Lingering};
use super::store::{Counts, Store};
use super::successor::Successor;
use crate::io::Wakeup;
use crate::server::ipc::attributes::Attributes;
use crate::server::ipc::batch::{Batch, PassedConnection};
use crate::server::ipc::channel::{Descriptors, Parcel};
use crate::server::ipc::clock;
use crate::server::ipc::connection_state::{ConnectionState, Stage};
use crate::server::log_throttle::Occasion;

/// At a shutdown, a connection that was in use until now has so long for a last request, which may be on its
/// way: its client may not know that it ends.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// Where connections go that no worker has.
pub struct Reception {
    /// All connections.
    pub(super) store: Store,
    /// What they may take.
    pub(super) bounds: Bounds,
    shuts_down: bool,
    /// Once the next generation serves.
    successor: Option<Successor>,
}

impl Reception {
    /// It takes in connections.
    pub fn new(store: Store, bounds: Bounds) -> Self {
        Reception { store, bounds, shuts_down: false, successor: None }
    }

    /// Something happened to a connection in the lobby.
    pub fn event(&mut self, key: u64) {
        if self.store.get_mut(key).is_some_and(SupervisedConnection::take_input) {
            self.wake(key, Wakeup::Input);
        }
        self.bounds.bound_input(&mut self.store);
    }

    /// Deals with connections whose time is up. Returns when the next one's is.
    pub fn advance(&mut self, now: Instant) -> Option<Instant> {
        while let Some(key) = self.store.lobby().take_alarm(now) {
            match self.store.get_mut(key).and_then(|entry| entry.prolong(now)) {
                Some(until) => self.store.lobby().prolong(key, until),
                None => {
                    let pool = self.store.get(key).map(|entry| entry.pool);
                    let ends = pool.is_some_and(|pool| self.ends(pool));
                    self.wake(key, if ends { Wakeup::Shutdown } else { Wakeup::Timeout });
                }
            }
        }
        self.store.lobby().next_alarm()
    }

    /// A connection leaves the lobby: one that has waited waits for a worker from now on, one that has
    /// lingered ends.
    fn wake(&mut self, key: Key, wakeup: Wakeup) {
        match self.store.leave(key) {
            Some(SupervisedConnection { pool, descriptor, location: Location::Waiting(held) }) => {
                self.queue(pool, descriptor, held, wakeup);
            }
            Some(SupervisedConnection { descriptor, .. }) => reset(descriptor),
            None => {}
        }
    }

    /// The response of a connection is out.
    pub(super) fn linger(
        &mut self,
        pool: usize,
        descriptor: OwnedFd,
        until: u64,
        stall: Option<u64>,
        now: Instant,
    ) {
        let timeout = clock::instant(until).saturating_duration_since(now);
        let lingering = Lingering::new(timeout, stall.map(Duration::from_millis), now);
        self.place(pool, descriptor, Location::Lingering(lingering));
        self.make_room();
    }

    /// A connection waits for its client, in the lobby; at a shutdown only for a moment.
    pub(super) fn wait(&mut self, pool: usize, descriptor: OwnedFd, mut held: Held) {
        if self.ends(pool) {
            if !held.input.is_empty() {
                return self.dismiss(pool, descriptor, held);
            }
            let until = clock::milliseconds(Instant::now() + LAST_REQUEST);
            held.state.deadline = Some(held.state.deadline.map_or(until, |own| own.min(until)));
            held.reserved = Reserved::No;
        }
        if !self.place(pool, descriptor, Location::Waiting(held)) {
            self.bounds.note_closed(1, "the system could not watch them");
        }
        self.make_room();
    }

    /// A connection is told that the server shuts down.
    fn dismiss(&mut self, pool: usize, descriptor: OwnedFd, held: Held) {
        let (held, wakeup) = held.dismiss();
        self.queue(pool, descriptor, held, wakeup);
    }

    /// A connection waits for a worker.
    pub(super) fn queue(&mut self, pool: usize, descriptor: OwnedFd, held: Held, wakeup: Wakeup) {
        self.place(pool, descriptor, Location::Queued(held, wakeup));
    }

    /// The same for one that has been in the queue before: it is next.
    pub(super) fn queue_first(
        &mut self,
        pool: usize,
        descriptor: OwnedFd,
        held: Held,
        wakeup: Wakeup,
    ) {
        let before = self.store.queued(pool);
        self.place(pool, descriptor, Location::Queued(held, wakeup));
        if self.store.queued(pool) > before {
            self.store.promote_last(pool);
        }
    }

    /// Takes in a connection, or passes it to the next generation. False if neither is possible.
    fn place(&mut self, pool: usize, descriptor: OwnedFd, location: Location) -> bool {
        let left = match &mut self.successor {
            Some(successor) => successor.take(pool, descriptor, location),
            None => Some((descriptor, location)),
        };
        left.is_none_or(|(descriptor, location)| {
            self.store.enter(pool, descriptor, location).is_some()
        })
    }

    /// Whether the connections of a pool end: the server shuts down, and no other generation takes them.
    pub(super) fn ends(&self, pool: usize) -> bool {
        let replaced = |successor: &Successor| successor.pool(pool).is_some();
        self.shuts_down && !self.successor.as_ref().is_some_and(replaced)
    }

    /// The next generation takes over: what waits here goes there, from now on. What belongs to pools that
    /// have none there is told of the shutdown.
    pub fn succeed(&mut self, successor: Successor) {
        self.successor = Some(successor);
        for key in self.store.without_worker() {
            if let Some(SupervisedConnection { pool, descriptor, location }) = self.store.leave(key)
            {
                self.place(pool, descriptor, location);
            }
        }
        self.shut_down();
    }

    /// The next generation, once it serves.
    pub fn successor(&mut self) -> Option<&mut Successor> {
        self.successor.as_mut()
    }

    /// Everything has been passed to the next generation.
    pub fn forget_successor(&mut self) {
        self.successor = None;
    }

    /// Connections come from the previous generation.
    pub fn inherit(&mut self, batch: Batch, descriptors: Descriptors, now: Instant) {
        let mut descriptors = descriptors.into_iter();
        for PassedConnection { pool, wakeup, has_file, state } in batch {
            let (connection, input) =
                (descriptors.next(), has_file.then(|| descriptors.next()).flatten());
            let Some(pool) = usize::try_from(pool).ok().filter(|pool| *pool < self.store.pools())
            else {
                continue;
            };
            match connection {
                Some(connection) if has_file == input.is_some() => {
                    self.inherit_one(pool, Parcel { connection, input }, wakeup, state, now);
                }
                // That would exceed this process's limit.
                _ => self.store.counts(pool).lost += 1,
            }
        }
        self.bounds.bound_input(&mut self.store);
    }

    fn inherit_one(
        &mut self,
        pool: usize,
        Parcel { connection, input }: Parcel,
        wakeup: Option<Wakeup>,
        state: ConnectionState,
        now: Instant,
    ) {
        if let Stage::Lingering { until, stall } = state.stage {
            return self.linger(pool, connection, until, stall, now);
        }
        let held = self.bounds.hold(state, input);
        match wakeup {
            Some(wakeup) => self.queue(pool, connection, held, wakeup),
            None => self.wait(pool, connection, held),
        }
    }

    /// A connection that was taken over from a port.
    pub fn accepted(&mut self, pool: usize, descriptor: OwnedFd, attributes: Attributes) {
        let state = ConnectionState { attributes, ..ConnectionState::default() };
        self.queue(pool, descriptor, Held { state, ..Held::default() }, Wakeup::None);
    }

    /// The server shuts down: handlers of waiting connections are told.
    pub fn shut_down(&mut self) {
        self.shuts_down = true;
        while let Some(key) = self.store.lobby().oldest() {
            if let Some(SupervisedConnection {
                pool,
                descriptor,
                location: Location::Waiting(held),
            }) = self.store.leave(key)
            {
                self.dismiss(pool, descriptor, held);
            }
        }
        self.store.release_all();
    }

    /// Closes the queued connections of a pool, for which no worker can be had.
    pub fn close_queued(&mut self, pool: usize) {
        while let Some(key) = self.store.next(pool) {
            if let Some(connection) = self.store.leave(key) {
                connection.close();
            }
        }
    }

    /// The server ends: what the clients of lingering connections have not received is left to the
    /// kernel to be sent.
    pub fn end_lingering(&mut self) {
        while let Some(connection) =
            self.store.lobby().lingering().and_then(|key| self.store.leave(key))
        {
            lingering::leave_to_kernel(&connection.descriptor);
        }
    }

    /// Closes the connections that have waited longest as long as too many descriptors are in use.
    /// False if that did not suffice.
    pub fn make_room(&mut self) -> bool {
        self.make_room_for(0)
    }

    /// The same before that many descriptors come.
    pub fn make_room_for(&mut self, more: usize) -> bool {
        self.bounds.bound_descriptors(&mut self.store, more)
    }

    /// Looks after the memory between two batches of events.
    pub fn trim_memory(&mut self) {
        self.bounds.run_due(&mut self.store);
    }

    /// As [`Bounds::report_closed`].
    pub fn report_closed(&mut self, occasion: Occasion) -> (Option<String>, Option<Instant>) {
        self.bounds.report_closed(occasion)
    }

    /// What became of a pool's connections.
    pub fn counts(&mut self, pool: usize) -> Counts {
        *self.store.counts(pool)
    }

    /// Whether connections linger.
    pub fn has_lingering(&mut self) -> bool {
        self.store.lobby().lingering().is_some()
    }
}
