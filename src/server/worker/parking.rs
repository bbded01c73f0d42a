//! Connections that wait in a worker, without occupying it, for their next input.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::AnyUserData;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::cooling::Cooling;
use crate::io::Stream;
use crate::server::ipc::clock;
use crate::server::ipc::lease::Lease;
use crate::server::ipc::message::MAX_PAYLOAD;
use crate::server::ipc::ticket::{Ticket, next_generation};
use crate::server::listen::registry::Pool;

/// How long a connection stays in its worker with incomplete input. Long enough for the rest of a
/// message that a client sends in several pieces, short enough that few are lost with their worker.
const REST_WITHIN: Duration = Duration::from_millis(20);

/// A connection whose handle lives in Lua.
#[derive(Clone)]
pub struct Connection {
    /// What the handler gets; none as long as a new connection's is with the handler alone.
    pub handle: Option<AnyUserData>,
    /// The stream behind it.
    pub stream: Rc<RefCell<Stream>>,
}

impl Connection {
    /// One that has no handle yet.
    pub fn new(mut stream: Stream) -> Self {
        stream.set_served();
        let stream = Rc::new(RefCell::new(stream));
        Connection { handle: None, stream }
    }

    /// The one behind a handle.
    pub fn of(handle: AnyUserData, stream: Rc<RefCell<Stream>>) -> Self {
        stream.borrow_mut().set_served();
        Connection { handle: Some(handle), stream }
    }
}

/// Why a parked connection is looked at without an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Its time is up.
    Timeout(Ticket),
    /// It was quiet for so long that the supervisor is to have it.
    Cold(Ticket),
}

/// How a connection is parked.
#[derive(Debug, Clone, Copy)]
pub struct Stay {
    /// From when.
    pub now: Instant,
    /// Until when, if nothing comes.
    pub deadline: Option<Instant>,
    /// Whether the supervisor may take it.
    pub movable: bool,
    /// Its input is incomplete: see [`ParkingLot::waits_on`].
    pub incomplete: bool,
    /// How many bytes of incomplete input it holds that have to stay in this process.
    pub holds: usize,
}

/// How long connections may be quiet.
#[derive(Clone, Copy)]
struct Limits {
    cools_after: Duration,
    /// Those with incomplete input.
    rest_within: Duration,
}

#[derive(Default)]
struct Place {
    generation: u32,
    /// Some connection has this place.
    taken: bool,
    /// The Lua side knows the connection's handle.
    published: bool,
    /// The connection, while it is parked.
    connection: Option<Connection>,
    /// The supervisor has a duplicate: who may act is decided by the lease.
    leased: bool,
    /// Its lease may be revoked while it is parked.
    movable: bool,
    /// Its input is of no use yet, and the supervisor can hold it.
    incomplete: bool,
    /// See [`Stay::holds`].
    holds: usize,
    /// Since when it is parked, as opposed to being with the handler.
    parked: Option<Instant>,
    deadline: Option<Instant>,
    /// The entry for this place in the heap.
    alarm: Option<Instant>,
}

impl Place {
    /// How long the connection may be quiet before something is to be done about it.
    fn quiet_limit(&self, limits: Limits) -> Option<Duration> {
        match self.incomplete {
            true => Some(limits.rest_within),
            false => self.movable.then_some(limits.cools_after),
        }
    }
}

/// The connections of one worker, parked or with the handler. Each keeps its place in the epoll set
/// while the handler has it, so that a hot connection costs no system call to park.
pub struct ParkingLot {
    epoll: Rc<Epoll>,
    token: u64,
    pool: Rc<Pool>,
    cell: usize,
    places: Vec<Place>,
    free: Vec<u32>,
    alarms: BinaryHeap<Reverse<(Instant, Ticket)>>,
    cooling: Cooling,
    /// Connections with incomplete input stay as long as hot ones.
    keeps_incomplete: bool,
    /// Those among them that the supervisor does not know of.
    alone: usize,
    /// Places whose handle the Lua side does not know yet.
    unpublished: Vec<u32>,
    /// Connections that were parked with incomplete input, whatever became of them.
    incomplete: Vec<Ticket>,
    /// The sum of what parked connections hold.
    holds: usize,
}

