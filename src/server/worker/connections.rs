//! What becomes of a worker's connections: new ones, those the handler is done with, those that are
//! better off elsewhere.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mlua::Lua;
use nix::errno::Errno;

use super::accept::Accepted;
use super::fate::milliseconds;
use super::parking::{Connection, Stay, detach};
use super::{Arrival, Fate, Phase, Source, Task, Worker, complain};
use crate::glue;
use crate::io::{Stream, Wakeup, new_handle, stream_of};
use crate::server::ipc::channel::Parcel;
use crate::server::ipc::clock;
use crate::server::ipc::connection_state::{ConnectionState, Stage};
use crate::server::ipc::message::{MAX_PAYLOAD, Report};
use crate::server::ipc::overflow;
use crate::server::ipc::scoreboard::Counter;
use crate::server::ipc::ticket::Ticket;
use crate::sys::lua::class;

impl Worker {
    /// What becomes of the thing the handler had.
    pub(super) fn settle(&mut self) {
        match self.task.take() {
            None => {}
            Some(Task::Listener(index)) => self.report(&Report::Ran(index)),
            Some(Task::Connection { connection, ticket, fate, wakeup }) => {
                let (open, pending) = {
                    let stream = connection.stream.borrow();
                    (stream.is_open(), stream.pending() > 0)
                };
                if !open {
                    self.close(&connection, ticket);
                } else if pending {
                    self.send_off(connection, ticket, fate, wakeup);
                } else {
                    self.part(connection, ticket, fate, wakeup);
                }
            }
        }
    }

    /// What becomes of a connection that the handler is done with and whose output is sent.
    pub(super) fn part(
        &mut self,
        connection: Connection,
        ticket: Option<Ticket>,
        fate: Fate,
        wakeup: Wakeup,
    ) {
        match fate {
            Fate::Close => self.close(&connection, ticket),
            // There is nothing left to wait for.
            Fate::Park { .. } if wakeup == Wakeup::Shutdown => self.close(&connection, ticket),
            Fate::Park { now, deadline, .. } => {
                let stay = Stay { now, deadline, movable: true, incomplete: false, holds: 0 };
                let parked = self.keep(connection, ticket, stay);
                if self.phase == Phase::Draining {
                    // At once, so that a client that is never quiet keeps no server.
                    let idle = parked.filter(|ticket| !self.parking.is_incomplete(*ticket));
                    let farewell = |ticket| Source::Parked(ticket, Wakeup::Shutdown);
                    self.queue.extend(idle.map(farewell));
                }
            }
            Fate::Linger { until, stall } if connection.stream.borrow().is_tcp() => {
                self.linger(&connection, ticket, until, stall);
            }
            // Closing a local socket takes nothing from its peer.
            Fate::Linger { .. } => self.close(&connection, ticket),
        }
    }

    /// Looks whether the handler has given the connection's handle fields of its own.
    pub(super) fn note_fields(&mut self, lua: &Lua) {
        let assignments = class::assignments();
        if let Some(Task::Connection { connection, .. }) = &self.task
            && let Some(handle) = &connection.handle
            && assignments != self.assignments
        {
            let personal = class::has_user_fields(lua, handle);
            connection.stream.borrow_mut().set_personal(personal);
            self.assignments = assignments;
        }
    }

    /// Parks a connection, here or, if it is better off there, at the supervisor. Gives its ticket
    /// if it is here.
    fn keep(
        &mut self,
        connection: Connection,
        ticket: Option<Ticket>,
        stay: Stay,
    ) -> Option<Ticket> {
        let (has_input, received, personal) = {
            let mut stream = connection.stream.borrow_mut();
            (stream.has_input(), stream.input().len(), stream.is_personal())
        };
        // The rest may come at once. It would be stuck here with a handler that runs for long, though:
        // see `hand_in`.
        let lacks_input = !has_input && received > 0;
        let incomplete = lacks_input && received < MAX_PAYLOAD && !personal;
        let Ok(ticket) = ticket.map_or_else(|| self.parking.admit(&connection), Ok) else {
            // The system cannot watch it: better an end than a connection nobody hears.
            self.close(&connection, None);
            return None;
        };
        if !self.parking.is_leased(ticket) && !lacks_input && !personal {
            if !self.parking.has_lease(ticket) {
                self.hand_over(connection, Some(ticket), stay.deadline, has_input);
                return None;
            }
            self.lend(ticket, &connection);
        }
        // What other processes cannot have stays with this worker, whatever happens: input that
        // was received is not in the duplicate.
        let movable = received == 0 && !personal;
        let holds = if lacks_input && !incomplete { received } else { 0 };
        self.parking.park(ticket, connection, Stay { movable, incomplete, holds, ..stay });
        if holds > 0 {
            self.bound_input();
        }
        if has_input {
            self.ready.push_back(ticket);
        }
        Some(ticket)
    }

