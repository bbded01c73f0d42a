//! The connections of a worker between two runs of the handler: each goes where its state and what
//! happens to it say (see [`super::connection::State`]).

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

use nix::sys::epoll::Epoll;

use super::connection::{Connection, Parked, Running, Stay};
use super::control::{Control, WorkerPhase};
use super::disposition::Disposition;
use super::handover::{Arrival, state_of};
use super::handshake;
use super::holding::Holding;
use super::input_limit::InputLimit;
use super::outbox::{Outbox, SendOutcome};
use super::ownership::Ownership;
use super::parking::{DueConnection, ParkingLot};
use super::parking_terms::ParkingTerms;
use super::places::Places;
use super::prologue::{self, Prologue, Prologues};
use super::relays::Relays;
use super::request_log;
use crate::io::Wakeup;
use crate::server::ipc::connection_state::Stage;
use crate::server::ipc::lease::LeaseTable;
use crate::server::ipc::scoreboard::Counter;
use crate::server::ipc::ticket::Ticket;
use crate::server::listen::listener::Listener;
use crate::sys::os::monotonic::MonotonicTime;

/// Among so many connections, parked ones keep no empty buffers: each of 16 KiB would be touched again.
const CROWD: usize = 64;

/// All connections of a worker but the one that the handler has.
pub struct Connections {
    pub(super) owned: Ownership,
    pub(super) parking: ParkingLot,
    pub(super) outbox: Outbox,
    pub(super) relays: Relays,
    control: Rc<Control>,
    /// Parked connections that are due without an event: their turn comes after that of the others, so
    /// that a client that sends without end does not keep these waiting.
    pub ready: VecDeque<(Ticket, Wakeup)>,
    /// The way to the push process.
    pub holding: Option<Holding>,
    input_limit: InputLimit,
    /// Those whose beginning is not over.
    pub prologues: Prologues,
}

impl Connections {
    /// None yet, of the worker with that cell.
    pub fn new(
        epoll: Rc<Epoll>,
        control: Rc<Control>,
        (leases, cell): (Rc<LeaseTable>, usize),
        input_limit: usize,
        listeners: Rc<[Listener]>,
    ) -> Self {
        Connections {
            owned: Ownership::new(Places::new(epoll.clone(), leases, cell), control.clone()),
            parking: ParkingLot::new(MonotonicTime::now()),
            outbox: Outbox::new(epoll.clone()),
            relays: Relays::new(epoll),
            prologues: Prologues::new(control.clone(), listeners),
            input_limit: InputLimit::new(input_limit, control.clone()),
            control,
            ready: VecDeque::new(),
            holding: None,
        }
    }

    /// The places.
    pub fn places(&self) -> &Places {
        &self.owned.places
    }

    /// The places, for the Lua side.
    pub fn places_mut(&mut self) -> &mut Places {
        &mut self.owned.places
    }

    /// Whether the client of none has to take output.
    pub fn have_sent(&self) -> bool {
        self.outbox.is_empty() && self.relays.is_empty()
    }

    /// When something is due without an event.
    pub fn next_alarm(&self) -> Option<MonotonicTime> {
        [self.parking.next_alarm(), self.outbox.next_alarm()].into_iter().flatten().min()
    }

    /// What is due without an event, and what the supervisor has taken back.
    pub fn look_after(&mut self, now: MonotonicTime) {
        if self.control.cell().take_revocation() {
            self.parking.forget_revoked(&mut self.owned.places);
            self.outbox.forget_revoked(&mut self.owned);
        }
        while let Some(due) = self.parking.due(&mut self.owned.places, now) {
            match due {
                DueConnection::Timeout(ticket) => self.ready.push_back((ticket, Wakeup::Timeout)),
                // Hot connections have had time for one more request.
                DueConnection::Cold(ticket) if self.control.phase() == WorkerPhase::Draining => {
                    self.ready.push_back((ticket, Wakeup::Shutdown));
                }
                DueConnection::Cold(ticket) => self.hand_over_parked(ticket, false),
            }
        }
        self.outbox.end_stalled(&mut self.owned, now);
        self.control.cell().put(Counter::Parked, (self.parking.alone() + self.relays.len()) as u64);
        self.count_sending();
    }

