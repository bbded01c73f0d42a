//! A generation that is replaced: it introduces itself to the candidate, with its listening sockets, and hands
//! over to it. It acts on the service that it is given.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::getpgrp;

use super::super::child::Life;
use super::super::closing::close_left_ports;
use super::super::handover::connection::Reserved;
use super::super::handover::{Handover, Successor};
use super::super::push_process::PushProcess;
use super::super::service::Service;
use super::super::source::EventSource;
use super::super::status_process::StatusProcess;
use super::jobs;
use crate::io::tls::{tickets, vault};
use crate::server::ipc::channel::Channel;
use crate::server::ipc::clock;
use crate::server::ipc::generation::{FromPredecessor, Hello, PassedSocket, STATUS_PROCESS};
use crate::server::listen::listener::Listener;
use crate::server::operator::privileges;
use crate::sys::os::standard;
use crate::sys::os::worker_signals;

/// How soon to try again to hand over, if the kernel does not say when it can take more.
const FLUSH_AGAIN: Duration = Duration::from_millis(10);

/// What a generation remembers of the one that is to replace it.
pub struct Succession {
    epoll: Rc<Epoll>,
    /// The candidate that this generation has introduced itself to.
    introduced: Option<Introduced>,
    /// Another generation has taken over.
    is_replaced: bool,
}

/// A candidate that knows this generation.
struct Introduced {
    channel: Channel,
    /// The sockets that it was told of.
    sockets: Vec<SocketOwner>,
}

/// A listening socket, and what the candidate is told of it.
pub struct OpenSocket<'a> {
    place: SocketOwner,
    socket: BorrowedFd<'a>,
    passed: PassedSocket,
}

/// Whose a listening socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketOwner {
    /// A pool's: pool and listener, by position.
    Pool(usize, usize),
    /// The status process's, by position.
    Status(usize),
}

/// Where the sockets of a generation are in the next one.
#[derive(Debug, PartialEq, Eq)]
struct SocketPositions {
    /// For each pool, the one that replaces it.
    pools: Vec<Option<u64>>,
    /// The sockets that the next generation has.
    claimed: Vec<SocketOwner>,
}

impl SocketPositions {
    /// Of that many pools with these sockets, as the next generation has claimed them.
    fn new(pools: usize, sockets: &[SocketOwner], claims: &[Option<u64>]) -> Self {
        let mut heirs = SocketPositions { pools: vec![None; pools], claimed: Vec::new() };
        for (place, pool) in sockets.iter().zip(claims).filter(|(_, pool)| pool.is_some()) {
            heirs.claimed.push(*place);
            if let SocketOwner::Pool(index, _) = place {
                let pool = pool.filter(|pool| *pool != STATUS_PROCESS);
                heirs.pools[*index] = heirs.pools[*index].or(pool);
            }
        }
        heirs
    }
}

impl Succession {
    /// This generation serves, or will.
    pub fn new(epoll: Rc<Epoll>) -> Self {
        Succession { epoll, introduced: None, is_replaced: false }
    }

    /// Whether another generation has taken over.
    pub fn is_replaced(&self) -> bool {
        self.is_replaced
    }

