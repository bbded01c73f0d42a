//! The hand-over of connections between the supervisor and its workers.
//!
//! | module | what it is |
//! |---|---|
//! | [`connection`] | a connection and its locations, with the table of events |
//! | [`reception`] | where connections go that no worker has |
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
mod reception;
mod store;
mod successor;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::Epoll;

use crate::io::Wakeup;
use crate::server::ipc::attributes::Attributes;
use crate::server::ipc::channel::Parcel;
use crate::server::ipc::connection_state::{ConnectionState, Stage};
use crate::server::ipc::message::{Order, Report};
use crate::server::ipc::overflow;
use crate::server::ipc::ticket::Ticket;
use crate::sys::os::disconnect::disconnect;
use crate::sys::os::hangup::{Ended, ended};
use connection::{
    Held, Location, Reserved, SendingFile, SupervisedConnection, close, is_reset_by_closing, reset,
};
use leases::{Leases, Revoked};

pub use bounds::Bounds;
pub use leases::{LostConnections, Shared, WorkerId};
pub use reception::Reception;
pub use store::{Counts, Store};
pub use successor::Successor;

/// How long a worker that declined a connection does not get it again.
const DECLINED: Duration = Duration::from_secs(1);

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
    attributes: Attributes,
}

/// All connections at the supervisor's side.
pub struct Handover {
    /// Where those go that no worker has.
    pub reception: Reception,
    leases: Leases,
}

impl Handover {
    /// No connections yet. Events of the epoll set carry `token` | a number for [`Reception::event`].
    pub fn new(epoll: Rc<Epoll>, token: u64, pools: Vec<Shared>, bounds: Bounds) -> Self {
        let store = Store::new(epoll, token, pools.len());
        Handover { reception: Reception::new(store, bounds), leases: Leases::new(pools) }
    }

    /// What is where.
    pub fn store(&self) -> &Store {
        &self.reception.store
    }

