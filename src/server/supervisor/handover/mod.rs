//! The hand-over of connections between the supervisor and its workers.
//!
//! | module | what it is |
//! |---|---|
//! | [`connection`] | a connection and its locations, with the table of events |
//! | [`store`], [`lobby`] | where each connection is found |
//! | [`held_input`], [`lingering`] | what the supervisor does with input: hold it, or discard it |
//! | [`leases`] | the connections that workers have |
//! | [`successor`] | the next generation, which takes over at a reload |
//! | [`bounds`] | the memory and the descriptors that all of them may take |

mod bounds;
pub mod connection;
pub mod held_input;
mod leases;
mod lingering;
mod lobby;
mod store;
mod successor;
#[cfg(test)]
mod tests;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::Epoll;

use crate::io::Wakeup;
use crate::proxy::proxied::Proxied;
use crate::server::ipc::batch::{Batch, PassedConnection};
use crate::server::ipc::channel::{Descriptors, Parcel};
use crate::server::ipc::clock;
use crate::server::ipc::connection_state::{ConnectionState, Stage};
use crate::server::ipc::message::{Order, Report};
use crate::server::ipc::overflow;
use crate::server::ipc::ticket::Ticket;
use connection::{Entry, Held, Key, Location, Reserved, close, reset};
use leases::Leases;
use lingering::Lingering;

pub use bounds::Bounds;
pub use leases::{Shared, WorkerId};
pub use store::{Counts, Store};
pub use successor::Successor;

/// How long a worker that declined a connection does not get it again.
const DECLINED: Duration = Duration::from_secs(1);

/// At a shutdown, a connection that was in use until now has so long for a last request, which may be on its
/// way: its client may not know that it ends.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// What came of giving a worker a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// It was sent.
    Sent,
    /// None waits that the worker may have.
    Nothing,
    /// It could not be sent, and waits as before.
    Failed,
}

/// A connection that is not on its way any more.
struct Settled {
    descriptor: OwnedFd,
    /// Input or output that belongs to it.
    overflow: Option<OwnedFd>,
    proxied: Proxied,
}

/// All connections at the supervisor's side.
pub struct Handover {
    store: Store,
    leases: Leases,
    bounds: Bounds,
    shuts_down: bool,
    /// Once the next generation serves.
    successor: Option<Successor>,
}

impl Handover {
    /// No connections yet. Events of the epoll set carry `token` | a number for [`Handover::event`].
    pub fn new(epoll: Rc<Epoll>, token: u64, pools: Vec<Shared>, bounds: Bounds) -> Self {
        let store = Store::new(epoll, token, pools.len());
        let (leases, successor) = (Leases::new(pools), None);
        Handover { store, leases, bounds, shuts_down: false, successor }
    }

    /// A worker was forked.
    pub fn add_worker(&mut self, pid: i32) {
        self.store.add_worker(pid);
    }

    /// Something happened to a connection in the lobby.
    pub fn event(&mut self, key: u64) {
        if self.store.get_mut(key).is_some_and(Entry::take_input) {
            self.wake(key, Wakeup::Input);
        }
        self.bounds.bound_input(&mut self.store);
    }