impl ParkingLot {
    /// An empty lot of the worker with that cell; events carry `token` | ticket number.
    pub fn new(epoll: Rc<Epoll>, token: u64, pool: Rc<Pool>, cell: usize) -> Self {
        ParkingLot {
            epoll,
            token,
            pool,
            cell,
            places: Vec::new(),
            free: Vec::new(),
            alarms: BinaryHeap::new(),
            cooling: Cooling::new(Instant::now()),
            keeps_incomplete: false,
            alone: 0,
            unpublished: Vec::new(),
            incomplete: Vec::new(),
            holds: 0,
        }
    }

    fn limits(&self) -> Limits {
        let cools_after = self.cooling.limit();
        let rest_within = if self.keeps_incomplete { cools_after } else { REST_WITHIN };
        Limits { cools_after, rest_within }
    }

    /// The server shuts down: a request that has begun has time to complete, here.
    pub fn keep_incomplete(&mut self) {
        self.keeps_incomplete = true;
    }

    /// Whether the parked connection has incomplete input.
    pub fn is_incomplete(&self, ticket: Ticket) -> bool {
        self.places.get(ticket.index as usize).is_some_and(|place| place.incomplete)
    }

    /// A place whose handle has changed, with the handle if it has one: for the Lua side, which
    /// finds handles by place.
    pub fn unpublished(&mut self) -> Option<(u32, Option<AnyUserData>)> {
        let index = self.unpublished.pop()?;
        let place = self.places.get_mut(index as usize)?;
        let handle = place.connection.as_ref().and_then(|connection| connection.handle.clone());
        place.published = handle.is_some();
        Some((index, handle))
    }

    /// Whether the Lua side knows the connection's handle.
    pub fn is_published(&self, ticket: Ticket) -> bool {
        self.places.get(ticket.index as usize).is_some_and(|place| place.published)
    }

    /// How many connections are parked that the supervisor does not know of.
    pub fn alone(&self) -> usize {
        self.alone
    }

    /// The connection's place; none if the ticket is out of date.
    fn place(&mut self, ticket: Ticket) -> Option<&mut Place> {
        self.places
            .get_mut(ticket.index as usize)
            .filter(|place| place.generation == ticket.generation && place.taken)
    }