    /// This generation introduces itself to a candidate, with its listening sockets, the way to the push process, the key
    /// of TLS sessions and the file with its metrics.
    pub fn introduce(
        &mut self,
        channel: Channel,
        sockets: Vec<OpenSocket<'_>>,
        [push, metrics]: [Option<BorrowedFd<'_>>; 2],
    ) {
        tickets::pass_on();
        let key = vault::file();
        let hello = FromPredecessor::Hello(Hello {
            clock: clock::started().nanoseconds(),
            sockets: sockets.len() as u64,
            group: getpgrp().as_raw() as u64,
            warned: privileges::has_warned(),
            has_key: key.is_some(),
        });
        // If the channel does not take something, the candidate's wait times out, which it reports.
        let stderr = Some(standard::stream(2));
        let descriptors = [stderr, worker_signals::ports_file(), push, key, metrics];
        let descriptors: Vec<_> = descriptors.into_iter().flatten().collect();
        let _ = channel.send_patiently(&hello, &descriptors);
        let mut places = Vec::new();
        for OpenSocket { place, socket, passed } in sockets {
            let _ = channel.send(&FromPredecessor::Socket(passed), &[socket]);
            places.push(place);
        }
        self.introduced = Some(Introduced { channel, sockets: places });
    }

    /// The next generation takes over from this one, which has that many pools. For each socket that it was told
    /// of, the pool that has it. None if there is no such generation.
    fn begin(
        &mut self,
        claims: &[Option<u64>],
        pools: usize,
    ) -> Option<(Channel, SocketPositions)> {
        let Introduced { channel, sockets } = self.introduced.take()?;
        self.is_replaced = true;
        Some((channel, SocketPositions::new(pools, &sockets, claims)))
    }

    /// The same, and hands over to it what this one has. False if there is no such generation.
    pub fn hand_over(
        &mut self,
        claims: &[Option<u64>],
        service: &mut Service,
        status: &mut StatusProcess,
        push: &PushProcess,
        now: Instant,
    ) -> bool {
        let Some((channel, heirs)) = self.begin(claims, service.pools.len()) else { return false };
        let mut status_sockets = Vec::new();
        for place in heirs.claimed {
            match place {
                SocketOwner::Pool(index, place) => service.pools[index].ports.pass_on(place),
                SocketOwner::Status(place) => status_sockets.push(place),
            }
        }
        status.pass_on(&status_sockets);
        service.count_usage();
        worker_signals::pass_on_ports();
        push.replaced(&heirs.pools);
        let mut successor = Successor::new(channel, heirs.pools);
        let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        let event = EpollEvent::new(flags, EventSource::Successor.token());
        let _ = self.epoll.add(&successor, event);
        for message in jobs::states(&service.pools).into_iter().chain([FromPredecessor::Serve]) {
            successor.send(message, Vec::new());
        }
        service.handover.reception.succeed(successor);
        close_left_ports(service, now);
        end_workers(service, now);
        if let Some(successor) = service.handover.reception.successor() {
            successor.note_passed(clock::milliseconds(now));
        }
        true
    }
}

/// The listening sockets of a generation.
pub fn open_sockets<'a>(service: &'a Service, status: &'a StatusProcess) -> Vec<OpenSocket<'a>> {
    let pools = service.pools.iter().enumerate().flat_map(|(index, state)| {
        let workers = service.children.of_pool(index).filter(|child| child.will_serve()).count();
        let listeners = state.pool.listeners.iter().enumerate();
        listeners.map(move |(place, listener)| (SocketOwner::Pool(index, place), listener, workers))
    });
    let status = status.listeners().iter().enumerate();
    let status = status.map(|(place, it)| (SocketOwner::Status(place), &it.listener, 0));
    let open = |(place, listener, workers): (SocketOwner, &'a Listener, usize)| {
        let (socket, key) = (listener.socket()?.as_fd(), listener.key()?);
        let is_own = listener.is_own_port();
        Some(OpenSocket {
            place,
            socket,
            passed: PassedSocket { is_own, workers: workers as u64, key },
        })
    };
    pools.chain(status).filter_map(open).collect()
}

/// The workers end: their connections go to the next generation. Those of pools that have none there do
/// what they do at a shutdown.
fn end_workers(Service { children, handover, .. }: &mut Service, now: Instant) {
    let workers: Vec<_> = children.iter().map(|child| child.worker).collect();
    for worker in workers {
        let goes_on =
            handover.reception.successor().is_some_and(|it| it.pool(worker.pool).is_some());
        if goes_on {
            handover.revoke(worker, usize::MAX, Reserved::No);
        }
        let Some(child) = children.get_mut(worker.pid) else { continue };
        child.note_turns(now);
        if !goes_on {
            child.drain();
            continue;
        }
        let is_starting = child.life == Life::Starting;
        child.terminate(Life::Dismissed);
        if child.running.is_some() && !is_starting {
            // A job may run forever. Its handler may want to know.
            child.kill(Signal::SIGTERM);
        }
    }
}

/// Passes on what the successor has not got yet, as far as it takes that. True if something is left.
pub fn owes(handover: &mut Handover) -> bool {
    handover.reception.successor().is_some_and(|successor| !successor.flush())
}

/// The same. Returns when to try again, should the kernel not say when the channel has room.
pub fn flush(handover: &mut Handover, now: Instant) -> Option<Instant> {
    owes(handover).then(|| now + FLUSH_AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ipc::channel::{Inbox, Received};
    use nix::sys::epoll::EpollCreateFlags;
    use std::net::TcpListener;

    #[test]
    fn the_first_claim_of_a_pool_names_its_heir() {
        let sockets = [
            SocketOwner::Pool(0, 0),
            SocketOwner::Pool(0, 1),
            SocketOwner::Pool(1, 0),
            SocketOwner::Status(0),
        ];
        let heirs =
            SocketPositions::new(3, &sockets, &[None, Some(4), Some(STATUS_PROCESS), Some(2)]);
        assert_eq!(heirs.pools, [Some(4), None, None]);
        assert_eq!(
            heirs.claimed,
            [SocketOwner::Pool(0, 1), SocketOwner::Pool(1, 0), SocketOwner::Status(0)]
        );
    }

    #[test]
    fn a_generation_introduces_itself_then_is_replaced_once() {
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        let mut succession = Succession::new(epoll);
        assert!(succession.begin(&[Some(0)], 1).is_none() && !succession.is_replaced());
        let (ours, theirs) = Channel::pair().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let passed = PassedSocket { is_own: true, workers: 2, key: b"tcp".to_vec() };
        let socket = OpenSocket {
            place: SocketOwner::Pool(0, 1),
            socket: port.as_fd(),
            passed: passed.clone(),
        };
        succession.introduce(ours, vec![socket], [None; 2]);
        let mut inbox = Inbox::default();
        let mut next = || match theirs.receive(&mut inbox).unwrap() {
            Received::Message(message, descriptors) => (message, descriptors.into_iter().count()),
            _ => panic!("no message"),
        };
        let (hello, _) = next();
        assert!(matches!(hello, FromPredecessor::Hello(Hello { sockets: 1, .. })));
        assert_eq!(next(), (FromPredecessor::Socket(passed), 1));
        assert!(!succession.is_replaced());
        let (_, heirs) = succession.begin(&[Some(5)], 1).unwrap();
        assert_eq!(
            heirs,
            SocketPositions { pools: vec![Some(5)], claimed: vec![SocketOwner::Pool(0, 1)] }
        );
        assert!(succession.is_replaced() && succession.begin(&[Some(5)], 1).is_none());
    }
}
