//! The places of a worker's connections: their names, their state, their leases, and where the kernel
//! reports their events.

use std::os::fd::AsFd;
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::connection::{Connection, Parked, State};
use super::events::PARKED;
use crate::io::Stream;
use crate::server::ipc::lease::{Lease, LeaseTable};
use crate::server::ipc::ticket::{Ticket, next_generation};
use crate::sys::os::monotonic::MonotonicTime;

#[derive(Default)]
struct Place {
    generation: u32,
    state: State,
    /// Lua knows the connection's handle.
    published: bool,
    /// The supervisor has a duplicate: who may act is decided by the lease.
    leased: bool,
    /// When the parking lot looks at this place next.
    alarm: Option<MonotonicTime>,
}

/// The connections of one worker that wait or have waited. Each keeps its place in the epoll set while
/// the handler has it, so that a hot connection costs no system call to park.
pub struct Places {
    epoll: Rc<Epoll>,
    leases: Rc<LeaseTable>,
    cell: usize,
    places: Vec<Place>,
    free: Vec<u32>,
    /// Free places of which Lua still knows the last handle.
    vacated: Vec<u32>,
}

impl Places {
    /// No connections yet, of the worker with that cell.
    pub fn new(epoll: Rc<Epoll>, leases: Rc<LeaseTable>, cell: usize) -> Self {
        let (places, free, vacated) = (Vec::new(), Vec::new(), Vec::new());
        Places { epoll, leases, cell, places, free, vacated }
    }

    /// How many places are taken.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// The connection's place; none if the ticket is out of date.
    fn place(&mut self, ticket: Ticket) -> Option<&mut Place> {
        let place = self.places.get_mut(ticket.index as usize)?;
        (place.generation == ticket.generation && !matches!(place.state, State::Free))
            .then_some(place)
    }

    /// Where the connection is.
    pub fn state(&mut self, ticket: Ticket) -> Option<&mut State> {
        self.place(ticket).map(|place| &mut place.state)
    }

    /// The connection, if it is parked.
    pub fn parked(&mut self, ticket: Ticket) -> Option<&mut Parked> {
        match self.state(ticket)? {
            State::Parked(parked) => Some(parked),
            _ => None,
        }
    }

    /// The parked connections that the supervisor could not take over by itself.
    pub fn parked_alone(&self) -> impl Iterator<Item = (Ticket, &Parked)> {
        self.all_parked()
            .filter(|(ticket, parked)| !parked.stay.movable || !self.is_leased(*ticket))
    }

    /// All parked connections.
    pub fn all_parked(&self) -> impl Iterator<Item = (Ticket, &Parked)> {
        self.places.iter().enumerate().filter_map(|(index, place)| match &place.state {
            State::Parked(parked) => {
                Some((Ticket { index: index as u32, generation: place.generation }, parked))
            }
            _ => None,
        })
    }

    /// When the parking lot looks at this place next.
    pub fn alarm(&mut self, ticket: Ticket) -> Option<&mut Option<MonotonicTime>> {
        self.place(ticket).map(|place| &mut place.alarm)
    }

