//! Who owns the connections of a worker: it keeps them, leases them, gives them up or ends them, and tells
//! the supervisor.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::connection::{Connection, Running, State};
use super::control::Control;
use super::disposition::milliseconds;
use super::handover::{self, Arrival, Departure, Packed};
use super::places::Places;
use super::request_log;
use crate::io::session::Session;
use crate::server::ipc::attributes::Attributes;
use crate::server::ipc::channel::Parcel;
use crate::server::ipc::clock;
use crate::server::ipc::connection_state::{ConnectionState, Stage, Unsent};
use crate::server::ipc::message::Report;
use crate::server::ipc::ticket::Ticket;
use crate::sys::os::monotonic::MonotonicTime;

/// The places of a worker's connections, and what the supervisor knows of them.
pub struct Ownership {
    pub places: Places,
    control: Rc<Control>,
    /// A connection to which a file is sent has come from the supervisor, with this number. Until it is leased, or
    /// confirmed otherwise, the supervisor would give it to another worker if this one died.
    arriving: Option<u64>,
}

impl Ownership {
    /// Of no connections yet.
    pub fn new(places: Places, control: Rc<Control>) -> Self {
        Ownership { places, control, arriving: None }
    }

    /// The place of a connection, which gets one if it has none yet.
    ///
    /// # Errors
    /// The kernel cannot watch it.
    pub fn place(
        &mut self,
        connection: &Connection,
        ticket: Option<Ticket>,
    ) -> Result<Ticket, Errno> {
        ticket.map_or_else(|| self.places.admit(connection), Ok)
    }

    /// The connection is in another state from now on.
    pub fn enter(&mut self, ticket: Ticket, next: State) {
        if let Some(state) = self.places.state(ticket) {
            *state = next;
        }
    }

    /// Takes up a connection that comes from the supervisor. Its previous worker, which may be busy, holds a duplicate
    /// until it has noticed. Returns it with its output that is to be sent first, if there is some.
    pub fn take_up(&mut self, arrival: Arrival) -> Option<(Running, Option<Unsent>)> {
        request_log::forget_last();
        let Arrival { number, parcel, wakeup, state } = arrival;
        let queued = state.queued.map(clock::monotonic_at);
        let Ok((stream, unsent)) = handover::take_up(parcel, state) else {
            self.control.report(&Report::Arrived(number, None));
            return None;
        };
        let connection = Connection::new(stream);
        let ticket = match unsent.and_then(|unsent| unsent.file) {
            None => self.receive(&connection, number),
            Some(_) => {
                self.arriving = Some(number);
                let mut stream = connection.stream.borrow_mut();
                // A failure shows with the next attempt.
                if matches!(stream.duplex.flush_nb(), Ok(0) | Err(_)) {
                    self.confirm_arrival();
                }
                None
            }
        };
        Some((Running { queued, ..Running::new(connection, ticket, wakeup) }, unsent))
    }

    /// A connection has come from the supervisor, which has a duplicate. Returns its place, unless the kernel
    /// cannot watch it.
    fn receive(&mut self, connection: &Connection, number: u64) -> Option<Ticket> {
        let ticket = self.places.admit(connection).ok();
        let leased = ticket.filter(|ticket| self.places.has_lease(*ticket));
        if let Some(ticket) = leased {
            self.places.set_leased(ticket);
        }
        self.control.report(&Report::Arrived(number, leased.map(Ticket::number)));
        ticket
    }

    /// Gives the supervisor a duplicate of a connection.
    pub fn lease(&mut self, ticket: Ticket, connection: &Connection) {
        let leased = {
            let stream = connection.stream.borrow();
            let descriptor: Vec<_> = stream.duplex.fd().into_iter().collect();
            let attributes = Attributes::of_stream(&stream);
            self.control.try_send(&Report::Leased(ticket.number(), attributes), &descriptor)
        };
        if leased.is_ok() {
            self.places.set_leased(ticket);
            let mut stream = connection.stream.borrow_mut();
            stream.set_keys_told();
            if let Some(session) = &mut stream.handler.session {
                session.set_told();
            }
        }
    }

    /// What has come is this worker's from now on, unless it is leased.
    pub fn confirm_arrival(&mut self) {
        if let Some(number) = self.arriving.take() {
            self.control.report(&Report::Arrived(number, None));
        }
    }

    /// Gives the supervisor duplicates of a connection that has nothing left to send but a file, and of the file. True
    /// if somebody else can go on with it from now on.
    pub fn lease_sending(&mut self, ticket: Ticket, departure: &Departure) -> bool {
        let has_file = departure.connection.stream.borrow().duplex.output.file().is_some();
        if !has_file || !self.places.has_lease(ticket) {
            return false;
        }
        let Ok((state, Some(file))) = handover::sending(departure) else { return false };
        let is_leased = state.unsent().is_some_and(|unsent| unsent.file.is_some()) && {
            let mut stream = departure.connection.stream.borrow_mut();
            let report = Report::LeasedSending(ticket.number(), self.arriving, state);
            let descriptors: Vec<_> =
                stream.duplex.fd().into_iter().chain([file.as_fd()]).collect();
            let told =
                descriptors.len() == 2 && self.control.try_send(&report, &descriptors).is_ok();
            if told {
                self.arriving = None;
                request_log::shared(&mut stream);
            }
            told
        };
        if is_leased {
            self.places.set_leased(ticket);
        }
        is_leased
    }

    /// The connection is this worker's alone until it is leased again. Returns its name from now on.
    pub fn end_lease(&mut self, ticket: Ticket) -> Ticket {
        let Some(renamed) = self.places.end_lease(ticket) else { return ticket };
        self.control.report(&Report::Released(ticket.number()));
        renamed
    }

