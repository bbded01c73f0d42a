//! Taking connections back that were leased to a worker.

use std::time::Instant;

use super::guest::{Guest, Reserved, break_off, close_in_order};
use super::held_input::HeldInput;
use super::worker_entry::WorkerEntry;
use super::{PATIENCE, Supervisor};
use crate::io::Wakeup;
use crate::server::ipc::channel::Parcel;
use crate::server::ipc::lease::{Lease, LeaseTable};
use crate::server::ipc::ticket::Ticket;

impl Supervisor {
    /// Takes back up to `most` of the connections that a worker has parked and is not acting on. Other
    /// workers may have them first, if there are any. Gives how many it has taken.
    pub(super) fn revoke_leases(&mut self, pid: i32, most: usize) -> usize {
        let pool = self.workers.get(&pid).map(|worker| worker.pool);
        let serves = |w: &WorkerEntry| Some(w.pool) == pool && w.is_serving();
        let is_alone = !self.workers.values().any(|w| w.pid.as_raw() != pid && serves(w));
        let Some(worker) = self.workers.get(&pid) else { return 0 };
        let tickets = worker.tickets();
        let until = Instant::now() + PATIENCE;
        let reserved = if is_alone { Reserved::No } else { Reserved::Against(pid, until) };
        let revoked = tickets.into_iter().filter(|ticket| self.reassign(pid, *ticket, reserved));
        revoked.take(most).count()
    }

    /// Takes one connection back, if its worker has parked it, for those that may have it.
    pub(super) fn reassign(&mut self, pid: i32, ticket: Ticket, reserved: Reserved) -> bool {
        let Some(worker) = self.workers.get_mut(&pid) else { return false };
        let state = &mut self.pools[worker.pool];
        let Some(guest) = revoke(worker, &state.pool.leases, ticket, reserved) else {
            return false;
        };
        state.pool.scoreboard.cell(worker.cell).note_revocation();
        state.totals.reclaimed += 1;
        self.admit(guest);
        true
    }

    /// Whether a connection is leased, parked, and no worker is acting on it.
    pub(super) fn is_parked(&self, pid: i32, ticket: Ticket) -> bool {
        let lease = self.workers.get(&pid).and_then(|worker| {
            self.pools[worker.pool].pool.leases.lease(worker.cell, ticket.index())
        });
        lease.is_some_and(|lease| lease.is_parked(ticket.generation()))
    }

    /// There is no descriptor for this connection, and no older one that waits: it is closed,
    /// unless its worker is acting on it.
    pub(super) fn decline(&mut self, pid: i32, ticket: Ticket) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        let state = &mut self.pools[worker.pool];
        let lease = state.pool.leases.lease(worker.cell, ticket.index());
        if lease.is_some_and(|lease| lease.revoke(ticket.generation()).is_some()) {
            state.pool.scoreboard.cell(worker.cell).note_revocation();
            state.totals.shed += 1;
            if let Some(lent) = worker.leases.remove(&ticket) {
                close_in_order(lent.descriptor);
            }
        }
    }

    /// What a dead worker had parked. What it was acting on is reset.
    pub(super) fn inherit_leases(&mut self, worker: &mut WorkerEntry) {
        for ticket in worker.tickets() {
            let state = &mut self.pools[worker.pool];
            if let Some(guest) = revoke(worker, &state.pool.leases, ticket, Reserved::No) {
                state.totals.reclaimed += 1;
                self.admit(guest);
            }
        }
        let totals = &mut self.pools[worker.pool].totals;
        totals.lost += worker.connections() as u64;
        for (_, lent) in worker.leases.drain() {
            break_off(lent.descriptor);
        }
        for parcel in worker.in_flight.take() {
            break_off(parcel.connection);
        }
    }
}

/// Takes one of a worker's connections, if it is parked.
fn revoke(
    worker: &mut WorkerEntry,
    leases: &LeaseTable,
    ticket: Ticket,
    reserved: Reserved,
) -> Option<Guest> {
    let lease: Lease<'_> = leases.lease(worker.cell, ticket.index())?;
    let state = lease.revoke(ticket.generation())?;
    let parcel = Parcel::from(worker.leases.remove(&ticket)?.descriptor);
    let (pool, input, wakeup) = (worker.pool, HeldInput::default(), Wakeup::None);
    Some(Guest { pool, parcel, input, state, wakeup, reserved })
}
