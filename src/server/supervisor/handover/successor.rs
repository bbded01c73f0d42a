//! The next generation, as the one that it replaces sees it: whatever would wait here goes there.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::connection::{Held, Location};
use crate::server::ipc::batch::{Batch, PassedConnection};
use crate::server::ipc::channel::Channel;
use crate::server::ipc::clock;
use crate::server::ipc::connection_state::{ConnectionState, Stage};
use crate::server::ipc::generation::{FromPredecessor, PassedCounts};
use crate::server::ipc::overflow;

/// The next generation.
pub struct Successor {
    channel: Channel,
    /// For each pool of this generation, the one that replaces it.
    pools: Vec<Option<u64>>,
    /// What the channel has not taken yet, with its descriptors.
    queue: VecDeque<(FromPredecessor, Vec<OwnedFd>)>,
    /// The longest message that it takes.
    longest: usize,
    /// Connections that were passed on so far.
    passed: u64,
}

impl Successor {
    /// The generation at the other end of the channel, in which these pools replace those of this one.
    pub fn new(channel: Channel, pools: Vec<Option<u64>>) -> Self {
        let longest = channel.longest_message();
        Successor { channel, pools, queue: VecDeque::new(), longest, passed: 0 }
    }

    /// The pool that replaces the one at that position.
    pub fn pool(&self, pool: usize) -> Option<u64> {
        self.pools.get(pool).copied().flatten()
    }

    /// Passes a connection on, with others in one message: at the next [`Successor::flush`] at the latest. None
    /// if it was; otherwise it is given back, since nothing replaces its pool, or since a worker has it.
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
        let Held { state, mut input, mut overflow, .. } = held;
        let (data, awaits) = input.take();
        let mut state = ConnectionState { data, awaits, ..state };
        if overflow.is_none() && !Batch::fits(&state, self.longest) {
            overflow = overflow::move_data(&mut state);
        }
        let has_file = overflow.is_some();
        let connection = PassedConnection { pool, wakeup, has_file, state };
        self.add(connection, [Some(descriptor), overflow].into_iter().flatten());
        self.passed += 1;
        None
    }

    fn add(&mut self, connection: PassedConnection, descriptors: impl Iterator<Item = OwnedFd>) {
        let longest = self.longest;
        let has_room = |message: &FromPredecessor| matches!(message, FromPredecessor::Connections(batch) if batch.has_room(&connection, longest));
        if !self.queue.back().is_some_and(|(message, _)| has_room(message)) {
            self.flush();
            let batch = FromPredecessor::Connections(Batch::default());
            self.queue.push_back((batch, Vec::new()));
        }
        if let Some((FromPredecessor::Connections(batch), all)) = self.queue.back_mut() {
            batch.add(connection);
            all.extend(descriptors);
        }
    }

    /// All connections that waited were passed on. It began at that time of the shared clock in milliseconds.
    pub fn note_passed(&mut self, since: u64) {
        let connections = self.passed;
        self.send(FromPredecessor::Passed(PassedCounts { connections, since }), Vec::new());
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
                // A connection whose data fits neither into the message nor into a file.
                Err(Errno::EMSGSIZE) => {}
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
