//! The parking lot: connections that wait, without occupying the worker, for their next input.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::connection::{Connection, Parked, State, Stay};
use super::places::Places;
use super::quiet_time::QuietTime;
use crate::server::ipc::clock;
use crate::server::ipc::lease::Lease;
use crate::server::ipc::message::MAX_PAYLOAD;
use crate::server::ipc::standing::Standing;
use crate::server::ipc::ticket::Ticket;
use crate::sys::os::monotonic::MonotonicTime;

/// How long a connection stays in its worker with incomplete input. Long enough for the rest of a
/// message that a client sends in several pieces, short enough that few are lost with their worker.
const REST_WITHIN: Duration = Duration::from_millis(20);

/// Why a parked connection is due without an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueConnection {
    /// Its time is up.
    Timeout(Ticket),
    /// It was quiet for so long that the supervisor is to have it.
    Cold(Ticket),
}

/// What one worker knows of its parked connections beside their places.
pub struct ParkingLot {
    alarms: BinaryHeap<Reverse<(MonotonicTime, Ticket)>>,
    quiet_time: QuietTime,
    /// All connections stay as long as hot ones, also with incomplete input.
    drains: bool,
    /// Parked connections that the supervisor does not know of.
    alone: usize,
    /// Connections that were parked with incomplete input, whatever became of them.
    incomplete: Vec<Ticket>,
    /// The sum of what parked connections hold.
    holds: usize,
}

impl ParkingLot {
    /// An empty lot.
    pub fn new(now: MonotonicTime) -> Self {
        ParkingLot {
            alarms: BinaryHeap::new(),
            quiet_time: QuietTime::new(now),
            drains: false,
            alone: 0,
            incomplete: Vec::new(),
            holds: 0,
        }
    }

    /// The server shuts down: all connections have the time of hot ones, here.
    pub fn begin_drain(&mut self, places: &mut Places) {
        self.drains = true;
        let parked: Vec<_> =
            places.all_parked().map(|(ticket, parked)| (ticket, parked.stay)).collect();
        for (ticket, stay) in parked {
            self.set_alarm(places, ticket, &stay);
        }
    }

    /// Gives back memory that many more connections took.
    pub fn shrink(&mut self) {
        self.alarms.shrink_to_fit();
        self.incomplete.shrink_to_fit();
    }

    /// How many connections are parked that the supervisor does not know of.
    pub fn alone(&self) -> usize {
        self.alone
    }

    /// How long the connection may be quiet before something is to be done about it.
    fn quiet_limit(&self, stay: &Stay) -> Option<Duration> {
        let limit = self.quiet_time.limit();
        match stay.incomplete {
            _ if self.drains => Some(limit),
            true => Some(REST_WITHIN),
            false => stay.movable.then_some(limit),
        }
    }

    /// When the connection is due without an event.
    fn due_at(&self, stay: &Stay) -> Option<MonotonicTime> {
        let quiet = self.quiet_limit(stay).map(|limit| stay.since + limit);
        [stay.deadline, quiet].into_iter().flatten().min()
    }

    /// Parks a running connection until input arrives or the deadline has come.
    pub fn park(
        &mut self,
        places: &mut Places,
        ticket: Ticket,
        connection: Connection,
        stay: Stay,
    ) {
        self.quiet_time.note_turn(places.len(), stay.since);
        let (standing, sequences) = {
            let stream = connection.stream.borrow();
            let progress = stream.duplex.session().map(|it| it.progress()).unwrap_or_default();
            (Standing::of_stream(&stream), (progress.receiving, progress.sending))
        };
        let Some(state) = places.state(ticket) else { return };
        *state = State::Parked(Parked { connection, stay });
        self.set_alarm(places, ticket, &stay);
        self.holds += stay.holds;
        if stay.incomplete {
            self.incomplete.push(ticket);
        }
        match places.lease(ticket) {
            None => self.alone += 1,
            Some(lease) if stay.movable => {
                lease.park(
                    ticket.generation,
                    stay.deadline.map(clock::monotonic_milliseconds),
                    standing,
                    sequences,
                );
            }
            Some(_) => {}
        }
    }

    /// One alarm for each place is enough: it is set anew when it rings too early.
    fn set_alarm(&mut self, places: &mut Places, ticket: Ticket, stay: &Stay) {
        if let (Some(due), Some(alarm)) = (self.due_at(stay), places.alarm(ticket))
            && alarm.is_none_or(|alarm| due < alarm)
        {
            *alarm = Some(due);
            self.alarms.push(Reverse((due, ticket)));
        }
    }

    /// A parked connection has no more time than until then.
    pub fn limit_deadline(&mut self, places: &mut Places, ticket: Ticket, until: MonotonicTime) {
        let Some(Parked { stay, .. }) = places.parked(ticket) else { return };
        stay.deadline = Some(stay.deadline.map_or(until, |deadline| deadline.min(until)));
        let stay = *stay;
        self.set_alarm(places, ticket, &stay);
    }