    /// What decides about the connection, if the supervisor has a duplicate of it.
    fn lease(&self, ticket: Ticket) -> Option<Lease<'_>> {
        let place = self.places.get(ticket.index as usize)?;
        if place.leased { self.pool.leases.lease(self.cell, ticket.index) } else { None }
    }

    /// Takes in a connection that has no place yet; it is not parked by that.
    ///
    /// Fails if the system cannot watch its descriptor.
    pub fn admit(&mut self, connection: &Connection) -> Result<Ticket, Errno> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            (self.places.len() - 1) as u32
        });
        let ticket = Ticket { index, generation: self.places[index as usize].generation };
        let watched = {
            let (stream, event) = (connection.stream.borrow(), self.event(ticket));
            stream.fd().ok_or(Errno::EBADF).and_then(|fd| self.epoll.add(fd, event))
        };
        if let Err(errno) = watched {
            self.free.push(index);
            return Err(errno);
        }
        self.places[index as usize].taken = true;
        Ok(ticket)
    }

    /// Watches a connection for input again, which was watched for something else.
    ///
    /// Fails if the system cannot do that.
    pub fn watch(&mut self, ticket: Ticket, connection: &Connection) -> Result<(), Errno> {
        let stream = connection.stream.borrow();
        self.epoll.modify(stream.fd().ok_or(Errno::EBADF)?, &mut self.event(ticket))
    }

    fn event(&self, ticket: Ticket) -> EpollEvent {
        EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, self.token | ticket.number())
    }

    /// Whether the connection can be leased: only so many have a lease.
    pub fn has_lease(&self, ticket: Ticket) -> bool {
        self.pool.leases.lease(self.cell, ticket.index).is_some()
    }

    /// The supervisor has a duplicate of the connection from now on.
    pub fn set_leased(&mut self, ticket: Ticket) {
        if let Some(place) = self.place(ticket) {
            place.leased = true;
        }
    }

    /// Whether the supervisor has a duplicate of the connection.
    pub fn is_leased(&self, ticket: Ticket) -> bool {
        self.lease(ticket).is_some()
    }

    /// Whether the supervisor can take the parked connection by itself.
    pub fn is_revocable(&self, ticket: Ticket) -> bool {
        self.is_leased(ticket) && self.places[ticket.index as usize].movable
    }

    /// Parks a connection until input arrives or the deadline has come. One that is not movable is
    /// not for the supervisor to take.
    pub fn park(&mut self, ticket: Ticket, connection: Connection, stay: Stay) {
        self.cooling.note_turn(self.places.len() - self.free.len(), stay.now);
        let limits = self.limits();
        let Stay { now, deadline, movable, incomplete, holds } = stay;
        let Some(place) = self.place(ticket) else { return };
        let standing = connection.stream.borrow().standing();
        place.connection = Some(connection);
        (place.movable, place.incomplete) = (movable, incomplete);
        let held = std::mem::replace(&mut place.holds, holds);
        let was_parked = place.parked.replace(now).is_some();
        let (alone, unpublished) = (!place.leased, !place.published);
        place.deadline = deadline;
        let quiet = place.quiet_limit(limits).map(|limit| now + limit);
        let look = [deadline, quiet].into_iter().flatten().min();
        // One alarm for each place is enough: it is set anew when it rings too early.
        let alarm = look.filter(|look| place.alarm.is_none_or(|alarm| *look < alarm));
        if let Some(alarm) = alarm {
            place.alarm = Some(alarm);
            self.alarms.push(Reverse((alarm, ticket)));
        }
        if unpublished {
            self.unpublished.push(ticket.index);
        }
        self.alone += usize::from(!was_parked && alone);
        self.holds = self.holds + holds - held;
        if incomplete {
            self.incomplete.push(ticket);
        }
        if let Some(lease) = self.lease(ticket).filter(|_| movable) {
            lease.park(ticket.generation, deadline.map(clock::milliseconds), standing);
        }
    }

    /// The parked connection is with the handler from now on, unless it is not parked (any more).
    pub fn take(&mut self, ticket: Ticket) -> Option<(Connection, Option<Instant>)> {
        let place = self.place(ticket)?;
        place.parked?;
        let alone = !place.leased;
        if place.movable && self.lease(ticket).is_some_and(|lease| !lease.take(ticket.generation)) {
            self.forget(ticket);
            return None;
        }
        self.alone -= usize::from(alone);
        let place = self.place(ticket)?;
        (place.parked, place.incomplete) = (None, false);
        let held = std::mem::take(&mut place.holds);
        let taken = place.connection.take().map(|connection| (connection, place.deadline));
        self.holds -= held;
        taken
    }

    /// Something came from the client of a parked connection: whether it still waits, because the
    /// input is incomplete even so.
    pub fn waits_on(&mut self, ticket: Ticket) -> bool {
        if self.incomplete.is_empty() {
            return false;
        }
        let Some(place) = self.place(ticket).filter(|place| place.incomplete) else { return false };
        let Some(connection) = &place.connection else { return false };
        let received = {
            let mut stream = connection.stream.borrow_mut();
            if stream.receive_awaited() {
                return false;
            }
            stream.input().len()
        };
        if received >= MAX_PAYLOAD {
            // It is too much for the supervisor by now.
            (place.incomplete, place.holds) = (false, received);
            self.holds += received;
        }
        true
    }

    /// Takes a connection that is parked with incomplete input.
    pub fn take_incomplete(&mut self) -> Option<(Ticket, Connection, Option<Instant>)> {
        if self.keeps_incomplete {
            return None;
        }
        while let Some(ticket) = self.incomplete.pop() {
            if self.place(ticket).is_some_and(|place| place.incomplete)
                && let Some((connection, deadline)) = self.take(ticket)
            {
                return Some((ticket, connection, deadline));
            }
        }
        None
    }

    /// Takes the connection that has been parked longest with input that has to stay in this process, if
    /// all hold more than this many bytes of it.
    pub fn take_holder(&mut self, limit: usize) -> Option<(Ticket, Connection)> {
        if self.holds <= limit {
            return None;
        }
        let places = self.places.iter().enumerate().filter(|(_, place)| place.holds > 0);
        let (index, place) = places.min_by_key(|(_, place)| place.parked)?;
        let ticket = Ticket { index: index as u32, generation: place.generation };
        self.take(ticket).map(|(connection, _)| (ticket, connection))
    }

    /// Gives up the place of a connection that is not parked. The caller tells the supervisor if
    /// it was leased.
    pub fn discharge(&mut self, ticket: Ticket, connection: &Connection) {
        if let Some(lease) = self.lease(ticket) {
            lease.free();
        }
        let Some(place) = self.place(ticket) else { return };
        let generation = next_generation(place.generation);
        *place = Place { generation, ..Place::default() };
        self.free.push(ticket.index);
        self.unpublished.push(ticket.index);
        // A duplicate (the supervisor's, or that of a child of the handler's) would keep the connection
        // in the epoll set, which would report the client's end over and over.
        let mut stream = connection.stream.borrow_mut();
        let remains = stream.take_remains();
        if let Some(fd) = stream.fd().or(remains.as_ref().map(AsFd::as_fd)) {
            let _ = self.epoll.delete(fd);
        }
    }

    /// Forgets a connection that the supervisor has taken back: nothing is sent on it.
    fn forget(&mut self, ticket: Ticket) {
        let Some(place) = self.place(ticket) else { return };
        let Some(connection) = place.connection.take() else { return };
        place.parked = None;
        self.discharge(ticket, &connection);
        drop(detach(&connection));
    }

    /// Forgets all connections that the supervisor has taken back.
    pub fn forget_revoked(&mut self) {
        for index in 0..self.places.len() {
            let place = &self.places[index];
            let ticket = Ticket { index: index as u32, generation: place.generation };
            if place.leased
                && place.parked.is_some()
                && self.lease(ticket).is_some_and(|lease| lease.is_revoked(ticket.generation))
            {
                self.forget(ticket);
            }
        }
    }

    /// A parked connection whose time is up, or that was quiet for long.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        let limits = self.limits();
        while let Some(Reverse((at, ticket))) = self.alarms.peek().copied() {
            if at > now {
                return None;
            }
            self.alarms.pop();
            let Some(place) = self.place(ticket).filter(|place| place.alarm == Some(at)) else {
                continue;
            };
            place.alarm = None;
            // With the handler: parking again sets the alarm anew.
            let Some(since) = place.parked else { continue };
            if place.deadline.is_some_and(|deadline| deadline <= now) {
                return Some(Due::Timeout(ticket));
            }
            let quiet = place.quiet_limit(limits).map(|limit| since + limit);
            if quiet.is_some_and(|quiet| quiet <= now) {
                return Some(Due::Cold(ticket));
            }
            let look = [place.deadline, quiet].into_iter().flatten().min();
            place.alarm = look;
            self.alarms.extend(look.map(|look| Reverse((look, ticket))));
        }
        None
    }

    /// When to look for what is due.
    pub fn next_alarm(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    /// In a child of the worker: gives up this process's descriptors of the parked connections.
    pub fn disown(&mut self) {
        self.places.iter().filter_map(|place| place.connection.as_ref()).for_each(|connection| {
            drop(detach(connection));
        });
    }

    /// Whether the parked connection will be due as cold.
    pub fn cools(&self, ticket: Ticket) -> bool {
        let place = self.places.get(ticket.index as usize);
        place.is_some_and(|place| {
            place.parked.is_some() && place.quiet_limit(self.limits()).is_some()
        })
    }

    /// All parked connections.
    pub fn tickets(&self) -> Vec<Ticket> {
        let parked = self.places.iter().enumerate().filter(|(_, place)| place.parked.is_some());
        parked
            .map(|(index, place)| Ticket { index: index as u32, generation: place.generation })
            .collect()
    }
}

/// Takes the descriptor out of a stream: it ends here without a word to the client.
pub fn detach(connection: &Connection) -> Option<OwnedFd> {
    connection.stream.borrow_mut().detach()
}
