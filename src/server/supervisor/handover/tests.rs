//! The supervisor's side of connections alone.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::epoll::{EpollCreateFlags, EpollEvent, EpollTimeout};

use super::*;
use crate::io::Awaits;
use crate::server::ipc::lease::LeaseTable;
use crate::server::ipc::scoreboard::Scoreboard;

const WORKER: WorkerId = WorkerId { pid: 1, pool: 0, cell: 0 };

struct Side {
    epoll: Rc<Epoll>,
    handover: Handover,
    now: Instant,
}

/// One worker, and so much for input and descriptors. A worker counts for four.
fn side(input: usize, descriptors: usize) -> Side {
    let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
    let leases = Rc::new(LeaseTable::new(1).unwrap());
    let shared = Shared { scoreboard: Rc::new(Scoreboard::new(1).unwrap()), leases };
    let bounds = Bounds::new(input, descriptors);
    let mut handover = Handover::new(epoll.clone(), 0, vec![shared], bounds);
    handover.add_worker(WORKER.pid);
    Side { epoll, handover, now: Instant::now() }
}

impl Side {
    /// A worker gives up a connection in this state. Gives the client's end.
    fn hand_over(&mut self, state: ConnectionState) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (parcel, report) = (Parcel::from(OwnedFd::from(ours)), Report::HandedOver(None, state));
        self.handover.report(WORKER, report, Some(parcel), self.now);
        theirs
    }

    /// Deals with what the kernel has.
    fn events(&mut self) {
        let mut events = [EpollEvent::empty(); 4];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
        events[..count].iter().for_each(|event| self.handover.event(event.data()));
    }

    /// Why the next connection comes to a worker, and how much input it brings.
    fn next(&mut self) -> Option<(Wakeup, usize)> {
        let mut next = None;
        self.handover.give(WORKER, self.now, |order, _| {
            if let Order::Resume(_, wakeup, state) = order {
                next = Some((*wakeup, state.data.len()));
            }
            Ok(())
        });
        next
    }
}

fn is_closed(client: &mut UnixStream) -> bool {
    client.set_nonblocking(true).unwrap();
    matches!(client.read(&mut [0]), Ok(0))
}

fn with(data: &[u8], awaits: Awaits) -> ConnectionState {
    ConnectionState { data: data.to_vec(), awaits, ..ConnectionState::default() }
}

#[test]
fn a_connection_waits_for_input_or_its_deadline() {
    let mut side = side(1000, 100);
    let mut client = side.hand_over(ConnectionState::default());
    side.events();
    assert_eq!(side.next(), None);
    client.write_all(b"x").unwrap();
    side.events();
    assert_eq!(side.next(), Some((Wakeup::Input, 0)));
    let deadline = Some(clock::milliseconds(side.now) + 1000);
    let _client = side.hand_over(ConnectionState { deadline, ..ConnectionState::default() });
    side.now += Duration::from_secs(2);
    side.handover.advance(side.now);
    assert_eq!(side.next(), Some((Wakeup::Timeout, 0)));
}

#[test]
fn incomplete_input_is_added_to_until_it_is_complete() {
    let mut side = side(10_000, 100);
    let mut client = side.hand_over(with(b"a", Awaits::Bytes(3)));
    for next in [None, Some((Wakeup::Input, 3))] {
        client.write_all(b"x").unwrap();
        side.events();
        assert_eq!(side.next(), next);
    }
}

#[test]
fn who_has_waited_longest_is_closed_if_descriptors_are_short() {
    let mut side = side(1000, 4 + 2);
    let mut clients: Vec<_> = (0..3).map(|_| side.hand_over(ConnectionState::default())).collect();
    assert_eq!(clients.iter_mut().map(is_closed).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!((side.handover.counts(0).shed, side.handover.store().waiting(0)), (1, 2));
}

#[test]
fn who_has_waited_longest_with_input_is_closed_if_memory_is_short() {
    let mut side = side(250, 100);
    let states = [&b""[..], &[b'a'; 100], &[b'a'; 100], &[b'a'; 100]];
    let mut clients = states.map(|data| side.hand_over(with(data, Awaits::Bytes(200))));
    assert_eq!(clients.each_mut().map(is_closed), [false, true, false, false]);
    assert!(side.handover.tend_memory(side.now).is_some_and(|text| text.starts_with("1 waiting")));
}

#[test]
fn what_could_not_be_sent_is_next_with_all_it_had() {
    let mut side = side(1000, 100);
    let state = ConnectionState { stage: Stage::Ready, ..with(b"first", Awaits::More) };
    let _clients = [side.hand_over(state), side.hand_over(ConnectionState::default())];
    let given = side.handover.give(WORKER, side.now, |_, _| Err(Errno::EAGAIN));
    assert_eq!((given, side.next()), (Given::Failed, Some((Wakeup::Input, 5))));
}

#[test]
fn at_a_shutdown_nobody_waits() {
    let mut side = side(1000, 100);
    let _clients = [
        side.hand_over(ConnectionState::default()),
        side.hand_over(with(b"GET", Awaits::EmptyLine(100))),
    ];
    side.handover.shut_down();
    let _late = side.hand_over(ConnectionState::default());
    for next in [(Wakeup::Shutdown, 0), (Wakeup::Input, 3), (Wakeup::Shutdown, 0)] {
        assert_eq!(side.next(), Some(next));
    }
}

#[test]
fn a_lingering_connection_ends_with_its_client_or_its_time() {
    let mut side = side(1000, 100);
    let until = clock::milliseconds(side.now) + 1000;
    let state =
        ConnectionState { stage: Stage::Lingering { until, stall: None }, ..Default::default() };
    drop(side.hand_over(state.clone()));
    side.events();
    assert!(!side.handover.has_lingering());
    let mut client = side.hand_over(state);
    side.handover.advance(side.now);
    assert!(side.handover.has_lingering() && !is_closed(&mut client));
    side.handover.advance(side.now + Duration::from_secs(2));
    assert!(!side.handover.has_lingering() && is_closed(&mut client));
}