    /// Something came from the client of a parked connection: whether it still waits, because the input
    /// is incomplete even so.
    pub(super) fn waits_on(&mut self, ticket: Ticket) -> bool {
        let waits = self.parking.waits_on(ticket);
        self.bound_input();
        waits
    }

    /// Closes connections that have waited longest with incomplete input that only this worker can hold, as
    /// long as all hold more of it than they may.
    fn bound_input(&mut self) {
        let mut closed = 0;
        while let Some((ticket, connection)) = self.parking.take_holder(self.input_limit) {
            self.close(&connection, Some(ticket));
            closed += 1;
        }
        if closed > 0
            && let Some(closed) = self.shed.tell(closed, Instant::now())
        {
            let limit = self.input_limit;
            complain(&format!(
                "{closed} waiting connections were closed: together they held more than {limit} bytes of input"
            ));
        }
    }

    /// A handler is about to be called, for whatever time: connections whose input is incomplete go
    /// to the supervisor.
    pub(super) fn hand_in(&mut self) {
        while let Some((ticket, connection, deadline)) = self.parking.take_incomplete() {
            self.hand_over(connection, Some(ticket), deadline, false);
        }
    }

    /// A parked connection has input: discards what is to be skipped of it. If nothing else has come,
    /// it stays parked, and true is returned.
    pub(super) fn skips(
        &mut self,
        connection: &Connection,
        ticket: Ticket,
        deadline: Option<Instant>,
        wakeup: Wakeup,
    ) -> bool {
        // A failure is for the handler to see.
        let skips =
            wakeup == Wakeup::Input && connection.stream.borrow_mut().skips().unwrap_or(false);
        if skips {
            let movable = !connection.stream.borrow().is_personal();
            let stay = Stay { now: Instant::now(), deadline, movable, incomplete: false, holds: 0 };
            self.parking.park(ticket, connection.clone(), stay);
        }
        skips
    }

    /// Gives the supervisor a duplicate of a connection.
    pub(super) fn lend(&mut self, ticket: Ticket, connection: &Connection) {
        let lent = {
            let stream = connection.stream.borrow();
            let descriptor: Vec<_> = stream.fd().into_iter().collect();
            self.channel.send_patiently(&Report::Leased(ticket.number()), &descriptor)
        };
        if lent.is_ok() {
            self.parking.set_leased(ticket);
        }
    }

    /// Gives a connection to the supervisor until its client speaks, or, if what it has said
    /// already is `ready` to be used, for another worker.
    pub(super) fn hand_over(
        &mut self,
        connection: Connection,
        ticket: Option<Ticket>,
        deadline: Option<Instant>,
        ready: bool,
    ) {
        let mut data = connection.stream.borrow().input().to_vec();
        let stage = if ready && !data.is_empty() { Stage::Ready } else { Stage::Waiting };
        let mut input = None;
        if data.len() > MAX_PAYLOAD {
            match overflow::store(&[&data]) {
                Ok(file) => input = Some(file),
                // What it has sent cannot follow it.
                Err(_) => return self.reset(&connection, ticket),
            }
            data = Vec::new();
        }
        let deadline = deadline.map(clock::milliseconds);
        let state = state_of(&connection.stream.borrow(), stage);
        let state = ConnectionState { deadline, data, ..state };
        self.give_up(&connection, ticket, input, state);
    }

    /// Gives a connection to the supervisor, which waits for the client's end.
    fn linger(
        &mut self,
        connection: &Connection,
        ticket: Option<Ticket>,
        until: Instant,
        stall: Option<Duration>,
    ) {
        let (until, stall) = (clock::milliseconds(until), stall.map(milliseconds));
        let state = state_of(&connection.stream.borrow(), Stage::Lingering { until, stall });
        self.give_up(connection, ticket, None, state);
    }

    pub(super) fn give_up(
        &mut self,
        connection: &Connection,
        ticket: Option<Ticket>,
        input: Option<OwnedFd>,
        state: ConnectionState,
    ) {
        let leased = ticket.filter(|ticket| self.parking.is_leased(*ticket));
        if let Some(ticket) = ticket {
            self.parking.discharge(ticket, connection);
        }
        let report = Report::HandedOver(leased.map(Ticket::number), state);
        let Some(descriptor) = detach(connection) else { return };
        let parcel = Parcel { connection: descriptor, input };
        // Also if it is leased: the supervisor may have had no room for its duplicate.
        self.send(&report, &parcel.descriptors());
    }