    /// Deals with connections whose time is up. Gives when the next one's is.
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
            Some(Entry { pool, descriptor, location: Location::Waiting(held) }) => {
                self.queue(pool, descriptor, held, wakeup);
            }
            Some(Entry { descriptor, .. }) => reset(descriptor),
            None => {}
        }
    }

    /// A worker reports on a connection.
    pub fn report(
        &mut self,
        worker: WorkerId,
        report: Report,
        parcel: Option<Parcel>,
        now: Instant,
    ) {
        match report {
            Report::Leased(ticket, proxied) => {
                // Without a descriptor (this process has too many) it is the worker's alone.
                let Some(Parcel { connection, .. }) = parcel else { return };
                let ticket = Ticket::of(ticket);
                self.leases.add(&mut self.store, worker, ticket, (connection, proxied));
                if !self.make_room() {
                    self.close_leased(worker, ticket);
                }
            }
            Report::Arrived(number, ticket) => {
                if let Some(Settled { descriptor, proxied, .. }) = self.settle(worker, number)
                    && let Some(ticket) = ticket.map(Ticket::of)
                {
                    self.leases.add(&mut self.store, worker, ticket, (descriptor, proxied));
                }
            }
            Report::Declined(number, wakeup, state) => {
                let reserved = match self.ends(worker.pool) {
                    true => Reserved::No,
                    false => Reserved::Against(worker.pid, now + DECLINED),
                };
                self.comes_back(worker, number, wakeup, state, reserved);
            }
            Report::Released(ticket) => drop(self.take_leased(worker, Ticket::of(ticket))),
            Report::HandedOver(ticket, state) => self.take_over(worker, ticket, parcel, state, now),
            _ => {}
        }
    }

    fn take_leased(&mut self, worker: WorkerId, ticket: Ticket) -> Option<OwnedFd> {
        let key = self.store.leased(worker.pid, ticket)?;
        Some(self.store.leave(key)?.descriptor)
    }

    /// There is no descriptor for this leased connection, and no older one that waits: it is closed,
    /// unless its worker acts on it.
    fn close_leased(&mut self, worker: WorkerId, ticket: Ticket) {
        if let Some((descriptor, _)) = self.leases.revoke(&mut self.store, worker, ticket) {
            self.store.counts(worker.pool).shed += 1;
            close(descriptor);
        }
    }

    /// A connection that was sent to a worker is no longer on its way.
    fn settle(&mut self, worker: WorkerId, number: u64) -> Option<Settled> {
        if !self.store.is_sent(worker.pid, number) {
            return None;
        }
        match self.store.leave(number)? {
            Entry { descriptor, location: Location::Sent(_, overflow, proxied), .. } => {
                Some(Settled { descriptor, overflow, proxied })
            }
            _ => None,
        }
    }

    /// A connection that was sent to a worker comes back, and is next. False if it was not sent.
    fn comes_back(
        &mut self,
        worker: WorkerId,
        number: u64,
        wakeup: Wakeup,
        state: ConnectionState,
        reserved: Reserved,
    ) -> bool {
        let Some(Settled { descriptor, overflow, .. }) = self.settle(worker, number) else {
            return false;
        };
        let held = Held { reserved, ..self.bounds.hold(state, overflow) };
        self.queue_first(worker.pool, descriptor, held, wakeup);
        true
    }

    /// A worker has left an order unread that hands it a connection: another one gets it.
    pub fn left_unread(
        &mut self,
        worker: WorkerId,
        number: u64,
        wakeup: Wakeup,
        state: ConnectionState,
    ) {
        if self.comes_back(worker, number, wakeup, state, Reserved::No) {
            self.store.counts(worker.pool).reclaimed += 1;
        }
    }

    /// A worker gives a connection up.
    fn take_over(
        &mut self,
        worker: WorkerId,
        ticket: Option<u64>,
        parcel: Option<Parcel>,
        state: ConnectionState,
        now: Instant,
    ) {
        let leased = ticket.and_then(|ticket| self.take_leased(worker, Ticket::of(ticket)));
        let pool = worker.pool;
        let Some(Parcel { connection, input }) = parcel.or(leased.map(Parcel::from)) else {
            self.store.counts(pool).lost += 1;
            return;
        };
        let is_new = state.data.is_empty() && input.is_none();
        let stage = state.stage;
        let held = self.bounds.hold(state, input);
        match stage {
            Stage::Lingering { until, stall } => self.linger(pool, connection, until, stall, now),
            Stage::Sending(_) => self.queue(pool, connection, held, Wakeup::None),
            Stage::Ready if is_new => self.queue(pool, connection, held, Wakeup::None),
            Stage::Ready if !self.ends(pool) => {
                self.queue(pool, connection, held, Wakeup::Input);
            }
            Stage::Ready | Stage::Waiting => self.wait(pool, connection, held),
        }
        self.bounds.bound_input(&mut self.store);
    }

    /// The response of a connection is out.
    fn linger(
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
    fn wait(&mut self, pool: usize, descriptor: OwnedFd, mut held: Held) {
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
    fn queue(&mut self, pool: usize, descriptor: OwnedFd, held: Held, wakeup: Wakeup) {
        self.place(pool, descriptor, Location::Queued(held, wakeup));
    }

    /// The same for one that has been in the queue before: it is next.
    fn queue_first(&mut self, pool: usize, descriptor: OwnedFd, held: Held, wakeup: Wakeup) {
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
    fn ends(&self, pool: usize) -> bool {
        let replaced = |successor: &Successor| successor.pool(pool).is_some();
        self.shuts_down && !self.successor.as_ref().is_some_and(replaced)
    }

    /// The next generation takes over: what waits here goes there, from now on. What belongs to pools that
    /// have none there is told of the shutdown.
    pub fn succeed(&mut self, successor: Successor) {
        self.successor = Some(successor);
        for key in self.store.without_worker() {
            if let Some(Entry { pool, descriptor, location }) = self.store.leave(key) {
                self.place(pool, descriptor, location);
            }
        }
        self.shut_down();
    }

    /// The next generation, once it serves.
    pub fn successor(&mut self) -> Option<&mut Successor> {
        self.successor.as_mut()
    }

    /// The next generation has everything.
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
                // This process may not open so many.
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
    pub fn accepted(&mut self, pool: usize, descriptor: OwnedFd, proxied: Proxied) {
        let state = ConnectionState { proxied, ..ConnectionState::default() };
        self.queue(pool, descriptor, Held { state, ..Held::default() }, Wakeup::None);
    }

    /// Whether a connection waits that this worker may have.
    pub fn has_for(&self, worker: WorkerId, now: Instant) -> bool {
        self.store.next_for(worker.pid, worker.pool, now).is_some()
    }

    /// Gives a worker a connection, if one waits that it may have.
    pub fn give(
        &mut self,
        worker: WorkerId,
        now: Instant,
        send: impl FnOnce(&Order, &[BorrowedFd<'_>]) -> Result<(), Errno>,
    ) -> Given {
        let key = self.store.next_for(worker.pid, worker.pool, now);
        let Some(Entry { pool, descriptor, location: Location::Queued(held, wakeup) }) =
            key.and_then(|key| self.store.leave(key))
        else {
            return Given::Nothing;
        };
        let Held { state, mut input, overflow, reserved } = held;
        let (data, awaits) = input.take();
        let state = ConnectionState { data, awaits, ..state };
        let location = Location::Sent(worker.pid, overflow, state.proxied.clone());
        let Some(key) = self.store.enter(pool, descriptor, location) else {
            return Given::Failed;
        };
        let order = Order::Resume(key, wakeup, state);
        let sent = send(&order, &self.store.get(key).map(Entry::descriptors).unwrap_or_default());
        let (Err(errno), Order::Resume(number, _, mut state)) = (sent, order) else {
            return Given::Sent;
        };
        let Some(Settled { descriptor, overflow: mut file, .. }) = self.settle(worker, number)
        else {
            return Given::Failed;
        };
        if errno == Errno::EMSGSIZE {
            // The kernel takes no such long messages.
            file = overflow::move_data(&mut state).or(file);
        }
        let held = Held { reserved, ..self.bounds.hold(state, file) };
        self.queue_first(pool, descriptor, held, wakeup);
        Given::Failed
    }

    /// Revokes up to `most` leases of a worker, of connections that it has parked and does not act on.
    /// They go to the workers that may have them. Gives how many it has revoked.
    pub fn revoke(&mut self, worker: WorkerId, most: usize, reserved: Reserved) -> usize {
        let tickets: Vec<Ticket> =
            self.store.leases(worker.pid).map(|(ticket, _)| ticket).collect();
        let revoked = tickets.into_iter().filter(|ticket| self.reassign(worker, *ticket, reserved));
        revoked.take(most).count()
    }

    /// Revokes the lease of one connection, if its worker has parked it and does not act on it.
    pub fn reassign(&mut self, worker: WorkerId, ticket: Ticket, reserved: Reserved) -> bool {
        let Some((descriptor, state)) = self.leases.revoke(&mut self.store, worker, ticket) else {
            return false;
        };
        self.store.counts(worker.pool).reclaimed += 1;
        self.wait(worker.pool, descriptor, Held { state, reserved, ..Held::default() });
        true
    }

    /// A worker is dead: others get what it had parked. What it was acting on is reset.
    pub fn remove_worker(&mut self, worker: WorkerId) {
        self.revoke(worker, usize::MAX, Reserved::No);
        for key in self.store.of_worker(worker.pid) {
            if let Some(connection) = self.store.leave(key) {
                self.store.counts(worker.pool).lost += 1;
                reset(connection.descriptor);
            }
        }
        self.store.remove_worker(worker.pid);
    }

    /// The server shuts down: whoever waits is told.
    pub fn shut_down(&mut self) {
        self.shuts_down = true;
        while let Some(key) = self.store.lobby().oldest() {
            if let Some(Entry { pool, descriptor, location: Location::Waiting(held) }) =
                self.store.leave(key)
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

    /// The same before so many descriptors come.
    pub fn make_room_for(&mut self, more: usize) -> bool {
        self.bounds.bound_descriptors(&mut self.store, more)
    }

    /// Looks after the memory between two batches of events. Gives what the log is to tell.
    pub fn tend_memory(&mut self, now: Instant) -> Option<String> {
        self.bounds.tend(&mut self.store, now)
    }

    /// What became of a pool's connections.
    pub fn counts(&mut self, pool: usize) -> Counts {
        *self.store.counts(pool)
    }

    /// What is where.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether connections linger.
    pub fn has_lingering(&mut self) -> bool {
        self.store.lobby().lingering().is_some()
    }

    /// The connections that a worker has on lease, and their turns since they were last sampled.
    pub fn sample(&mut self, worker: WorkerId) -> Vec<(Ticket, u64)> {
        self.leases.sample(&mut self.store, worker)
    }

    /// The processors that received a leased connection's packets when this was last asked, and that
    /// receive them now. None for local sockets.
    pub fn sample_processor(&mut self, worker: WorkerId, ticket: Ticket) -> Option<(usize, usize)> {
        leases::sample_processor(&mut self.store, worker, ticket)
    }

    /// A parked connection of a worker that has input which nobody has received, and its turns.
    pub fn unattended(&self, worker: WorkerId) -> Option<(Ticket, u64)> {
        self.leases.unattended(&self.store, worker)
    }
}