    /// A connection is for the handler, unless its beginning is not over: a PROXY header, a TLS handshake.
    #[inline(always)]
    pub fn admit(&mut self, running: Running) -> Option<Running> {
        let is_over = prologue::is_over(&running.connection.stream.borrow());
        if is_over { Some(running) } else { self.begin(running) }
    }

    #[cold]
    #[inline(never)]
    fn begin(&mut self, running: Running) -> Option<Running> {
        match self.prologues.advance(running, &mut self.owned) {
            Prologue::Complete(running) => return Some(running),
            Prologue::Waits(running, until) => {
                let Running { connection, ticket, .. } = running;
                let (stream, now) = (connection.stream.clone(), MonotonicTime::now());
                let parked = self.park(connection, ticket, Some(until), now);
                if let Some(ticket) = parked.filter(|_| !stream.borrow().duplex.is_established()) {
                    let _ = self.owned.places.watch_for(ticket, &stream.borrow());
                }
            }
            Prologue::Over => {}
        }
        None
    }

    /// The handler is done with a connection. Returns its place if the worker keeps it.
    pub fn settle(&mut self, running: Running, now: MonotonicTime) -> Option<Ticket> {
        let (open, pending) = {
            let stream = running.connection.stream.borrow();
            (stream.is_open(), stream.duplex.pending() > 0)
        };
        if open && running.disposition == Disposition::Hold {
            match &self.holding {
                Some(holding) => holding.take(&mut self.owned, &mut self.relays, &running),
                None => self.reset(&running),
            }
            return None;
        }
        if !open {
            self.owned.close(&running.connection, running.ticket);
            return None;
        }
        if pending { self.send(running, now) } else { self.dispose(running, now) }
    }

    /// The handler has failed: its connection ends at once.
    pub fn reset(&mut self, running: &Running) {
        self.owned.reset(&running.connection, running.ticket);
    }

    /// What becomes of a connection that the handler is done with and whose output is sent.
    fn dispose(&mut self, running: Running, now: MonotonicTime) -> Option<Ticket> {
        let Running { connection, ticket, wakeup, disposition, .. } = running;
        request_log::sent(&mut connection.stream.borrow_mut());
        match disposition {
            Disposition::Close | Disposition::Hold => self.owned.close(&connection, ticket),
            // There is nothing left to wait for.
            Disposition::Park { .. } if wakeup == Wakeup::Shutdown => {
                self.owned.close(&connection, ticket);
            }
            Disposition::Park { timeout, .. } => {
                return self.park(connection, ticket, timeout.map(|timeout| now + timeout), now);
            }
            Disposition::Linger { timeout, stall }
                if connection.stream.borrow().duplex.is_tcp() =>
            {
                self.owned.linger(&connection, ticket, now + timeout, stall);
            }
            // Closing a local socket takes nothing from its peer.
            Disposition::Linger { .. } => self.owned.close(&connection, ticket),
        }
        None
    }

    /// Parks a connection, here or, if it is better off there, at the supervisor.
    fn park(
        &mut self,
        connection: Connection,
        ticket: Option<Ticket>,
        deadline: Option<MonotonicTime>,
        since: MonotonicTime,
    ) -> Option<Ticket> {
        let terms = ParkingTerms::of(&mut connection.stream.borrow_mut());
        if terms.is_bound || self.owned.places.len() >= CROWD {
            connection.stream.borrow_mut().duplex.release();
        }
        let ticket = ticket.map(|ticket| self.owned.tell_session(ticket, &connection));
        let Ok(ticket) = self.owned.place(&connection, ticket) else {
            // The kernel cannot watch it: its input would go unnoticed.
            self.owned.close(&connection, None);
            return None;
        };
        if !self.owned.places.is_leased(ticket) && terms.are_shared() {
            if !self.owned.places.has_lease(ticket) {
                self.owned.hand_over(&connection, Some(ticket), deadline, terms.has_input);
                return None;
            }
            self.owned.lease(ticket, &connection);
        }
        let drains = self.control.phase() == WorkerPhase::Draining;
        let (stay, wakeup) = terms.stay(since, deadline, drains);
        self.parking.park(&mut self.owned.places, ticket, connection, stay);
        if stay.holds > 0 {
            self.input_limit.enforce(&mut self.parking, &mut self.owned);
        }
        self.ready.extend(wakeup.map(|wakeup| (ticket, wakeup)));
        Some(ticket)
    }