    /// A worker was forked.
    pub fn add_worker(&mut self, pid: i32) {
        self.reception.store.add_worker(pid);
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
            Report::Leased(ticket, attributes) => {
                // Without a descriptor (this process has too many) it is the worker's alone.
                let Some(Parcel { connection, .. }) = parcel else { return };
                let ticket = Ticket::of(ticket);
                let leased = (connection, attributes);
                self.leases.add(&mut self.reception.store, worker, ticket, leased, None);
                if !self.reception.make_room() {
                    self.close_leased(worker, ticket);
                }
            }
            Report::LeasedSending(ticket, number, state) => {
                number.map(|number| self.settle(worker, number));
                let Some(Parcel { connection, input: Some(file) }) = parcel else { return };
                let (ticket, attributes) = (Ticket::of(ticket), state.attributes.clone());
                let sending = Some(Box::new(SendingFile { state, file }));
                let leased = (connection, attributes);
                self.leases.add(&mut self.reception.store, worker, ticket, leased, sending);
                if !self.reception.make_room() {
                    // It is the worker's alone.
                    drop(self.take_leased(worker, ticket));
                }
            }
            Report::Arrived(number, ticket) => {
                if let Some(Settled { descriptor, attributes, .. }) = self.settle(worker, number)
                    && let Some(ticket) = ticket.map(Ticket::of)
                {
                    let leased = (descriptor, attributes);
                    self.leases.add(&mut self.reception.store, worker, ticket, leased, None);
                }
            }
            Report::Declined(number, wakeup, state) => {
                let reserved = match self.reception.ends(worker.pool) {
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
        let key = self.reception.store.leased(worker.pid, ticket)?;
        Some(self.reception.store.leave(key)?.descriptor)
    }

    /// There is no descriptor for this leased connection, and no older one that waits: it is closed,
    /// unless its worker acts on it.
    fn close_leased(&mut self, worker: WorkerId, ticket: Ticket) {
        if let Some(revoked) = self.leases.revoke(&mut self.reception.store, worker, ticket) {
            self.reception.store.counts(worker.pool).shed += 1;
            close(revoked.descriptor);
        }
    }

    /// A connection that was sent to a worker is no longer on its way.
    fn settle(&mut self, worker: WorkerId, number: u64) -> Option<Settled> {
        if !self.reception.store.is_sent(worker.pid, number) {
            return None;
        }
        match self.reception.store.leave(number)? {
            SupervisedConnection {
                descriptor,
                location: Location::Sent(_, overflow, attributes, _),
                ..
            } => Some(Settled { descriptor, overflow, attributes }),
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
        let held = Held { reserved, ..self.reception.bounds.hold(state, overflow) };
        self.reception.queue_first(worker.pool, descriptor, held, wakeup);
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
            self.reception.store.counts(worker.pool).reclaimed += 1;
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
            self.reception.store.counts(pool).lost += 1;
            return;
        };
        let stage = state.stage;
        let held = self.reception.bounds.hold(state, input);
        match stage {
            Stage::Lingering { until, stall } => {
                self.reception.linger(pool, connection, until, stall, now)
            }
            Stage::Sending(_) | Stage::New => {
                self.reception.queue(pool, connection, held, Wakeup::None);
            }
            Stage::Ready if !self.reception.ends(pool) => {
                self.reception.queue(pool, connection, held, Wakeup::Input);
            }
            Stage::Ready | Stage::Waiting => self.reception.wait(pool, connection, held),
        }
        self.reception.bounds.bound_input(&mut self.reception.store);
    }

    /// Whether a connection waits that this worker may have.
    pub fn has_for(&self, worker: WorkerId, now: Instant) -> bool {
        self.reception.store.next_for(worker.pid, worker.pool, now).is_some()
    }

    /// Gives a worker a connection, if one waits that it may have.
    pub fn give(
        &mut self,
        worker: WorkerId,
        now: Instant,
        send: impl FnOnce(&Order, &[BorrowedFd<'_>]) -> Result<(), Errno>,
    ) -> Given {
        let key = self.reception.store.next_for(worker.pid, worker.pool, now);
        let Some(SupervisedConnection {
            pool,
            descriptor,
            location: Location::Queued(held, wakeup),
        }) = key.and_then(|key| self.reception.store.leave(key))
        else {
            return Given::Nothing;
        };
        let Held { state, mut input, overflow, reserved } = held;
        let (data, awaits) = input.take();
        let state = ConnectionState { data, awaits, ..state };
        let file = state.unsent().and_then(|unsent| unsent.file);
        let resumable = file.map(|_| Box::new(state.clone()));
        let location = Location::Sent(worker.pid, overflow, state.attributes.clone(), resumable);
        let Some(key) = self.reception.store.enter(pool, descriptor, location) else {
            return Given::Failed;
        };
        let order = Order::Resume(key, wakeup, Box::new(state));
        let sent = send(
            &order,
            &self
                .reception
                .store
                .get(key)
                .map(SupervisedConnection::descriptors)
                .unwrap_or_default(),
        );
        let (Err(errno), Order::Resume(number, _, mut state)) = (sent, order) else {
            return Given::Sent;
        };
        let Some(Settled { descriptor, overflow: mut file, .. }) = self.settle(worker, number)
        else {
            return Given::Failed;
        };
        if errno == Errno::EMSGSIZE && file.is_none() {
            // The kernel takes no such long messages.
            file = overflow::move_data(&mut state);
        }
        let held = Held { reserved, ..self.reception.bounds.hold(*state, file) };
        self.reception.queue_first(pool, descriptor, held, wakeup);
        Given::Failed
    }

    /// Revokes up to `most` leases of a worker, of connections that it has parked and does not act on.
    /// They go to the workers that may have them. Returns how many it has revoked.
    pub fn revoke(&mut self, worker: WorkerId, most: usize, reserved: Reserved) -> usize {
        let tickets: Vec<Ticket> =
            self.reception.store.leases(worker.pid).map(|(ticket, _)| ticket).collect();
        let revoked = tickets.into_iter().filter(|ticket| self.reassign(worker, *ticket, reserved));
        revoked.take(most).count()
    }

    /// Revokes the lease of one connection, if its worker has parked it and does not act on it.
    pub fn reassign(&mut self, worker: WorkerId, ticket: Ticket, reserved: Reserved) -> bool {
        let store = &mut self.reception.store;
        let Some(revoked) = self.leases.revoke(store, worker, ticket) else { return false };
        self.reclaim(worker.pool, revoked, reserved);
        true
    }

    /// A connection was taken from its worker: one that is being sent a file goes on in another one.
    fn reclaim(&mut self, pool: usize, revoked: Revoked, reserved: Reserved) {
        self.reception.store.counts(pool).reclaimed += 1;
        let Revoked { descriptor, state, file } = revoked;
        if file.is_some() {
            let held = Held { reserved, ..self.reception.bounds.hold(state, file) };
            return self.reception.queue(pool, descriptor, held, Wakeup::None);
        }
        self.reception.wait(pool, descriptor, Held { state, reserved, ..Held::default() });
    }

    /// A worker is dead: others get what it had parked or was about to give up. What it was acting on is reset.
    /// `lost`: what it had besides.
    pub fn remove_worker(&mut self, worker: WorkerId, lost: LostConnections) {
        let files = self.reception.store.sent_files(worker.pid) as u64;
        self.revoke(worker, usize::MAX, Reserved::No);
        let left = self.leases.left(&mut self.reception.store, worker);
        let interrupted = self.leases.interrupted(&mut self.reception.store, worker);
        for revoked in left.into_iter().chain(interrupted) {
            self.reclaim(worker.pool, revoked, Reserved::No);
        }
        let mut known = 0;
        for key in self.reception.store.of_worker(worker.pid) {
            match self.reception.store.leave(key) {
                Some(SupervisedConnection {
                    descriptor,
                    location: Location::Sent(_, Some(file), _, Some(state)),
                    ..
                }) => {
                    let revoked = Revoked { descriptor, state: *state, file: Some(file) };
                    self.reclaim(worker.pool, revoked, Reserved::No);
                }
                Some(connection) => {
                    known += 1;
                    self.lose(connection);
                }
                None => {}
            }
        }
        // That of the handler is leased, unless it is new.
        let handled = if known == 0 { u64::from(lost.handled) } else { known };
        self.reception.store.counts(worker.pool).lost +=
            handled + lost.others.saturating_sub(files);
        self.reception.store.remove_worker(worker.pid);
    }

    /// A connection breaks off with its worker. If its handler keeps something of it, another worker gets it once, finds it
    /// closed, and tells the handler.
    fn lose(&mut self, connection: SupervisedConnection) {
        let SupervisedConnection { pool, descriptor, location } = connection;
        let attributes = match location {
            Location::Leased(leased) => leased.attributes,
            Location::Sent(_, _, attributes, _) => attributes,
            _ => Attributes::default(),
        };
        if attributes.session.is_none()
            || ended(descriptor.as_fd()) == Ended::Both
            || !is_reset_by_closing(&descriptor)
        {
            return reset(descriptor);
        }
        disconnect(descriptor.as_fd());
        // The keys are no use without the numbers of its records.
        let attributes = Attributes { secured: None, ..attributes };
        let state = ConnectionState { attributes, ..ConnectionState::default() };
        self.reception.queue(pool, descriptor, Held { state, ..Held::default() }, Wakeup::Input);
    }

    /// The connections that a worker has on lease, and their turns since they were last sampled.
    pub fn sample(&mut self, worker: WorkerId) -> Vec<(Ticket, u64)> {
        self.leases.sample(&mut self.reception.store, worker)
    }

    /// The processors that received a leased connection's packets when this was last asked, and that
    /// receive them now. None for local sockets.
    pub fn sample_processor(&mut self, worker: WorkerId, ticket: Ticket) -> Option<(usize, usize)> {
        leases::sample_processor(&mut self.reception.store, worker, ticket)
    }

    /// A parked connection of a worker that has input which nobody has received, and its turns.
    pub fn with_unread_input(&self, worker: WorkerId) -> Option<(Ticket, u64)> {
        self.leases.with_unread_input(&self.reception.store, worker)
    }
}