    /// The parked connection is running from now on. None if it is not parked, or not any more: the
    /// supervisor may have revoked its lease.
    pub fn take(&mut self, places: &mut Places, ticket: Ticket) -> Option<Parked> {
        self.end(places, ticket, |lease| lease.take(ticket.generation))
    }

    /// The same for a connection that the supervisor is to have, which gets it even if this process dies before it can
    /// say so.
    pub fn leave(&mut self, places: &mut Places, ticket: Ticket) -> Option<Parked> {
        self.end(places, ticket, |lease| lease.leave(ticket.generation))
    }

    #[inline(always)]
    fn end(
        &mut self,
        places: &mut Places,
        ticket: Ticket,
        end: impl FnOnce(Lease<'_>) -> bool,
    ) -> Option<Parked> {
        let movable = places.parked(ticket)?.stay.movable;
        if movable && places.lease(ticket).is_some_and(|lease| !end(lease)) {
            self.forget(places, ticket);
            return None;
        }
        self.remove(places, ticket)
    }

    fn remove(&mut self, places: &mut Places, ticket: Ticket) -> Option<Parked> {
        let alone = !places.is_leased(ticket);
        let state = places.state(ticket).filter(|state| matches!(state, State::Parked(_)))?;
        let State::Parked(parked) = std::mem::replace(state, State::Running) else { return None };
        self.alone -= usize::from(alone);
        self.holds -= parked.stay.holds;
        Some(parked)
    }

    /// Something came from the client of a parked connection: whether it still waits, because the
    /// input is incomplete even so.
    pub fn waits_on(&mut self, places: &mut Places, ticket: Ticket) -> bool {
        if self.incomplete.is_empty() {
            return false;
        }
        let parked = places.parked(ticket).filter(|parked| parked.stay.incomplete);
        let Some(Parked { connection, stay }) = parked else { return false };
        let received = {
            let mut stream = connection.stream.borrow_mut();
            if stream.duplex.receive_awaited() {
                return false;
            }
            stream.duplex.unread()
        };
        if received >= MAX_PAYLOAD {
            // It is too much for the supervisor by now.
            (stay.incomplete, stay.holds) = (false, received);
            self.holds += received;
        }
        true
    }

    /// Takes a connection that is parked with incomplete input.
    pub fn take_incomplete(&mut self, places: &mut Places) -> Option<(Ticket, Parked)> {
        if self.drains {
            return None;
        }
        while let Some(ticket) = self.incomplete.pop() {
            if places.parked(ticket).is_some_and(|parked| parked.stay.incomplete)
                && let Some(parked) = self.take(places, ticket)
            {
                return Some((ticket, parked));
            }
        }
        None
    }

    /// Takes the connection that has been parked longest with input that has to stay in this process, if
    /// all hold more than this many bytes of it.
    pub fn take_holder(&mut self, places: &mut Places, limit: usize) -> Option<(Ticket, Parked)> {
        if self.holds <= limit {
            return None;
        }
        let holders = places.all_parked().filter(|(_, parked)| parked.stay.holds > 0);
        let (ticket, _) = holders.min_by_key(|(_, parked)| parked.stay.since)?;
        self.take(places, ticket).map(|parked| (ticket, parked))
    }

    /// Forgets a connection that the supervisor has taken back: nothing is sent on it.
    fn forget(&mut self, places: &mut Places, ticket: Ticket) {
        let Some(Parked { connection, .. }) = self.remove(places, ticket) else { return };
        places.discharge(ticket, &connection);
        drop(connection.detach());
    }

    /// Forgets all connections that the supervisor has taken back.
    pub fn forget_revoked(&mut self, places: &mut Places) {
        let is_revoked = |ticket: Ticket| {
            places.lease(ticket).is_some_and(|lease| lease.is_revoked(ticket.generation))
        };
        let parked = places.all_parked().map(|(ticket, _)| ticket);
        let revoked: Vec<_> = parked.filter(|ticket| is_revoked(*ticket)).collect();
        revoked.into_iter().for_each(|ticket| self.forget(places, ticket));
    }

    /// A parked connection whose time is up, or that was quiet for long.
    pub fn due(&mut self, places: &mut Places, now: MonotonicTime) -> Option<DueConnection> {
        while let Some(Reverse((at, ticket))) = self.alarms.peek().copied() {
            if at > now {
                return None;
            }
            self.alarms.pop();
            let alarm = places.alarm(ticket).filter(|alarm| **alarm == Some(at));
            let Some(alarm) = alarm else { continue };
            *alarm = None;
            // With the handler: parking again sets the alarm anew.
            let Some(stay) = places.parked(ticket).map(|parked| parked.stay) else { continue };
            if stay.deadline.is_some_and(|deadline| deadline <= now) {
                return Some(DueConnection::Timeout(ticket));
            }
            let due = self.due_at(&stay);
            if due.is_some_and(|due| due <= now) {
                return Some(DueConnection::Cold(ticket));
            }
            if let Some(alarm) = places.alarm(ticket) {
                *alarm = due;
            }
            self.alarms.extend(due.map(|due| Reverse((due, ticket))));
        }
        None
    }

    /// When to look for what is due.
    pub fn next_alarm(&self) -> Option<MonotonicTime> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }
}
