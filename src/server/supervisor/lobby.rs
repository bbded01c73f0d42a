//! The lobby: connections that wait for their client, held by the supervisor.
//!
//! A connection here costs a descriptor and a few hundred bytes, and no worker. The supervisor only
//! watches it. Should its input be incomplete, the supervisor adds to it until it is of use.

mod lingering;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use socket2::SockRef;

use super::guest::{Guest, break_off};
use crate::io::Wakeup;
use lingering::Lingering;

pub use lingering::{Farewell, LINGER_AT_SHUTDOWN};

enum Stay {
    /// Waits for its client's next input.
    Waiting(Guest),
    /// Waits for its client's end.
    Lingering(Lingering),
}

impl Stay {
    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Stay::Waiting(guest) => guest.parcel.connection.as_fd(),
            Stay::Lingering(lingering) => lingering.farewell.descriptor.as_fd(),
        }
    }

    fn into_descriptor(self) -> OwnedFd {
        match self {
            Stay::Waiting(guest) => guest.parcel.connection,
            Stay::Lingering(lingering) => lingering.farewell.descriptor,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Stay::Waiting(guest) => guest.deadline(),
            Stay::Lingering(lingering) => Some(lingering.until),
        }
    }
}

struct Room {
    generation: u32,
    /// The order of arrival.
    since: u64,
    stay: Option<Stay>,
}

/// All waiting connections.
pub struct Lobby {
    epoll: Rc<Epoll>,
    token: u64,
    rooms: Vec<Room>,
    free: Vec<u32>,
    alarms: BinaryHeap<Reverse<(Instant, u64)>>,
    arrivals: u64,
    /// Rooms of connections that wait for input, by their order of arrival.
    waiting: BTreeMap<u64, u32>,
    /// Those among them that hold input.
    holding: BTreeMap<u64, u32>,
    /// How many there are for each pool.
    waiting_in: Vec<usize>,
    lingering: usize,
}

/// Alarms of connections that have left are dropped when there are this many more than needed.
const STALE_ALARMS: usize = 1024;

fn number(index: u32, generation: u32) -> u64 {
    (u64::from(generation) << 32) | u64::from(index)
}

impl Lobby {
    /// An empty lobby; events carry `token` | number.
    pub fn new(epoll: Rc<Epoll>, token: u64) -> Self {
        Lobby {
            epoll,
            token,
            rooms: Vec::new(),
            free: Vec::new(),
            alarms: BinaryHeap::new(),
            arrivals: 0,
            waiting: BTreeMap::new(),
            holding: BTreeMap::new(),
            waiting_in: Vec::new(),
            lingering: 0,
        }
    }

    /// Connections that wait for input.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Connections of one pool that wait for input.
    pub fn waiting_in(&self, pool: usize) -> usize {
        self.waiting_in.get(pool).copied().unwrap_or(0)
    }

    /// All descriptors that are held.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.lingering
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in a connection that waits for input. If the kernel cannot watch it, it is reset.
    pub fn admit(&mut self, guest: Guest) -> Result<(), Errno> {
        let (pool, holds) = (guest.pool, !guest.input.is_empty());
        let index = self.enter(Stay::Waiting(guest))?;
        self.waiting.insert(self.arrivals, index);
        if holds {
            self.holding.insert(self.arrivals, index);
        }
        if self.waiting_in.len() <= pool {
            self.waiting_in.resize(pool + 1, 0);
        }
        self.waiting_in[pool] += 1;
        Ok(())
    }

    /// Takes in a connection whose remaining input is discarded until its client closes or the time
    /// is up.
    pub fn linger(&mut self, farewell: Farewell, now: Instant) -> Result<(), Errno> {
        let lingering = Lingering::new(farewell, now);
        self.enter(Stay::Lingering(lingering)).map(|_| self.lingering += 1)
    }

    /// When the server ends: what clients have not received yet is left to the system to be sent.
    pub fn let_go(&mut self) {
        for index in 0..self.rooms.len() as u32 {
            let lingers = |room: &Room| matches!(room.stay, Some(Stay::Lingering(_)));
            if self.rooms.get(index as usize).is_some_and(lingers)
                && let Some(Stay::Lingering(lingering)) = self.leave(index)
                && lingering.is_owed()
            {
                let _ = SockRef::from(&lingering.farewell.descriptor).set_linger(None);
            }
        }
    }