    /// Takes in a connection that has no place yet: it is running.
    ///
    /// # Errors
    /// The kernel cannot watch its descriptor.
    pub fn admit(&mut self, connection: &Connection) -> Result<Ticket, Errno> {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.places.len() as u32;
            self.places.push(Place::default());
            // Who had the cell before may have left it parked or revoked, under the same name.
            if let Some(lease) = self.leases.lease(self.cell, index) {
                lease.free();
            }
            index
        });
        let ticket = Ticket { index, generation: self.places[index as usize].generation };
        let watched = {
            let stream = connection.stream.borrow();
            stream.duplex.fd().ok_or(Errno::EBADF).and_then(|fd| self.epoll.add(fd, event(ticket)))
        };
        if let Err(errno) = watched {
            self.free.push(index);
            return Err(errno);
        }
        self.places[index as usize].state = State::Running;
        Ok(ticket)
    }

    /// Watches a connection for input again, which was watched for something else.
    ///
    /// # Errors
    /// The kernel cannot do that.
    pub fn watch(&self, ticket: Ticket, connection: &Connection) -> Result<(), Errno> {
        let stream = connection.stream.borrow();
        self.epoll.modify(stream.duplex.fd().ok_or(Errno::EBADF)?, &mut event(ticket))
    }

    /// Watches a parked connection for what its handshake waits for.
    ///
    /// # Errors
    /// The kernel cannot do that.
    pub fn watch_for(&self, ticket: Ticket, stream: &Stream) -> Result<(), Errno> {
        if !stream.duplex.conditions(true, false).contains(PollFlags::POLLOUT) {
            return Ok(());
        }
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLOUT;
        let mut event = EpollEvent::new(flags, PARKED | ticket.number());
        self.epoll.modify(stream.duplex.fd().ok_or(Errno::EBADF)?, &mut event)
    }

    /// Gives up the place of a connection that is not parked. The caller tells the supervisor if it was
    /// leased.
    pub fn discharge(&mut self, ticket: Ticket, connection: &Connection) {
        // What was left is free when the supervisor knows.
        if let Some(lease) = self.lease(ticket).filter(|lease| !lease.is_left(ticket.generation)) {
            lease.free();
        }
        let Some(place) = self.place(ticket) else { return };
        let generation = next_generation(place.generation);
        let last = std::mem::replace(place, Place { generation, ..Place::default() });
        self.free.push(ticket.index);
        if last.published {
            self.vacated.push(ticket.index);
        }
        // A duplicate (the supervisor's, or that of a child of the handler's) would keep the connection
        // in the epoll set, which would report the client's end over and over.
        let mut stream = connection.stream.borrow_mut();
        let closed = stream.take_closed();
        if let Some(fd) = stream.duplex.fd().or(closed.as_ref().map(AsFd::as_fd)) {
            let _ = self.epoll.delete(fd);
        }
    }

    /// The lease that decides who may act on the connection, if the supervisor has a duplicate of it.
    pub fn lease(&self, ticket: Ticket) -> Option<Lease<'_>> {
        let place = self.places.get(ticket.index as usize)?;
        if place.leased { self.leases.lease(self.cell, ticket.index) } else { None }
    }

    /// The supervisor knows that the connection of a place which was given up is its own.
    pub fn free_lease(&self, ticket: Ticket) {
        if let Some(lease) = self.leases.lease(self.cell, ticket.index) {
            lease.free();
        }
    }

    /// Whether the connection can be leased: the number of leases is limited.
    pub fn has_lease(&self, ticket: Ticket) -> bool {
        self.leases.lease(self.cell, ticket.index).is_some()
    }

    /// The supervisor has a duplicate of the connection from now on.
    pub fn set_leased(&mut self, ticket: Ticket) {
        if let Some(place) = self.place(ticket) {
            place.leased = true;
        }
    }

    /// The supervisor's duplicate of a running connection is outdated: the connection gets another
    /// name, since the old one is that of the lease until the supervisor knows. None if it is not leased.
    pub fn end_lease(&mut self, ticket: Ticket) -> Option<Ticket> {
        self.lease(ticket)?.free();
        let place = self.place(ticket)?;
        (place.leased, place.alarm) = (false, None);
        place.generation = next_generation(place.generation);
        Some(Ticket { generation: place.generation, ..ticket })
    }

    /// Whether the supervisor has a duplicate of the connection.
    pub fn is_leased(&self, ticket: Ticket) -> bool {
        self.lease(ticket).is_some()
    }

    /// Lua knows the connection's handle from now on.
    pub fn set_published(&mut self, ticket: Ticket) {
        if let Some(place) = self.place(ticket) {
            place.published = true;
        }
    }

    /// Whether Lua knows the connection's handle.
    pub fn is_published(&self, ticket: Ticket) -> bool {
        self.places.get(ticket.index as usize).is_some_and(|place| place.published)
    }

    /// Places that have become free, whose handles Lua is to forget.
    pub fn vacated(&mut self) -> std::vec::Drain<'_, u32> {
        self.vacated.drain(..)
    }
}

fn event(ticket: Ticket) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, PARKED | ticket.number())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::sys::epoll::EpollCreateFlags;

    use super::*;
    use crate::server::ipc::standing::Standing;

    #[test]
    fn a_lease_that_ends_leaves_the_connection_under_another_name() {
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        let leases = Rc::new(LeaseTable::new(1).unwrap());
        let mut places = Places::new(epoll, leases.clone(), 0);
        let (one, _other) = UnixStream::pair().unwrap();
        let connection = Connection::new(Stream::accepted(one.into(), None));
        let ticket = places.admit(&connection).unwrap();
        assert_eq!(places.end_lease(ticket), None, "it has none");
        places.set_leased(ticket);
        *places.alarm(ticket).unwrap() = Some(MonotonicTime::now());
        let renamed = places.end_lease(ticket).unwrap();
        assert!(places.state(ticket).is_none() && places.state(renamed).is_some());
        assert_eq!(places.alarm(renamed), Some(&mut None), "it was the old name's");
        assert!(!places.is_leased(renamed));
        places.set_leased(renamed);
        let lease = leases.lease(0, ticket.index).unwrap();
        lease.park(renamed.generation, None, Standing::default(), (0, 0));
        assert!(!lease.is_parked(ticket.generation) && lease.is_parked(renamed.generation));
    }

    #[test]
    fn what_the_last_worker_has_left_of_a_lease_concerns_nobody() {
        let leases = Rc::new(LeaseTable::new(1).unwrap());
        let worker = || {
            let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
            let mut places = Places::new(epoll, leases.clone(), 0);
            let (one, other) = UnixStream::pair().unwrap();
            let connection = Connection::new(Stream::accepted(one.into(), None));
            let ticket = places.admit(&connection).unwrap();
            places.set_leased(ticket);
            (places, ticket, connection, other)
        };
        for is_revoked in [false, true] {
            let (last, name, ..) = worker();
            let lease = last.lease(name).unwrap();
            lease.park(name.generation, None, Standing::default(), (0, 0));
            if is_revoked {
                lease.revoke(name.generation).unwrap();
            }
            let (next, ticket, ..) = worker();
            let lease = next.lease(ticket).unwrap();
            assert_eq!(ticket, name);
            assert!(!lease.is_parked(ticket.generation) && !lease.is_revoked(ticket.generation));
        }
    }
}
