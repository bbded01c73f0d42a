//! Connections that wait in a worker, without occupying it, for their next input.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Instant;

use mlua::AnyUserData;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::io::Stream;

/// A connection whose handle lives in Lua.
#[derive(Clone)]
pub struct Connection {
    /// What the handler gets.
    pub handle: AnyUserData,
    /// The stream behind it.
    pub stream: Rc<RefCell<Stream>>,
}

/// Names a connection in the lot; never names another one that took its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    index: u32,
    generation: u32,
}

const GENERATION_BITS: u32 = 28;

impl Ticket {
    /// The ticket as part of an epoll token, in 60 bits.
    pub fn number(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// The ticket with that number.
    pub fn of(number: u64) -> Self {
        Ticket { index: number as u32, generation: (number >> 32) as u32 }
    }
}

struct Place {
    generation: u32,
    connection: Option<Connection>,
    /// Parked, as opposed to being with the handler.
    parked: bool,
    deadline: Option<Instant>,
    /// The earliest entry for this place in the heap.
    alarm: Option<Instant>,
}

/// The connections of one worker, parked or with the handler. Each keeps its place in the epoll set
/// while the handler has it, so that a hot connection costs no system call to park.
pub struct ParkingLot {
    epoll: Rc<Epoll>,
    token: u64,
    places: Vec<Place>,
    free: Vec<u32>,
    alarms: BinaryHeap<Reverse<(Instant, Ticket)>>,
    parked: usize,
}

impl ParkingLot {
    /// An empty lot; events carry `token` | ticket number.
    pub fn new(epoll: Rc<Epoll>, token: u64) -> Self {
        ParkingLot {
            epoll,
            token,
            places: Vec::new(),
            free: Vec::new(),
            alarms: BinaryHeap::new(),
            parked: 0,
        }
    }

    /// How many connections are parked.
    pub fn len(&self) -> usize {
        self.parked
    }

    /// Whether no connection is parked.
    pub fn is_empty(&self) -> bool {
        self.parked == 0
    }

    /// Takes in a connection that has no place yet; it is not parked by that.
    ///
    /// Fails if the system cannot watch its descriptor.
    pub fn admit(&mut self, connection: Connection) -> Result<Ticket, Errno> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place {
                generation: 0,
                connection: None,
                parked: false,
                deadline: None,
                alarm: None,
            });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        let ticket = Ticket { index, generation: place.generation };
        let watched = {
            let stream = connection.stream.borrow();
            let event = EpollEvent::new(
                EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP,
                self.token | ticket.number(),
            );
            stream.fd().ok_or(Errno::EBADF).and_then(|fd| self.epoll.add(fd, event))
        };
        if let Err(errno) = watched {
            self.free.push(index);
            return Err(errno);
        }
        place.connection = Some(connection);
        Ok(ticket)
    }

    /// Parks a connection until input arrives or the deadline has come.
    pub fn park(&mut self, ticket: Ticket, deadline: Option<Instant>) {
        let Some(place) = self.places.get_mut(ticket.index as usize) else { return };
        if place.generation != ticket.generation || place.connection.is_none() {
            return;
        }
        if !std::mem::replace(&mut place.parked, true) {
            self.parked += 1;
        }
        place.deadline = deadline;
        // One alarm for each place is enough: it is set anew when it rings too early.
        if let Some(deadline) = deadline
            && place.alarm.is_none_or(|alarm| deadline < alarm)
        {
            place.alarm = Some(deadline);
            self.alarms.push(Reverse((deadline, ticket)));
        }
    }

    /// The parked connection is with the handler from now on. `None` if it is not parked (any more).
    pub fn unpark(&mut self, ticket: Ticket) -> Option<Connection> {
        let place = self.places.get_mut(ticket.index as usize)?;
        if place.generation != ticket.generation || !place.parked {
            return None;
        }
        place.parked = false;
        self.parked -= 1;
        place.connection.clone()
    }

    /// When the parked connection's time is up.
    pub fn deadline(&self, ticket: Ticket) -> Option<Instant> {
        self.places.get(ticket.index as usize)?.deadline
    }

    /// Gives up a connection's place.
    pub fn discharge(&mut self, ticket: Ticket) -> Option<Connection> {
        let place = self.places.get_mut(ticket.index as usize)?;
        if place.generation != ticket.generation {
            return None;
        }
        let connection = place.connection.take()?;
        if std::mem::replace(&mut place.parked, false) {
            self.parked -= 1;
        }
        place.generation = (place.generation + 1) & ((1 << GENERATION_BITS) - 1);
        place.deadline = None;
        place.alarm = None;
        self.free.push(ticket.index);
        // A descriptor that is closed already has left the epoll set by itself.
        if let Some(fd) = connection.stream.borrow().fd() {
            let _ = self.epoll.delete(fd);
        }
        Some(connection)
    }

    /// A parked connection whose deadline has come.
    pub fn expired(&mut self, now: Instant) -> Option<Ticket> {
        while let Some(Reverse((at, ticket))) = self.alarms.peek().copied() {
            if at > now {
                return None;
            }
            self.alarms.pop();
            let Some(place) = self.places.get_mut(ticket.index as usize) else { continue };
            if place.generation != ticket.generation || place.alarm != Some(at) {
                continue;
            }
            place.alarm = None;
            match place.deadline {
                Some(deadline) if deadline > now => {
                    place.alarm = Some(deadline);
                    self.alarms.push(Reverse((deadline, ticket)));
                }
                Some(_) if place.parked => return Some(ticket),
                // With the handler: parking again sets the alarm anew.
                _ => {}
            }
        }
        None
    }

    /// When the next alarm rings.
    pub fn next_alarm(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    /// Any parked connection.
    pub fn any(&self) -> Option<Ticket> {
        self.places
            .iter()
            .enumerate()
            .find(|(_, place)| place.parked)
            .map(|(index, place)| Ticket { index: index as u32, generation: place.generation })
    }
}