    /// A parked connection is due: it is for the handler, unless its input does not suffice yet.
    pub fn wake(&mut self, ticket: Ticket, wakeup: Wakeup) -> Option<Running> {
        if wakeup == Wakeup::Input && self.prologues.defers(ticket, &mut self.owned.places) {
            return None;
        }
        self.resume(ticket, wakeup)
    }

    /// The same, and it is its turn.
    pub fn resume(&mut self, ticket: Ticket, wakeup: Wakeup) -> Option<Running> {
        if wakeup == Wakeup::Input && self.parking.waits_on(&mut self.owned.places, ticket) {
            self.input_limit.enforce(&mut self.parking, &mut self.owned);
            return None;
        }
        let Parked { connection, stay } = self.parking.take(&mut self.owned.places, ticket)?;
        // A failure is for the handler to see.
        if wakeup == Wakeup::Input && connection.stream.borrow_mut().duplex.skips().unwrap_or(false)
        {
            let movable = connection.stream.borrow().is_movable();
            let stay = Stay::until(stay.deadline, MonotonicTime::now(), movable);
            self.parking.park(&mut self.owned.places, ticket, connection, stay);
            return None;
        }
        connection.stream.borrow_mut().handler.parked_until = stay.deadline;
        Some(Running::new(connection, Some(ticket), wakeup))
    }

    /// A connection comes from the supervisor: it is for the handler, unless its output is to be sent first.
    pub fn receive(&mut self, arrival: Arrival) -> Option<Running> {
        let (mut running, unsent) = self.owned.take_up(arrival)?;
        let Some(unsent) = unsent else { return Some(running) };
        running.disposition = Disposition::left(&unsent);
        if matches!(running.disposition, Disposition::Linger { .. }) {
            // A failure shows with the next attempt.
            let _ = running.connection.stream.borrow_mut().finish_nb();
        }
        self.send(running, MonotonicTime::now());
        self.owned.confirm_arrival();
        None
    }

    fn count_sending(&self) {
        self.control.cell().put(Counter::Sending, self.outbox.len() as u64);
    }

    /// A handler is about to be called: connections whose input is incomplete go to the supervisor.
    pub fn before_handler(&mut self) {
        self.count_sending();
        while let Some((ticket, parked)) = self.parking.take_incomplete(&mut self.owned.places) {
            self.owned.hand_over(&parked.connection, Some(ticket), parked.stay.deadline, false);
        }
    }

    /// Gives a parked connection to the supervisor.
    pub fn hand_over_parked(&mut self, ticket: Ticket, ready: bool) {
        if let Some(Parked { connection, stay }) =
            self.parking.leave(&mut self.owned.places, ticket)
        {
            self.owned.hand_over(&connection, Some(ticket), stay.deadline, ready);
        }
    }

    /// Passes on a new connection, for any worker that has time.
    pub fn pass_new(&mut self, connection: &Connection) {
        let state = state_of(&connection.stream.borrow(), Stage::New);
        self.owned.give_up(connection, None, (state, None));
    }

    /// Sends the output of a connection that the handler is done with. Returns its place if the worker keeps it.
    fn send(&mut self, running: Running, now: MonotonicTime) -> Option<Ticket> {
        match self.outbox.send(&mut self.owned, running, now) {
            SendOutcome::Sent(running) => self.dispose(running, now),
            SendOutcome::Waits(ticket) => Some(ticket),
            SendOutcome::Lost => None,
        }
    }