    /// Ends a connection at once.
    pub(super) fn reset(&mut self, connection: &Connection, ticket: Option<Ticket>) {
        if !connection.stream.borrow().is_closed() {
            let _ = connection.stream.borrow_mut().reset();
        }
        self.release(ticket, connection);
    }

    /// Closes a connection that the handler left open. Its failure concerns the client alone.
    fn close(&mut self, connection: &Connection, ticket: Option<Ticket>) {
        {
            let mut stream = connection.stream.borrow_mut();
            if !stream.is_closed() {
                let _ = stream.close();
            }
        }
        self.release(ticket, connection);
    }

    /// Gives up the place of a closed connection.
    pub(super) fn release(&mut self, ticket: Option<Ticket>, connection: &Connection) {
        let Some(ticket) = ticket else {
            drop(connection.stream.borrow_mut().take_remains());
            return;
        };
        let leased = self.parking.is_leased(ticket);
        self.parking.discharge(ticket, connection);
        if leased {
            self.report(&Report::Released(ticket.number()));
        }
    }

    /// Asks a listener for a new connection.
    pub(super) fn accept(&mut self, listener: usize) -> Option<Stream> {
        match self.acceptor.accept(listener) {
            Accepted::Connection(stream) => {
                self.cell().add(Counter::Accepted, 1);
                return Some(stream);
            }
            Accepted::Nothing => {}
            Accepted::Closed => self.acceptor.watch(false).unwrap_or(()),
            Accepted::Refused(errno) => self.cannot_accept(errno),
        }
        None
    }

    /// Takes a connection from the supervisor. Its previous worker, which may be busy, holds a duplicate
    /// until it has noticed.
    pub(super) fn take_in(&mut self, lua: &Lua, arrival: Arrival) -> mlua::Result<()> {
        let Arrival { number, parcel, wakeup, state } = arrival;
        let Parcel { connection, input } = parcel;
        let unsent = state.unsent();
        let mut stream = Stream::accepted(connection, state.peer.map(Into::into));
        stream.set_served();
        stream.set_standing(state.standing);
        let Ok(bytes) = input.map_or(Ok(state.data), overflow::load) else {
            // What belongs to it is gone.
            let _ = stream.reset();
            self.report(&Report::Arrived(number, None));
            return Ok(());
        };
        let sent = unsent.map_or(0, |unsent| unsent.bytes);
        let sent = usize::try_from(sent).unwrap_or(usize::MAX).min(bytes.len());
        stream.preload_output(&bytes[..sent]);
        stream.preload(&bytes[sent..]);
        stream.set_parked_until(state.deadline.map(clock::instant));
        let Some(connection) = Self::connection(lua, stream)? else { return Ok(()) };
        let ticket = self.parking.admit(&connection).ok();
        let leased = ticket.filter(|ticket| self.parking.has_lease(*ticket));
        if let Some(ticket) = leased {
            self.parking.set_leased(ticket);
        }
        self.report(&Report::Arrived(number, leased.map(Ticket::number)));
        match unsent {
            Some(unsent) => self.take_up(connection, ticket, &unsent),
            None => self.call_for(connection, ticket, wakeup),
        }
        Ok(())
    }

    /// A connection with a handle.
    pub(super) fn connection(lua: &Lua, stream: Stream) -> mlua::Result<Option<Connection>> {
        let handle = new_handle(lua, stream)?;
        Ok(stream_of(&handle).map(|stream| Connection::of(handle, stream)))
    }

    pub(super) fn call_for(
        &mut self,
        connection: Connection,
        ticket: Option<Ticket>,
        wakeup: Wakeup,
    ) {
        self.tasks.push_back(Task::Connection { connection, ticket, wakeup, fate: Fate::Close });
    }

    /// A connection came from the supervisor, and this process may open no descriptor for it, nor for
    /// those that follow: another process serves better.
    pub(super) fn cannot_receive(&mut self, number: u64, wakeup: Wakeup, state: ConnectionState) {
        complain("No descriptor is left for a connection: another worker gets it");
        self.report(&Report::Declined(number, wakeup, state));
        if !self.end_slowest() {
            self.leave();
        }
    }

    fn cannot_accept(&mut self, errno: Errno) {
        self.cell().add(Counter::Errors, 1);
        if errno == Errno::EMFILE && self.end_slowest() {
            return;
        }
        if self.acceptor.pause(Instant::now()) {
            complain(&format!("Could not accept a connection: {}", glue::describe(errno as i32)));
        }
    }
}

/// The state of a connection without its data and its deadline.
pub(super) fn state_of(stream: &Stream, stage: Stage) -> ConnectionState {
    let (awaits, standing, peer) = (stream.awaits(), stream.standing(), stream.known_peer());
    ConnectionState { stage, awaits, standing, peer, ..ConnectionState::default() }
}
