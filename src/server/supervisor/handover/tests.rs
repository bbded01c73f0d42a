//! The supervisor's side of connections alone.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::epoll::{EpollCreateFlags, EpollEvent, EpollTimeout};
use socket2::SockRef;

use super::*;
use crate::io::Awaits;
use crate::server::ipc::channel::{Channel, Inbox, Received};
use crate::server::ipc::clock;
use crate::server::ipc::generation::FromPredecessor;
use crate::server::ipc::lease::LeaseTable;
use crate::server::ipc::message::MAX_PAYLOAD;
use crate::server::ipc::scoreboard::Scoreboard;
use crate::server::log_throttle::{INTERVAL, Occasion};

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
    /// A worker gives up a connection in this state. Returns the client's end.
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
        events[..count].iter().for_each(|event| self.handover.reception.event(event.data()));
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
    side.handover.reception.advance(side.now);
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
    assert_eq!((side.handover.reception.counts(0).shed, side.handover.store().waiting(0)), (1, 2));
}

#[test]
fn who_has_waited_longest_with_input_is_closed_if_memory_is_short() {
    let mut side = side(250, 100);
    let states = [&b""[..], &[b'a'; 100], &[b'a'; 100], &[b'a'; 100]];
    let mut clients = states.map(|data| side.hand_over(with(data, Awaits::Bytes(200))));
    assert_eq!(clients.each_mut().map(is_closed), [false, true, false, false]);
    let (text, due) = side.handover.reception.report_closed(Occasion::at(side.now));
    assert!(text.is_some_and(|text| text.starts_with("1 waiting")) && due.is_none());
    let _another = side.hand_over(with(&[b'a'; 100], Awaits::Bytes(200)));
    let (text, due) = side.handover.reception.report_closed(Occasion::at(side.now));
    assert_eq!((text, due), (None, Some(side.now + INTERVAL)));
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
fn at_a_shutdown_what_waits_is_told_at_once_and_what_comes_back_after_a_moment() {
    let mut side = side(1000, 100);
    let _clients = [
        side.hand_over(ConnectionState::default()),
        side.hand_over(with(b"GET", Awaits::EmptyLine(100))),
    ];
    side.handover.reception.shut_down();
    let _late = side.hand_over(ConnectionState::default());
    let mut speaks = side.hand_over(ConnectionState::default());
    let _begun = side.hand_over(with(b"GE", Awaits::EmptyLine(100)));
    for next in [(Wakeup::Shutdown, 0), (Wakeup::Input, 3), (Wakeup::Input, 2)] {
        assert_eq!(side.next(), Some(next));
    }
    speaks.write_all(b"G").unwrap();
    side.events();
    assert_eq!(side.next(), Some((Wakeup::Input, 0)));
    side.handover.reception.advance(side.now);
    assert_eq!(side.next(), None);
    side.handover.reception.advance(side.now + Duration::from_secs(2));
    assert_eq!(side.next(), Some((Wakeup::Shutdown, 0)));
}

#[test]
fn a_lingering_connection_ends_with_its_client_or_its_time() {
    let mut side = side(1000, 100);
    let until = clock::milliseconds(side.now) + 1000;
    let state =
        ConnectionState { stage: Stage::Lingering { until, stall: None }, ..Default::default() };
    drop(side.hand_over(state.clone()));
    side.events();
    assert!(!side.handover.reception.has_lingering());
    let mut client = side.hand_over(state);
    side.handover.reception.advance(side.now);
    assert!(side.handover.reception.has_lingering() && !is_closed(&mut client));
    side.handover.reception.advance(side.now + Duration::from_secs(2));
    assert!(!side.handover.reception.has_lingering() && is_closed(&mut client));
}

/// The next generation takes what it gets now. Returns how many connections that were.
fn inherit_from(side: &mut Side, channel: &Channel, next: &mut Side) -> usize {
    side.handover.reception.successor().unwrap().flush();
    inherit(channel, next)
}

/// The next generation takes what the channel has. Returns how many connections that were.
fn inherit(channel: &Channel, next: &mut Side) -> usize {
    let (mut count, mut inbox) = (0, Inbox::default());
    loop {
        match channel.receive(&mut inbox).unwrap() {
            Received::Message(FromPredecessor::Connections(batch), descriptors) => {
                count += batch.clone().into_iter().count();
                next.handover.reception.inherit(batch, descriptors, next.now);
            }
            Received::Message(other, _) => panic!("{other:?}"),
            Received::Empty => return count,
            Received::Closed | Received::Garbage => panic!("the channel is open"),
        }
    }
}

#[test]
fn the_next_generation_gets_what_waits_and_what_comes_back_later() {
    let (mut side, mut next) = (side(10_000, 100), side(10_000, 100));
    let mut waiting = side.hand_over(with(b"GET / HTTP/1.1\r\n", Awaits::EmptyLine(1000)));
    let _queued =
        side.hand_over(ConnectionState { stage: Stage::Ready, ..with(b"abc", Awaits::More) });
    let until = clock::milliseconds(side.now) + 5000;
    let stage = Stage::Lingering { until, stall: Some(70) };
    let _lingering = side.hand_over(ConnectionState { stage, ..ConnectionState::default() });
    let (ours, theirs) = Channel::pair().unwrap();
    side.handover.reception.succeed(Successor::new(ours, vec![Some(0)]));
    assert_eq!(side.handover.store().count(), 0);
    assert_eq!(inherit_from(&mut side, &theirs, &mut next), 3);
    assert_eq!(next.next(), Some((Wakeup::Input, 3)), "what was queued is served");
    assert!(next.handover.reception.has_lingering());
    waiting.write_all(b"\r\n").unwrap();
    next.events();
    assert_eq!(next.next(), Some((Wakeup::Input, 18)), "what was held is complete");
    let _late = side.hand_over(ConnectionState::default());
    assert_eq!(inherit_from(&mut side, &theirs, &mut next), 1);
    assert_eq!(side.handover.store().count(), 0);
}

#[test]
fn what_the_channel_does_not_take_at_once_is_passed_on_later() {
    let (mut side, mut next) = (side(1 << 30, 10_000), side(1 << 30, 10_000));
    let mut clients: Vec<_> =
        (0..200).map(|_| side.hand_over(with(&[7; 5000], Awaits::Bytes(9000)))).collect();
    let (ours, theirs) = Channel::pair().unwrap();
    side.handover.reception.succeed(Successor::new(ours, vec![Some(0)]));
    let mut count = inherit(&theirs, &mut next);
    assert!(count < 200, "the channel has taken all");
    while !side.handover.reception.successor().unwrap().flush() {
        count += inherit(&theirs, &mut next);
    }
    assert_eq!(count + inherit(&theirs, &mut next), 200);
    assert_eq!(next.handover.store().waiting(0), 200);
    assert!(!clients.iter_mut().any(is_closed));
}

#[test]
fn many_connections_share_a_message() {
    let (mut side, mut next) = (side(1 << 30, 10_000), side(1 << 30, 10_000));
    let _clients: Vec<_> =
        (0..300).map(|_| side.hand_over(with(&[7; 100], Awaits::Bytes(9000)))).collect();
    let (ours, theirs) = Channel::pair().unwrap();
    side.handover.reception.succeed(Successor::new(ours, vec![Some(0)]));
    let mut inbox = Inbox::default();
    assert!(matches!(
        theirs.receive::<FromPredecessor>(&mut inbox).unwrap(),
        Received::Message(FromPredecessor::Connections(batch), _) if batch.clone().into_iter().count() == 253
    ));
    assert_eq!(inherit_from(&mut side, &theirs, &mut next), 47);
}

#[test]
fn what_does_not_fit_into_a_message_goes_into_a_file() {
    let (mut side, mut next) = (side(1 << 30, 10_000), side(1 << 30, 10_000));
    let _clients: Vec<_> = (0..3)
        .map(|_| side.hand_over(with(&[7; MAX_PAYLOAD], Awaits::Bytes(MAX_PAYLOAD as u64 + 1))))
        .collect();
    let (ours, theirs) = Channel::pair().unwrap();
    SockRef::from(&ours).set_send_buffer_size(16 * 1024).unwrap();
    side.handover.reception.succeed(Successor::new(ours, vec![Some(0)]));
    assert_eq!(inherit_from(&mut side, &theirs, &mut next), 3);
    assert_eq!(next.handover.store().waiting(0), 3);
    next.handover.reception.shut_down();
    assert_eq!(next.next(), Some((Wakeup::Input, 0)), "its data is in a file");
}

#[test]
fn connections_of_a_pool_without_successor_are_told_of_the_end() {
    let mut side = side(1000, 100);
    let _client = side.hand_over(ConnectionState::default());
    let (ours, _theirs) = Channel::pair().unwrap();
    side.handover.reception.succeed(Successor::new(ours, vec![None]));
    assert_eq!(side.next(), Some((Wakeup::Shutdown, 0)));
}