    /// The client of a connection in the outbox takes more, or is gone.
    pub fn send_more(&mut self, ticket: Ticket) {
        let now = MonotonicTime::now();
        let Some(running) = self.outbox.advance(&mut self.owned, ticket, now) else { return };
        match running.disposition {
            Disposition::Park { timeout, .. }
                if self.control.phase() == WorkerPhase::Leaving
                    && running.wakeup != Wakeup::Shutdown =>
            {
                request_log::sent(&mut running.connection.stream.borrow_mut());
                let ready = running.connection.stream.borrow_mut().has_input();
                let deadline = timeout.map(|timeout| now + timeout);
                self.owned.hand_over(&running.connection, running.ticket, deadline, ready);
            }
            _ => drop(self.dispose(running, now)),
        }
    }

    /// Something has happened to a held connection whose session stays here. Returns it if it is for the handler.
    #[cold]
    #[inline(never)]
    pub fn relay(&mut self, ticket: Ticket) -> Option<Running> {
        let stays = self.control.phase() == WorkerPhase::Serving;
        let running = self.relays.advance(&mut self.owned, ticket, stays)?;
        if running.wakeup != Wakeup::None {
            return Some(running);
        }
        self.send(running, MonotonicTime::now());
        None
    }

    /// Resets the connection that is nearest to its `stall_timeout`. False if no descriptor has become free.
    pub fn end_slowest(&mut self) -> bool {
        self.outbox.end_slowest(&mut self.owned)
            || prologue::end_oldest(&mut self.parking, &mut self.owned)
    }

    /// From now on, connections stay here until they are cold: a request that has begun, or is on its way, is served.
    pub fn begin_drain(&mut self) {
        self.parking.begin_drain(&mut self.owned.places);
    }

    /// Whether connections are parked.
    pub fn have_parked(&self) -> bool {
        self.owned.places.all_parked().next().is_some()
    }

    /// The worker leaves: its parked connections go to the supervisor, which takes back leased ones by
    /// itself. `with_input`: connections with received input that a handler has yet to use.
    pub fn leave(&mut self, with_input: Vec<Ticket>) {
        self.relays.park_sockets(&mut self.owned, &mut self.parking);
        let ready = self.ready.iter().filter(|(_, wakeup)| *wakeup == Wakeup::Input);
        let with_input: HashSet<Ticket> =
            with_input.into_iter().chain(ready.map(|(ticket, _)| *ticket)).collect();
        let parked = self.owned.places.parked_alone().filter(|(_, it)| !it.is_told_of_leaving());
        let until = MonotonicTime::now() + handshake::LAST;
        for ticket in parked.map(|(ticket, _)| ticket).collect::<Vec<_>>() {
            if self.prologues.finish_handshake(ticket, &mut self.owned.places) {
                self.parking.limit_deadline(&mut self.owned.places, ticket, until);
            } else {
                self.hand_over_parked(ticket, with_input.contains(&ticket));
            }
        }
    }

    /// The worker has left: the next connection whose handler is to be told that it ends.
    pub fn next_to_tell(&mut self) -> Option<Running> {
        let (ticket, _) =
            self.owned.places.parked_alone().find(|(_, it)| it.is_told_of_leaving())?;
        self.resume(ticket, Wakeup::Shutdown)
    }

    /// The worker has left: whether nothing keeps it.
    pub fn are_done(&self) -> bool {
        self.have_sent() && self.prologues.are_finished(&self.owned.places)
    }

    /// The worker has left, and something happened to a connection that it still has.
    pub fn take_leave(&mut self, ticket: Ticket, wakeup: Wakeup) {
        if prologue::is_in_handshake(ticket, &mut self.owned.places) {
            // Also when its time is up: this process may have had no processor meanwhile.
            let running = self.resume(ticket, Wakeup::Input);
            if let Some(running) = running.and_then(|running| self.admit(running)) {
                return self.owned.hand_over_new(&running.connection, running.ticket);
            }
            if wakeup == Wakeup::Input {
                return;
            }
        }
        self.hand_over_parked(ticket, false);
    }

    /// In a child of the worker: gives up this process's descriptors of the connections.
    pub fn disown(&mut self) {
        request_log::forget();
        self.owned.places.all_parked().for_each(|(_, parked)| drop(parked.connection.detach()));
        self.outbox.disown();
        self.relays.disown();
    }
}
