//! Connections between two runs of a handler: leased to a worker, in the lobby, or on the way to a
//! worker that has time.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::guest::{Guest, Reserved};
use super::lent::Lent;
use super::lobby::Farewell;
use super::stranded::take_back_orders;
use super::worker_entry::WorkerEntry;
use super::{Phase, Supervisor};
use crate::io::Wakeup;
use crate::server::ipc::channel::Parcel;
use crate::server::ipc::clock;
use crate::server::ipc::connection_state::{ConnectionState, Stage};
use crate::server::ipc::message::Order;
use crate::server::ipc::scoreboard::{Activity, Cell};
use crate::server::ipc::ticket::Ticket;

/// How long a worker that did not take a connection does not get it again.
const DECLINED: Duration = Duration::from_secs(1);

impl Supervisor {
    /// A worker has parked a connection for the first time.
    pub(super) fn lease(&mut self, pid: i32, ticket: u64, parcel: Option<Parcel>) {
        let ticket = Ticket::of(ticket);
        // Without a descriptor (this process has too many) the connection is the worker's alone.
        let (Some(worker), Some(parcel)) = (self.workers.get_mut(&pid), parcel) else {
            return;
        };
        let lease = self.pools[worker.pool].pool.leases.lease(worker.cell, ticket.index());
        let turns = lease.map_or(0, |lease| lease.turns());
        if worker.leases.try_reserve(1).is_err() {
            return;
        }
        worker.leases.insert(ticket, Lent::new(parcel.connection, turns));
        if !self.make_room() {
            self.decline(pid, ticket);
        }
    }

