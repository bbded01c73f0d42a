//! The lobby: connections that wait for their client, watched by the supervisor.
//!
//! A connection here costs a descriptor and a few hundred bytes, and no worker.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::connection::{Key, Location, SupervisedConnection};

/// Which connections are watched, and until when.
pub struct Lobby {
    epoll: Rc<Epoll>,
    token: u64,
    alarms: BTreeSet<(Instant, Key)>,
    /// Those that wait for input, in the order of their arrival.
    waiting: BTreeSet<Key>,
    /// Those among them that hold input already.
    holding: BTreeSet<Key>,
    lingering: BTreeSet<Key>,
}

impl Lobby {
    /// An empty lobby; events carry `token` | key.
    pub fn new(epoll: Rc<Epoll>, token: u64) -> Self {
        let (waiting, holding, lingering) = Default::default();
        Lobby { epoll, token, alarms: BTreeSet::new(), waiting, holding, lingering }
    }

    /// Watches a connection. Fails if the kernel cannot do that.
    pub fn enter(&mut self, key: Key, connection: &SupervisedConnection) -> Result<(), Errno> {
        let descriptor: BorrowedFd<'_> = connection.descriptor.as_fd();
        let event = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        self.epoll.add(descriptor, EpollEvent::new(event, self.token | key))?;
        self.alarms.extend(connection.deadline().map(|deadline| (deadline, key)));
        match &connection.location {
            Location::Waiting(held) => {
                self.waiting.insert(key);
                if !held.input.is_empty() {
                    self.holding.insert(key);
                }
            }
            _ => drop(self.lingering.insert(key)),
        }
        Ok(())
    }

    /// Watches a connection no longer.
    pub fn leave(&mut self, key: Key, connection: &SupervisedConnection) {
        let _ = self.epoll.delete(&connection.descriptor);
        if let Some(deadline) = connection.deadline() {
            self.alarms.remove(&(deadline, key));
        }
        for keys in [&mut self.waiting, &mut self.holding, &mut self.lingering] {
            keys.remove(&key);
        }
    }

    /// How many connections wait for input.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Of the connections that wait for input, the one that came first.
    pub fn oldest(&self) -> Option<Key> {
        self.waiting.first().copied()
    }

    /// Of the connections that wait and hold input, the one that came first.
    pub fn oldest_holder(&self) -> Option<Key> {
        self.holding.first().copied()
    }

    /// A lingering connection.
    pub fn lingering(&self) -> Option<Key> {
        self.lingering.first().copied()
    }

    /// When the next connection's time is up.
    pub fn next_alarm(&self) -> Option<Instant> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// A connection whose time is up. Its alarm does not ring again.
    pub fn take_alarm(&mut self, now: Instant) -> Option<Key> {
        self.next_alarm().filter(|at| *at <= now)?;
        self.alarms.pop_first().map(|(_, key)| key)
    }

    /// Such a connection stays, until its new deadline.
    pub fn prolong(&mut self, key: Key, deadline: Instant) {
        self.alarms.insert((deadline, key));
    }
}