    /// As [`Ownership::end_lease`], for a connection whose state the supervisor does not know any more.
    pub fn rename(&mut self, ticket: Ticket, connection: &Connection) -> Ticket {
        let renamed = self.end_lease(ticket);
        if renamed != ticket {
            // The epoll set reports the name. If this fails, no events come any more.
            let _ = self.places.watch(renamed, connection);
        }
        renamed
    }

    /// As [`Ownership::rename`], if the handler keeps something else of the connection than the supervisor
    /// knows, or if keys have changed.
    pub fn tell_session(&mut self, ticket: Ticket, connection: &Connection) -> Ticket {
        let is_told = {
            let stream = connection.stream.borrow();
            let session = stream.handler.session.as_deref();
            stream.are_keys_told() && session.is_none_or(Session::is_told)
        };
        if is_told { ticket } else { self.rename(ticket, connection) }
    }

    /// Gives a connection to the supervisor until its client sends something, or, if what it has sent
    /// already is `ready` to be used, for another worker.
    pub fn hand_over(
        &mut self,
        connection: &Connection,
        ticket: Option<Ticket>,
        deadline: Option<MonotonicTime>,
        ready: bool,
    ) {
        if connection.stream.borrow().is_bound() {
            // Its keys are this process's.
            return self.close(connection, ticket);
        }
        let packed = handover::waiting(&connection.stream.borrow(), deadline, ready);
        match packed {
            Ok(packed) => self.give_up(connection, ticket, packed),
            // What it has sent cannot follow it.
            Err(_) => self.reset(connection, ticket),
        }
    }

    /// Gives a connection that no handler has seen to the supervisor, for another worker.
    pub fn hand_over_new(&mut self, connection: &Connection, ticket: Option<Ticket>) {
        let packed = {
            let stream = connection.stream.borrow();
            stream.is_movable().then(|| handover::waiting(&stream, None, false))
        };
        match packed {
            Some(Ok((state, file))) => {
                let state = ConnectionState { stage: Stage::New, ..state };
                self.give_up(connection, ticket, (state, file));
            }
            _ => self.close(connection, ticket),
        }
    }

    /// Gives a connection that lingers to the supervisor.
    pub fn linger(
        &mut self,
        connection: &Connection,
        ticket: Option<Ticket>,
        until: MonotonicTime,
        stall: Option<Duration>,
    ) {
        let until = clock::monotonic_milliseconds(until);
        let stage = Stage::Lingering { until, stall: stall.map(milliseconds) };
        let state = handover::state_of(&connection.stream.borrow(), stage);
        self.give_up(connection, ticket, (state, None));
    }

    /// Before a handler forks: the supervisor gets a duplicate of its connection, as of parked ones. If the worker
    /// dies, the supervisor ends the connection, which the child would keep open.
    pub fn insure(&mut self, running: &mut Running) {
        // The handler may be at work on the stream, or have closed it.
        if !running.connection.stream.try_borrow().is_ok_and(|stream| stream.is_open()) {
            return;
        }
        // If nobody can watch it, it is the worker's alone.
        let Ok(ticket) = self.place(&running.connection, running.ticket) else { return };
        running.ticket = Some(ticket);
        if self.places.has_lease(ticket) && !self.places.is_leased(ticket) {
            self.lease(ticket, &running.connection);
        }
    }

    /// Gives a connection to the supervisor.
    pub fn give_up(&mut self, connection: &Connection, ticket: Option<Ticket>, packed: Packed) {
        let leased = ticket.filter(|ticket| self.places.is_leased(*ticket));
        if let Some(ticket) = ticket {
            self.places.discharge(ticket, connection);
        }
        let (state, input) = packed;
        let report = Report::HandedOver(leased.map(Ticket::number), state);
        let Some(descriptor) = connection.detach() else { return };
        // Also if it is leased: the supervisor may have had no room for its duplicate.
        self.control.send(&report, &Parcel { connection: descriptor, input }.descriptors());
        if let Some(ticket) = leased {
            self.places.free_lease(ticket);
        }
    }

    /// Gives up a connection, which another process will have. Returns its descriptor.
    pub fn let_go(&mut self, connection: &Connection, ticket: Option<Ticket>) -> Option<OwnedFd> {
        let leased = ticket.filter(|ticket| self.places.is_leased(*ticket));
        if let Some(ticket) = ticket {
            self.places.discharge(ticket, connection);
        }
        // Before it is passed on: the supervisor would reset what a dead worker had.
        if let Some(ticket) = leased {
            self.control.report(&Report::Released(ticket.number()));
        }
        connection.detach()
    }

    /// Ends a connection at once.
    pub fn reset(&mut self, connection: &Connection, ticket: Option<Ticket>) {
        let mut stream = connection.stream.borrow_mut();
        request_log::lost(&mut stream);
        if stream.is_open() {
            let _ = stream.reset();
        }
        drop(stream);
        self.release(ticket, connection);
    }

    /// Closes a connection, unless the handler has. Its failure concerns the client alone.
    pub fn close(&mut self, connection: &Connection, ticket: Option<Ticket>) {
        let mut stream = connection.stream.borrow_mut();
        request_log::lost(&mut stream);
        if stream.is_open() {
            let _ = stream.close();
        }
        drop(stream);
        self.release(ticket, connection);
    }

    /// Gives up the place of a closed connection.
    fn release(&mut self, ticket: Option<Ticket>, connection: &Connection) {
        let Some(ticket) = ticket else {
            drop(connection.stream.borrow_mut().take_closed());
            return;
        };
        let leased = self.places.is_leased(ticket);
        self.places.discharge(ticket, connection);
        if leased {
            self.control.report(&Report::Released(ticket.number()));
        }
    }
}
