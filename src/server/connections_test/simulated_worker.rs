//! A worker in the same process, whose handler answers all requests that are there.

use std::os::fd::AsFd;
use std::rc::Rc;

use nix::sys::stat::fstat;

use super::generation::Generation;
use super::operations::{LARGE, REQUEST};
use crate::io::{Fill, Stream};
use crate::server::ipc::channel::Channel;
use crate::server::supervisor::handover::WorkerId;
use crate::server::worker::connection::Running;
use crate::server::worker::control::{Control, WorkerPhase};
use crate::server::worker::event_loop::EventLoop;
use crate::server::worker::testing::unshared;

pub(super) struct SimulatedWorker {
    pub(super) id: WorkerId,
    /// Its generation, by position.
    pub(super) generation: usize,
    pub(super) event_loop: EventLoop,
    pub(super) task: Option<Running>,
    /// The supervisor's end of its control channel, and a duplicate of its own.
    pub(super) channel: Channel,
    pub(super) their_end: Channel,
    pub(super) leaves: bool,
}

/// Names a connection: the same for every descriptor of it.
pub(super) fn inode(descriptor: impl AsFd) -> u64 {
    fstat(descriptor).unwrap().st_ino
}

impl SimulatedWorker {
    pub(super) fn fork(id: WorkerId, generation: usize, shared: &Generation) -> Self {
        shared.scoreboard.cell(id.cell).reset();
        let (channel, theirs) = Channel::pair().unwrap();
        let their_end = theirs.duplicate();
        let control = Control::new(theirs, shared.scoreboard.clone(), id.cell, 0);
        let leases = (shared.leases.clone(), id.cell);
        let mut event_loop = EventLoop::new(control, (Rc::new([]), 1), leases, 1 << 20).unwrap();
        event_loop.ready().unwrap();
        let (task, leaves) = (None, false);
        SimulatedWorker { id, generation, event_loop, task, channel, their_end, leaves }
    }

    /// Whether it takes new connections now.
    pub(super) fn is_free(&self) -> bool {
        self.task.is_none()
            && !self.leaves
            && self.event_loop.control().phase() == WorkerPhase::Serving
    }

    /// Connections that would be lost if it were killed now.
    pub(super) fn unshared(&self) -> Vec<u64> {
        let task = self.task.iter();
        let running =
            task.filter_map(|task| task.connection.stream.borrow().duplex.fd().map(inode));
        unshared(&self.event_loop).into_iter().map(inode).chain(running).collect()
    }
}

/// What the handler does: answers all requests that are there. Returns how many.
pub(super) fn answer(stream: &mut Stream) -> usize {
    let mut count = 0;
    while matches!(stream.duplex.fill(), Ok(Fill::Data(_))) {}
    while stream.duplex.input().len() >= REQUEST {
        let request = stream.duplex.input()[..REQUEST].to_vec();
        stream.duplex.consume(REQUEST);
        let size = if request[6] == b'L' { LARGE } else { 10 };
        let mut answer = request[..5].to_vec();
        answer.resize(size, b'.');
        answer.push(b'\n');
        stream.duplex.put(&answer);
        count += 1;
    }
    let _ = stream.duplex.flush_nb();
    count
}
