//! The supervisor's side of the connections of one generation, and how another one takes over from it.

use std::rc::Rc;
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};

use super::operations::WORKERS;
use crate::server::ipc::channel::{Channel, Inbox, Received};
use crate::server::ipc::generation::FromPredecessor;
use crate::server::ipc::lease::LeaseTable;
use crate::server::ipc::scoreboard::Scoreboard;
use crate::server::supervisor::handover::{Bounds, Handover, Shared, Successor};

/// The token of the supervisor's events.
const TOKEN: u64 = 1 << 63;

pub(super) struct Generation {
    pub(super) handover: Handover,
    pub(super) leases: Rc<LeaseTable>,
    pub(super) scoreboard: Rc<Scoreboard>,
    epoll: Rc<Epoll>,
    predecessor: Option<Channel>,
    inbox: Inbox,
}

impl Generation {
    pub(super) fn new() -> Self {
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        let leases = Rc::new(LeaseTable::new(WORKERS).unwrap());
        let scoreboard = Rc::new(Scoreboard::new(WORKERS).unwrap());
        let shared = Shared { scoreboard: scoreboard.clone(), leases: leases.clone() };
        let handover =
            Handover::new(epoll.clone(), TOKEN, vec![shared], Bounds::new(1 << 20, 1000));
        Generation {
            handover,
            leases,
            scoreboard,
            epoll,
            predecessor: None,
            inbox: Inbox::default(),
        }
    }

    /// A generation takes over from this one.
    pub(super) fn succeed(&mut self) -> Generation {
        let (ours, theirs) = Channel::pair().unwrap();
        self.handover.reception.succeed(Successor::new(ours, vec![Some(0)]));
        Generation { predecessor: Some(theirs), ..Generation::new() }
    }

    /// Takes events, and what the predecessor passes on; passes on what the successor is to have.
    pub(super) fn supervise(&mut self, now: Instant) {
        let mut events = [EpollEvent::empty(); 64];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        events[..count]
            .iter()
            .for_each(|event| self.handover.reception.event(event.data() & !TOKEN));
        self.handover.reception.advance(now);
        while let Some(predecessor) = &self.predecessor {
            match predecessor.receive(&mut self.inbox).unwrap() {
                Received::Message(FromPredecessor::Connections(batch), descriptors) => {
                    self.handover.reception.inherit(batch, descriptors, now);
                }
                Received::Message(other, _) => panic!("{other:?}"),
                Received::Empty => break,
                Received::Closed | Received::Garbage => panic!("the predecessor lives"),
            }
        }
        if let Some(successor) = self.handover.reception.successor() {
            successor.flush();
        }
    }
}
