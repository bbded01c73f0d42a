//! What the supervisor does in a generation that is replaced: it introduces itself to the candidate, and hands over.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::getpgrp;

use super::super::Supervisor;
use super::super::child::Life;
use super::super::ending::close_left_ports;
use super::super::handover::Successor;
use super::super::handover::connection::Reserved;
use super::super::shutdown::ServerPhase;
use super::super::source::EventSource;
use super::Role;
use super::jobs::job_keys;
use crate::server::ipc::channel::Channel;
use crate::server::ipc::clock;
use crate::server::ipc::generation::{
    FromPredecessor, Hello, JobState, PassedSocket, STATUS_PROCESS,
};
use crate::server::listen::listener::Listener;
use crate::server::operator::privileges;
use crate::sys::os::standard;
use crate::sys::os::worker_signals;

/// How soon to try again to hand over, if the kernel does not say when it can take more.
const FLUSH_AGAIN: Duration = Duration::from_millis(10);

/// A candidate that this generation has introduced itself to.
pub struct Introduced {
    channel: Channel,
    /// The sockets that it was told of.
    sockets: Vec<Place>,
}

/// Whose a listening socket is.
#[derive(Clone, Copy)]
enum Place {
    /// A pool's: pool and listener, by position.
    Pool(usize, usize),
    /// The status process's, by position.
    Status(usize),
}

impl Supervisor {
    /// This generation introduces itself to a candidate, with its listening sockets.
    pub(super) fn introduce(&mut self, channel: Channel) {
        // The candidate loads the files as they are now.
        self.watching.forget();
        let mut sockets = Vec::new();
        for (index, state) in self.service.pools.iter().enumerate() {
            let listeners = state.pool.listeners.iter().enumerate();
            sockets.extend(
                listeners
                    .filter(|(_, it)| it.socket().is_some())
                    .map(|(place, _)| Place::Pool(index, place)),
            );
        }
        sockets.extend((0..self.status.listeners().len()).map(Place::Status));
        let hello = FromPredecessor::Hello(Hello {
            clock: clock::started(),
            sockets: sockets.len() as u64,
            group: getpgrp().as_raw() as u64,
            warned: privileges::has_warned(),
        });
        // If the channel does not take something, the candidate waits in vain, and says so.
        let descriptors =
            [Some(standard::stream(2)), worker_signals::ports_file(), self.metrics.file()];
        let descriptors: Vec<_> = descriptors.into_iter().flatten().collect();
        let _ = channel.send_patiently(&hello, &descriptors);
        for place in &sockets {
            let listener = self.listener(*place);
            let (Some(socket), Some(key)) = (listener.socket(), listener.key()) else { continue };
            let workers = match place {
                Place::Pool(index, _) => {
                    self.service.children.of_pool(*index).filter(|child| child.will_serve()).count()
                }
                Place::Status(_) => 0,
            };
            let is_own = listener.is_own_port();
            let passed = PassedSocket { is_own, workers: workers as u64, key };
            let _ = channel.send(&FromPredecessor::Socket(passed), &[socket.as_fd()]);
        }
        self.introduced = Some(Introduced { channel, sockets });
    }

    fn listener(&self, place: Place) -> &Listener {
        match place {
            Place::Pool(index, place) => &self.service.pools[index].pool.listeners[place],
            Place::Status(place) => &self.status.listeners()[place].listener,
        }
    }

    /// The next generation takes over from this one.
    pub(super) fn succeed(&mut self, claims: &[Option<u64>]) {
        let now = Instant::now();
        let Some(Introduced { channel, sockets }) = self.introduced.take() else { return };
        let mut pools = vec![None; self.service.pools.len()];
        let mut status = Vec::new();
        for (place, pool) in sockets.iter().zip(claims).filter(|(_, pool)| pool.is_some()) {
            match place {
                Place::Pool(index, place) => {
                    self.service.pools[*index].ports.pass_on(*place);
                    let pool = pool.filter(|pool| *pool != STATUS_PROCESS);
                    pools[*index] = pools[*index].or(pool);
                }
                Place::Status(place) => status.push(*place),
            }
        }
        self.status.pass_on(&status);
        self.service.count_usage();
        worker_signals::pass_on_ports();
        let mut successor = Successor::new(channel, pools);
        let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        let event = EpollEvent::new(flags, EventSource::Successor.token());
        let _ = self.epoll.add(&successor, event);
        for (index, place, key) in job_keys(&self.service.pools) {
            let mut states = self.service.pools[index].timers.states();
            if let Some((_, state)) = states.find(|(listener, _)| *listener == place) {
                successor.send(FromPredecessor::Job(state, key), Vec::new());
            }
        }
        successor.send(FromPredecessor::Serve, Vec::new());
        self.replaced = true;
        self.ending.shutdown.drain(now);
        self.service.handover.succeed(successor);
        close_left_ports(&mut self.service, now);
        self.end_workers(now);
        if let Some(successor) = self.service.handover.successor() {
            successor.note_passed(clock::milliseconds(now));
        }
    }

    /// The workers end: their connections go to the next generation. Those of pools that have none there do
    /// what they do at a shutdown.
    fn end_workers(&mut self, now: Instant) {
        let workers: Vec<_> = self.service.children.iter().map(|child| child.worker).collect();
        for worker in workers {
            let goes_on =
                self.service.handover.successor().is_some_and(|it| it.pool(worker.pool).is_some());
            if goes_on {
                self.service.handover.revoke(worker, usize::MAX, Reserved::No);
            }
            let Some(child) = self.service.children.get_mut(worker.pid) else { continue };
            child.note_turns(now);
            if !goes_on {
                child.drain();
                continue;
            }
            let is_starting = child.life == Life::Starting;
            child.terminate(Life::Dismissed);
            if child.running.is_some() && !is_starting {
                // A job may run for ever. Its handler may want to know.
                child.kill(Signal::SIGTERM);
            }
        }
    }

    /// A job's handler has ended. False if the server ends with it.
    pub(in super::super) fn job_ended(
        &mut self,
        pool: usize,
        listener: u32,
        well: bool,
        now: Instant,
    ) -> bool {
        let was_main = self.service.pools[pool].timers.ended(listener, now);
        if self.replaced {
            let keys = job_keys(&self.service.pools);
            let key =
                keys.into_iter().find(|(index, place, _)| (*index, *place) == (pool, listener));
            if let Some((_, _, key)) = key {
                self.tell_successor(FromPredecessor::Job(JobState::Ended, key));
            }
            return true;
        }
        if was_main {
            self.main_ended(pool, listener, well);
        }
        !was_main
    }

    pub(super) fn tell_successor(&mut self, message: FromPredecessor) {
        if let Some(successor) = self.service.handover.successor() {
            successor.send(message, Vec::new());
        }
    }

    /// Passes on what the successor has not got yet, as far as it takes that. Gives when to try again, should
    /// the kernel not say when the channel has room.
    pub(in super::super) fn flush_successor(&mut self, now: Instant) -> Option<Instant> {
        let owes = self.service.handover.successor().is_some_and(|successor| !successor.flush());
        owes.then(|| now + FLUSH_AGAIN)
    }

    /// Whether another generation keeps this process: the predecessor hands over, or the successor has not
    /// taken everything.
    pub(in super::super) fn awaits_generation(&mut self) -> bool {
        let is_heir = matches!(&self.role, Role::Later(later) if later.predecessor().is_some());
        let owes = self.service.handover.successor().is_some_and(|successor| !successor.flush());
        self.ending.shutdown.phase() != ServerPhase::Killing && (is_heir || owes)
    }
}