    fn enter(&mut self, stay: Stay) -> Result<u32, Errno> {
        // As many come as clients like.
        if self.rooms.try_reserve(1).and(self.alarms.try_reserve(1)).is_err() {
            break_off(stay.into_descriptor());
            return Err(Errno::ENOMEM);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.rooms.push(Room { generation: 0, since: 0, stay: None });
            (self.rooms.len() - 1) as u32
        });
        let number = number(index, self.rooms[index as usize].generation);
        let event =
            EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, self.token | number);
        if let Err(errno) = self.epoll.add(stay.descriptor(), event) {
            self.free.push(index);
            break_off(stay.into_descriptor());
            return Err(errno);
        }
        if self.alarms.len() > 2 * self.len() + STALE_ALARMS {
            let mut alarms = std::mem::take(&mut self.alarms).into_vec();
            alarms.retain(|Reverse((_, number))| self.index_of(*number).is_some());
            self.alarms = alarms.into();
        }
        if let Some(deadline) = stay.deadline() {
            self.alarms.push(Reverse((deadline, number)));
        }
        self.arrivals += 1;
        let room = &mut self.rooms[index as usize];
        room.since = self.arrivals;
        room.stay = Some(stay);
        Ok(index)
    }

    fn leave(&mut self, index: u32) -> Option<Stay> {
        let room = self.rooms.get_mut(index as usize)?;
        let stay = room.stay.take()?;
        let since = room.since;
        room.generation = (room.generation + 1) & 0x0fff_ffff;
        self.free.push(index);
        let _ = self.epoll.delete(stay.descriptor());
        match &stay {
            Stay::Waiting(guest) => {
                self.waiting.remove(&since);
                self.holding.remove(&since);
                self.waiting_in[guest.pool] -= 1;
            }
            Stay::Lingering(..) => self.lingering -= 1,
        }
        Some(stay)
    }

    fn index_of(&self, number: u64) -> Option<u32> {
        let (index, generation) = (number as u32, (number >> 32) as u32);
        let room = self.rooms.get(index as usize)?;
        (room.generation == generation && room.stay.is_some()).then_some(index)
    }

    /// Something happened to a connection: one that waited leaves the lobby with it, unless its input
    /// is still incomplete.
    pub fn event(&mut self, number: u64) -> Option<Guest> {
        let index = self.index_of(number)?;
        let leaves = match self.rooms[index as usize].stay.as_mut()? {
            Stay::Lingering(lingering) => lingering.discard(),
            Stay::Waiting(guest) => guest.is_due(),
        };
        if !leaves {
            return None;
        }
        self.take_out(index).map(|guest| Guest { wakeup: Wakeup::Input, ..guest })
    }

    /// A waiting connection whose time is up. Lingering ones are ended on the way.
    pub fn expired(&mut self, now: Instant) -> Option<Guest> {
        while let Some(Reverse((at, number))) = self.alarms.peek().copied() {
            if at > now {
                return None;
            }
            self.alarms.pop();
            let Some(index) = self.index_of(number) else { continue };
            if let Some(Stay::Lingering(lingering)) = &mut self.rooms[index as usize].stay
                && lingering.stays(now)
            {
                self.alarms.push(Reverse((lingering.until, number)));
                continue;
            }
            match self.leave(index) {
                Some(Stay::Waiting(guest)) => {
                    return Some(Guest { wakeup: Wakeup::Timeout, ..guest });
                }
                stay => drop(stay.map(|stay| break_off(stay.into_descriptor()))),
            }
        }
        None
    }

    /// When the next time is up.
    pub fn next_alarm(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    /// The waiting connection that came first leaves the lobby.
    pub fn oldest(&mut self) -> Option<Guest> {
        let index = *self.waiting.first_key_value()?.1;
        self.take_out(index)
    }

    /// Of the connections that hold input, the one that came first leaves the lobby.
    pub fn oldest_holder(&mut self) -> Option<Guest> {
        let index = *self.holding.first_key_value()?.1;
        self.take_out(index)
    }

    fn take_out(&mut self, index: u32) -> Option<Guest> {
        match self.leave(index)? {
            Stay::Waiting(guest) => Some(guest),
            Stay::Lingering(..) => None,
        }
    }

    /// A waiting connection leaves the lobby because the server shuts down.
    pub fn dismiss(&mut self) -> Option<Guest> {
        self.oldest().map(Guest::dismissed)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};

    use super::super::held_input::{HeldInput, InputBudget};
    use super::*;
    use crate::io::Awaits;
    use crate::server::ipc::clock;

    fn lobby() -> (Rc<Epoll>, Lobby) {
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        (epoll.clone(), Lobby::new(epoll, 0))
    }

    fn guest(deadline: Option<Instant>) -> (Guest, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut guest = Guest::accepted(0, ours.into());
        guest.state.deadline = deadline.map(clock::milliseconds);
        (guest, theirs)
    }

    fn farewell(connection: UnixStream) -> Farewell {
        let (patience, stall) = (Duration::from_secs(1), Some(Duration::from_secs(5)));
        Farewell { descriptor: connection.into(), patience, stall }
    }

    #[test]
    fn a_guest_leaves_with_its_input() {
        let (epoll, mut lobby) = lobby();
        let (waiting, mut client) = guest(None);
        lobby.admit(waiting).unwrap();
        client.write_all(b"x").unwrap();
        let mut events = [EpollEvent::empty(); 4];
        assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(1));
        let guest = lobby.event(events[0].data()).unwrap();
        assert_eq!(guest.wakeup, Wakeup::Input);
        assert!(lobby.is_empty());
        assert!(lobby.event(events[0].data()).is_none(), "an old number names nobody");
    }

    #[test]
    fn a_guest_with_incomplete_input_stays_until_it_is_complete() {
        let (epoll, mut lobby) = lobby();
        let (mut waiting, mut client) = guest(None);
        waiting.input = HeldInput::new(b"a".to_vec(), Awaits::Bytes(3), &InputBudget::new(9));
        lobby.admit(waiting).unwrap();
        let mut events = [EpollEvent::empty(); 4];
        for stays in [true, false] {
            client.write_all(b"x").unwrap();
            assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(1));
            assert_eq!(lobby.event(events[0].data()).is_none(), stays);
        }
    }

    #[test]
    fn a_guest_leaves_when_its_time_is_up() {
        let (_, mut lobby) = lobby();
        let now = Instant::now();
        let (waiting, _client) = guest(Some(now + Duration::from_secs(1)));
        lobby.admit(waiting).unwrap();
        assert!(lobby.expired(now).is_none());
        let guest = lobby.expired(now + Duration::from_secs(2)).unwrap();
        assert_eq!(guest.wakeup, Wakeup::Timeout);
        assert!(lobby.expired(now + Duration::from_secs(2)).is_none());
    }

    #[test]
    fn the_oldest_is_shed_first() {
        let (_, mut lobby) = lobby();
        let (first, _one) = guest(None);
        let (second, _two) = guest(None);
        let number = first.parcel.connection.as_raw_fd();
        let (mut third, _three) = guest(None);
        third.input = HeldInput::new(b"a".to_vec(), Awaits::Bytes(3), &InputBudget::new(9));
        lobby.admit(first).unwrap();
        lobby.admit(second).unwrap();
        lobby.admit(third).unwrap();
        assert!(!lobby.oldest_holder().unwrap().input.is_empty());
        assert!(lobby.oldest_holder().is_none());
        assert_eq!(lobby.oldest().unwrap().parcel.connection.as_raw_fd(), number);
        assert_eq!(lobby.waiting(), 1);
    }

    #[test]
    fn a_lingering_connection_ends_with_its_client_or_its_time() {
        let (epoll, mut lobby) = lobby();
        let now = Instant::now();
        let (ours, theirs) = UnixStream::pair().unwrap();
        lobby.linger(farewell(ours), now).unwrap();
        drop(theirs);
        let mut events = [EpollEvent::empty(); 4];
        assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(1));
        assert!(lobby.event(events[0].data()).is_none());
        assert!(lobby.is_empty());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        lobby.linger(farewell(ours), now).unwrap();
        assert!(lobby.expired(now + Duration::from_secs(2)).is_none());
        assert!(lobby.is_empty());
    }
}