    /// A connection that was handed to a worker is there. Without a ticket it is the worker's alone.
    pub(super) fn arrived(&mut self, pid: i32, number: u64, ticket: Option<u64>) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        let parcel = worker.in_flight.settle(number);
        let Some((parcel, ticket)) = parcel.zip(ticket.map(Ticket::of)) else { return };
        let lease = self.pools[worker.pool].pool.leases.lease(worker.cell, ticket.index());
        let turns = lease.map_or(0, |lease| lease.turns());
        if worker.leases.try_reserve(1).is_ok() {
            worker.leases.insert(ticket, Lent::new(parcel.connection, turns));
        }
    }

    /// A worker that ends, or has no descriptor left, does not take a connection: another one gets it.
    pub(super) fn declined(
        &mut self,
        pid: i32,
        number: u64,
        wakeup: Wakeup,
        state: ConnectionState,
    ) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        let pool = &mut self.pools[worker.pool];
        let Some(parcel) = worker.in_flight.settle(number) else { return };
        let reserved = match self.phase {
            Phase::Serving => Reserved::Against(pid, Instant::now() + DECLINED),
            _ => Reserved::No,
        };
        let guest = Guest::waiting(worker.pool, parcel, state, &self.memory.budget);
        pool.call_first(Guest { wakeup, reserved, ..guest });
    }

    /// A worker gives a connection up.
    pub(super) fn take_over(
        &mut self,
        pid: i32,
        ticket: Option<u64>,
        parcel: Option<Parcel>,
        state: ConnectionState,
    ) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        let leased = ticket.and_then(|ticket| worker.leases.remove(&Ticket::of(ticket)));
        let leased = leased.map(|lent| lent.descriptor);
        let pool = worker.pool;
        let Some(parcel) = parcel.or(leased.map(Parcel::from)) else {
            self.pools[pool].totals.lost += 1;
            return;
        };
        let is_new = state.data.is_empty() && parcel.input.is_none();
        let stage = state.stage;
        if let Stage::Lingering { until, stall } = stage {
            return self.linger(pool, parcel.connection, until, stall);
        }
        let guest = Guest::waiting(pool, parcel, state, &self.memory.budget);
        match stage {
            Stage::Sending(_) => self.pools[pool].call(guest),
            Stage::Ready if is_new => self.pools[pool].call(guest),
            Stage::Ready if self.phase == Phase::Serving => {
                self.pools[pool].call(Guest { wakeup: Wakeup::Input, ..guest });
            }
            _ => self.admit(guest),
        }
        self.bound_input();
    }

    /// A connection whose response is out is discarding its input.
    fn linger(&mut self, pool: usize, descriptor: OwnedFd, until: u64, stall: Option<u64>) {
        let now = Instant::now();
        let patience = clock::instant(until).saturating_duration_since(now);
        let stall = stall.map(Duration::from_millis);
        // If it cannot be watched it is reset here and now.
        match self.lobby.linger(Farewell { descriptor, patience, stall }, now) {
            Ok(()) => {
                self.make_room();
            }
            Err(_) => self.pools[pool].totals.lost += 1,
        }
    }

    /// Takes over what a dead worker had parked, and what was sent to it and not received. What it
    /// was acting on is reset.
    pub(super) fn inherit(&mut self, worker: &mut WorkerEntry) {
        let state = &mut self.pools[worker.pool];
        take_back_orders(worker, state, &mut self.inbox, &self.memory.budget);
        self.inherit_leases(worker);
    }

    /// Takes a connection into the lobby; at a shutdown it is told at once.
    pub(super) fn admit(&mut self, guest: Guest) {
        if self.phase == Phase::Serving {
            let pool = guest.pool;
            if self.lobby.admit(guest).is_err() {
                self.pools[pool].totals.lost += 1;
                self.tell_shed(1, "the system could not watch them");
            }
            self.make_room();
        } else {
            self.pools[guest.pool].call(guest.dismissed());
        }
    }

    /// A connection in the lobby has input.
    pub(super) fn guest(&mut self, number: u64) {
        if let Some(guest) = self.lobby.event(number) {
            self.pools[guest.pool].call(guest);
        }
        self.bound_input();
    }

    /// Everyone in the lobby is told that the server shuts down. From now on each worker may be the
    /// last one: nothing is reserved.
    pub(super) fn dismiss_guests(&mut self) {
        while let Some(guest) = self.lobby.dismiss() {
            self.pools[guest.pool].call(guest);
        }
        for guest in self.pools.iter_mut().flat_map(|state| &mut state.callers) {
            guest.reserved = Reserved::No;
        }
    }

    /// Looks after the waiting connections; tells when to look again.
    pub(super) fn attend_guests(&mut self, now: Instant) -> Option<Instant> {
        while let Some(guest) = self.lobby.expired(now) {
            self.pools[guest.pool].call(guest);
        }
        self.relieve(now);
        [self.lobby.next_alarm(), self.next_round].into_iter().flatten().min()
    }

    /// Hands what is due to workers that have time: ticks first, then connections. Tells when to
    /// look again.
    pub(super) fn assign(&mut self, index: usize, now: Instant) -> Option<Instant> {
        let next = self.pools[index].timers.iter_mut().filter_map(|timer| timer.advance(now)).min();
        while let Some(pid) = self.idle_worker(index, now, |cell| cell.claim()) {
            let Some(worker) = self.workers.get_mut(&pid) else { break };
            let state = &mut self.pools[index];
            if !state.give_work(worker, now) {
                state.pool.scoreboard.cell(worker.cell).release();
            }
        }
        // Asked before the second look, so that a worker that becomes idle in between is seen.
        let state = &self.pools[index];
        let waiting = state.has_work();
        state.pool.scoreboard.want_offers(waiting);
        let released = state.released(now);
        let idle = |cell: Cell<'_>| cell.activity() == Activity::Idle;
        if waiting && self.idle_worker(index, now, idle).is_some() {
            return Some(now);
        }
        next.into_iter().chain(released).min()
    }

    /// A worker of the pool that is idle, for which something waits, and that passes the test: the
    /// one with the fewest connections, so that they spread over the workers.
    fn idle_worker(
        &self,
        index: usize,
        now: Instant,
        test: impl Fn(Cell<'_>) -> bool,
    ) -> Option<i32> {
        let state = &self.pools[index];
        if !state.has_work() {
            return None;
        }
        let mut idle: Vec<&WorkerEntry> = self
            .workers
            .values()
            .filter(|worker| worker.pool == index && worker.is_serving())
            .filter(|worker| worker.attention.can_be_told(now))
            .filter(|worker| {
                let cell = state.pool.scoreboard.cell(worker.cell);
                cell.activity() == Activity::Idle && state.has_work_for(worker.pid.as_raw(), now)
            })
            .collect();
        idle.sort_by_key(|worker| worker.leases.len());
        let found = idle.into_iter().find(|w| test(state.pool.scoreboard.cell(w.cell)))?;
        Some(found.pid.as_raw())
    }

    /// A worker has time: it gets what waits for one, or leave to go on.
    pub(super) fn answer_offer(&mut self, pid: i32) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        let state = &mut self.pools[worker.pool];
        if self.phase != Phase::Serving {
            for timer in &mut state.timers {
                timer.give_up();
            }
        } else if !worker.is_serving() {
            // It was told to end before it had made its offer, and would drop what it gets.
            return worker.order(&Order::Nothing);
        }
        state.give_work(worker, Instant::now());
    }

    /// Keeps some descriptors free: the oldest waiting connections are closed when there are too
    /// many. False if that did not suffice.
    pub(super) fn make_room(&mut self) -> bool {
        let leased: usize = self.workers.values().map(WorkerEntry::connections).sum();
        let callers: usize = self.pools.iter().map(|state| state.callers.len()).sum();
        // Both ends of a worker's channel and its standard error.
        let workers = 3 * self.workers.len();
        let held = self.lobby.len() + leased + callers + workers;
        for _ in self.descriptor_budget..held {
            match self.lobby.oldest() {
                Some(guest) => {
                    self.pools[guest.pool].totals.shed += 1;
                    guest.close();
                }
                None => return false,
            }
        }
        true
    }
}
