//! The next generation, as the one that it replaces sees it: whatever would wait here goes there.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::connection::{Held, Location};
use crate::server::ipc::channel::Channel;
use crate::server::ipc::clock;
use crate::server::ipc::connection_state::{ConnectionState, Stage};
use crate::server::ipc::generation::FromPredecessor;

/// The next generation.
pub struct Successor {
    channel: Channel,
    /// For each pool of this generation, the one that replaces it.
    pools: Vec<Option<u64>>,
    /// What the channel has not taken yet, with its descriptors.
    queue: VecDeque<(FromPredecessor, Vec<OwnedFd>)>,
}

impl Successor {
    /// The generation at the other end of the channel, in which these pools replace those of this one.
    pub fn new(channel: Channel, pools: Vec<Option<u64>>) -> Self {
        Successor { channel, pools, queue: VecDeque::new() }
    }

    /// The pool that replaces the one at that position.
    pub fn pool(&self, pool: usize) -> Option<u64> {
        self.pools.get(pool).copied().flatten()
    }

    /// Passes a connection on. None if it was; otherwise it is given back, since nothing replaces its pool,
    /// or since a worker has it.
    pub fn take(
        &mut self,
        pool: usize,
        descriptor: OwnedFd,
        location: Location,
    ) -> Option<(OwnedFd, Location)> {
        let Some(pool) = self.pool(pool) else { return Some((descriptor, location)) };
        let (held, wakeup) = match location {
            Location::Waiting(held) => (held, None),
            Location::Queued(held, wakeup) => (held, Some(wakeup)),
            Location::Lingering(lingering) => {
                let until = clock::milliseconds(lingering.until);
                let stall = lingering.stall();
                let stage = Stage::Lingering { until, stall };
                let state = ConnectionState { stage, ..ConnectionState::default() };
                (Held { state, ..Held::default() }, None)
            }
            other => return Some((descriptor, other)),
        };
        let Held { state, mut input, overflow, .. } = held;
        let (data, awaits) = input.take();
        let state = ConnectionState { data, awaits, ..state };
        let message = FromPredecessor::Connection(pool, wakeup, state);
        self.send(message, [Some(descriptor), overflow].into_iter().flatten().collect());
        None
    }

    /// Tells it, in the order of the calls.
    pub fn send(&mut self, message: FromPredecessor, descriptors: Vec<OwnedFd>) {
        self.queue.push_back((message, descriptors));
        self.flush();
    }

    /// Sends as much as the channel takes. True if all is sent. If the other end is gone, nothing is left to
    /// be done: connections end with their descriptors.
    pub fn flush(&mut self) -> bool {
        while let Some((message, descriptors)) = self.queue.front() {
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match self.channel.send(message, &descriptors) {
                Ok(()) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => {
                    self.queue.clear();
                    return true;
                }
                Err(_) => return false,
            }
            self.queue.pop_front();
        }
        true
    }
}

impl AsFd for Successor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
