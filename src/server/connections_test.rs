//! Property test: the supervisor's side of connections ([`Handover`]) and the worker's ([`EventLoop`]) run
//! against each other in one process, over their control channels, with clients at the other end and
//! without Lua. Whatever happens in whatever order, no request is lost or answered twice, and no two
//! workers have a connection at the same time.
//!
//! `CONNECTIONS_SEED=n cargo test connections_test` runs the sequence of one seed, `CONNECTIONS_SEEDS=n`
//! as many as that. A sequence that fails is made shorter as long as it fails, and printed.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::sys::stat::fstat;
use socket2::SockRef;

use super::ipc::channel::{Channel, Inbox, Received};
use super::ipc::lease::LeaseTable;
use super::ipc::message::{Order, Report};
use super::ipc::scoreboard::Scoreboard;
use super::supervisor::handover::connection::Reserved;
use super::supervisor::handover::{Bounds, Given, Handover, Shared, WorkerId};
use super::worker::connection::{Connection, Running};
use super::worker::control::Control;
use super::worker::disposition::Disposition;
use super::worker::event_loop::{EventLoop, Task};
use crate::io::{Awaits, Fill, Stream, Wakeup};

const WORKERS: usize = 3;
const CLIENTS: usize = 5;
const OPERATIONS: usize = 80;

/// A request is one line of this size: "00000 s...\n"; an answer begins with its number.
const REQUEST: usize = 16;

/// More than the kernel takes for a client that does not read.
const LARGE: usize = 600_000;

/// A simple generator (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below
    }
}

/// What a handler does when it has answered all that is there.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Decision {
    Park,
    ParkFor(u64),
    Close,
    Linger,
    /// It parks, and the worker ends after that.
    Leave,
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operation {
    /// A client connects, at a port that the supervisor (true) or a worker takes it from.
    Connect(usize, bool),
    /// A client sends a request; the answer may be large.
    Send(usize, bool),
    /// A client sends a part of a request.
    SendPart(usize),
    Read(usize),
    Hang(usize),
    /// A worker takes what has happened, and begins what there is to do.
    Step(usize),
    /// A worker's handler ends.
    Decide(usize, Decision),
    /// The supervisor takes reports and events, and hands out what waits.
    Supervise,
    Give(usize),
    Revoke(usize, bool),
    Terminate(usize),
    Kill(usize),
    Fork(usize),
    Pass(u64),
    ShutDown,
}

fn operations(seed: u64) -> Vec<Operation> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..8 {
        random.next(2);
    }
    let shuts_down = random.next(4) == 0;
    let mut all = Vec::new();
    for index in 0..OPERATIONS {
        let (worker, client) = (random.next(WORKERS), random.next(CLIENTS));
        all.push(match random.next(40) {
            0..=2 => Operation::Connect(client, random.next(2) == 0),
            3..=8 => Operation::Send(client, random.next(5) == 0),
            9 => Operation::SendPart(client),
            10 | 11 => Operation::Read(client),
            12 => Operation::Hang(client),
            13..=19 => Operation::Step(worker),
            20..=25 => Operation::Decide(
                worker,
                match random.next(12) {
                    0 => Decision::Close,
                    1 => Decision::Linger,
                    2 => Decision::Leave,
                    3 => Decision::Fail,
                    4 | 5 => Decision::ParkFor(30),
                    _ => Decision::Park,
                },
            ),
            26..=29 => Operation::Supervise,
            30..=32 => Operation::Give(worker),
            33 | 34 => Operation::Revoke(worker, random.next(2) == 0),
            35 => Operation::Terminate(worker),
            36 => Operation::Kill(worker),
            37 => Operation::Fork(worker),
            _ if shuts_down && index > OPERATIONS / 2 => Operation::ShutDown,
            _ => Operation::Pass([15, 25, 1_100][random.next(3)]),
        });
    }
    all
}

/// The token of the supervisor's events.
const TOKEN: u64 = 1 << 63;

/// What a client has done and seen.
struct Client {
    socket: UnixStream,
    /// Names the connection, whoever has a descriptor of its other end.
    inode: u64,
    /// Requests sent, and bytes of the next one.
    sent: usize,
    part: usize,
    /// Answers received, and bytes of the next one.
    answered: usize,
    received: Vec<u8>,
    ended: bool,
}

/// What is known of a connection from the server's side.
struct Service {
    /// Requests that a handler has answered.
    handled: usize,
    /// So many answers have to arrive though the connection may end; none: it may not end.
    due: Option<usize>,
}

impl Service {
    /// The connection may end when so many answers have arrived.
    fn may_end(&mut self, due: usize) {
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        // Small: if the connection has ended, reading tells.
        let _ = self.socket.write_all(bytes);
    }

    fn request(&self, large: bool) -> Vec<u8> {
        let size = if large { 'L' } else { 's' };
        format!("{:05} {size}{:>8}\n", self.sent, "").into_bytes()
    }

    /// Receives what is there.
    fn read(&mut self) {
        let mut piece = vec![0; 1 << 16];
        loop {
            match self.socket.read(&mut piece) {
                Ok(0) => break self.ended = true,
                Ok(size) => self.received.extend_from_slice(&piece[..size]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => break self.ended = true,
            }
        }
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let number: usize = String::from_utf8_lossy(&line[..5]).parse().unwrap();
            assert_eq!(number, self.answered, "an answer is missing, or has come twice");
            self.answered += 1;
        }
    }
}

struct Worker {
    id: WorkerId,
    event_loop: EventLoop,
    task: Option<Running>,
    /// The supervisor's end of its control channel, and a duplicate of its own.
    channel: Channel,
    their_end: Channel,
    leaves: bool,
}

struct World {
    handover: Handover,
    epoll: Rc<Epoll>,
    leases: Rc<LeaseTable>,
    scoreboard: Rc<Scoreboard>,
    workers: [Option<Worker>; WORKERS],
    clients: [Option<Client>; CLIENTS],
    services: HashMap<u64, Service>,
    port: TcpListener,
    inbox: Inbox,
    forked: i32,
    /// How far the clock of this world is ahead.
    passed: Duration,
    shuts_down: bool,
}

fn inode(descriptor: impl AsFd) -> u64 {
    fstat(descriptor).unwrap().st_ino
}

impl World {
    fn new() -> Self {
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        let leases = Rc::new(LeaseTable::new(WORKERS).unwrap());
        let scoreboard = Rc::new(Scoreboard::new(WORKERS).unwrap());
        let shared = Shared { scoreboard: scoreboard.clone(), leases: leases.clone() };
        let bounds = Bounds::new(1 << 20, 1000);
        let mut world = World {
            handover: Handover::new(epoll.clone(), TOKEN, vec![shared], bounds),
            epoll,
            leases,
            scoreboard,
            workers: Default::default(),
            clients: Default::default(),
            services: HashMap::new(),
            port: TcpListener::bind("127.0.0.1:0").unwrap(),
            inbox: Inbox::default(),
            forked: 1000,
            passed: Duration::ZERO,
            shuts_down: false,
        };
        (0..WORKERS - 1).for_each(|cell| world.fork(cell));
        world
    }

    fn now(&self) -> Instant {
        Instant::now() + self.passed
    }

    fn fork(&mut self, cell: usize) {
        if self.workers[cell].is_some() {
            return;
        }
        self.forked += 1;
        let id = WorkerId { pid: self.forked, pool: 0, cell };
        self.scoreboard.cell(cell).reset();
        let (channel, theirs) = Channel::pair().unwrap();
        let their_end = theirs.duplicate();
        let control = Control::new(theirs, self.scoreboard.clone(), cell, 0);
        let leases = (self.leases.clone(), cell);
        let mut event_loop = EventLoop::new(control, (Rc::new([]), 1), leases, 1 << 20).unwrap();
        event_loop.ready().unwrap();
        self.handover.add_worker(id.pid);
        if self.shuts_down {
            channel.send(&Order::Drain, &[]).unwrap();
        }
        let (task, leaves) = (None, false);
        self.workers[cell] = Some(Worker { id, event_loop, task, channel, their_end, leaves });
    }

    /// A process has ended: what it had is closed, and the supervisor takes over the rest.
    fn end(&mut self, cell: usize) {
        self.supervise();
        let Some(Worker { id, channel, their_end, event_loop, task, .. }) =
            self.workers[cell].take()
        else {
            return;
        };
        drop((event_loop, task));
        while let Ok(Received::Message(order, _)) = their_end.receive::<Order>(&mut self.inbox) {
            if let Order::Resume(number, wakeup, state) = order {
                self.handover.left_unread(id, number, wakeup, state);
            }
        }
        drop(channel);
        self.handover.remove_worker(id);
    }

    fn kill(&mut self, cell: usize) {
        let Some(worker) = &self.workers[cell] else { return };
        let running =
            worker.task.iter().filter_map(|task| task.connection.stream.borrow().fd().map(inode));
        let lost = worker.event_loop.unshared().into_iter().map(inode).chain(running);
        for inode in lost.collect::<Vec<_>>() {
            self.service(inode).may_end(0);
        }
        self.end(cell);
    }

    fn service(&mut self, inode: u64) -> &mut Service {
        self.services.get_mut(&inode).unwrap()
    }

    fn connect(&mut self, index: usize, at_supervisor: bool) {
        if self.shuts_down || self.clients[index].is_some() {
            return;
        }
        let (ours, theirs): (OwnedFd, OwnedFd) = if index.is_multiple_of(2) {
            let (one, other) = UnixStream::pair().unwrap();
            (one.into(), other.into())
        } else {
            let client = TcpStream::connect(self.port.local_addr().unwrap()).unwrap();
            client.set_nodelay(true).unwrap();
            let (server, _) = self.port.accept().unwrap();
            SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
            (server.into(), client.into())
        };
        for socket in [&ours, &theirs] {
            SockRef::from(socket).set_nonblocking(true).unwrap();
        }
        let inode = inode(&ours);
        self.services.insert(inode, Service { handled: 0, due: None });
        let (sent, part, answered, received, ended) = (0, 0, 0, Vec::new(), false);
        let socket = theirs.into();
        let client = Client { socket, inode, sent, part, answered, received, ended };
        self.clients[index] = Some(client);
        let free = (0..WORKERS).find(|cell| {
            self.workers[*cell].as_ref().is_some_and(|worker| {
                worker.task.is_none() && !worker.leaves && worker.event_loop.serves()
            })
        });
        match free {
            Some(cell) if !at_supervisor => {
                let connection = Connection::new(Stream::accepted(ours, None));
                let running = Running::new(connection, None, Wakeup::None);
                self.begin(cell, Task::Connection(running));
            }
            _ => self.handover.accepted(0, ours),
        }
    }

    /// A worker calls its handler, which answers all requests that are there.
    fn begin(&mut self, cell: usize, task: Task) {
        let Some(worker) = &mut self.workers[cell] else { return };
        worker.event_loop.begin(&task);
        let Task::Connection(running) = task else { panic!("there are no jobs") };
        let descriptor = running.connection.stream.borrow().fd().map(inode);
        let name = descriptor.expect("the connection is open");
        for other in self.workers.iter().flatten().filter(|other| other.id.cell != cell) {
            let runs = other
                .task
                .as_ref()
                .and_then(|task| task.connection.stream.borrow().fd().map(inode));
            let has = other.event_loop.unshared().into_iter().map(inode).any(|it| it == name);
            assert!(runs != Some(name) && !has, "two workers have a connection");
        }
        {
            let mut stream = running.connection.stream.borrow_mut();
            while matches!(stream.fill(), Ok(Fill::Data(_))) {}
            while stream.input().len() >= REQUEST {
                let request = stream.input()[..REQUEST].to_vec();
                stream.consume(REQUEST);
                let size = if request[6] == b'L' { LARGE } else { 10 };
                let mut answer = request[..5].to_vec();
                answer.resize(size, b'.');
                answer.push(b'\n');
                stream.put(&answer);
                self.service(name).handled += 1;
            }
            let _ = stream.flush_nb();
        }
        if let Some(worker) = &mut self.workers[cell] {
            worker.task = Some(running);
        }
    }

    fn step(&mut self, cell: usize) {
        let now = self.now();
        let Some(worker) = self.workers[cell].as_mut().filter(|worker| worker.task.is_none())
        else {
            return;
        };
        let task = worker.event_loop.poll_task().or_else(|| {
            worker.event_loop.wait(now, Some(now));
            worker.event_loop.poll_task()
        });
        match task {
            Some(task) => self.begin(cell, task),
            None if worker.event_loop.is_leaving() => {
                worker.event_loop.finish();
                self.end(cell);
            }
            None => {}
        }
    }

    fn decide(&mut self, cell: usize, decision: Decision) {
        let (now, shuts_down) = (self.now(), self.shuts_down);
        let Some(worker) = &mut self.workers[cell] else { return };
        let Some(mut running) = worker.task.take() else { return };
        let Some(name) = running.connection.stream.borrow().fd().map(inode) else { return };
        let stall = Some(Duration::from_secs(60));
        let (mut keep, mut fails, mut ends) = (true, false, false);
        running.disposition = match decision {
            _ if running.connection.stream.borrow().is_eof() => Disposition::Close,
            _ if running.wakeup == Wakeup::Shutdown => Disposition::Close,
            Decision::Linger => Disposition::Linger { until: now + Duration::from_secs(9), stall },
            Decision::Close => Disposition::Close,
            Decision::ParkFor(time) => {
                let deadline = Some(now + Duration::from_millis(time));
                Disposition::Park { now, deadline, stall }
            }
            Decision::Park | Decision::Leave | Decision::Fail => {
                // At the end of the server a worker may have to wait for its clients.
                keep = shuts_down || decision != Decision::Leave;
                fails = !shuts_down && decision == Decision::Fail;
                Disposition::Park { now, deadline: None, stall }
            }
        };
        if !matches!(running.disposition, Disposition::Park { .. }) {
            ends = true;
        }
        running.connection.stream.borrow_mut().input.hold(Awaits::Bytes(REQUEST as u64));
        if matches!(running.disposition, Disposition::Linger { .. }) {
            let _ = running.connection.stream.borrow_mut().finish_nb();
        }
        if fails {
            worker.event_loop.abandon(Some(Task::Connection(running)));
        } else {
            worker.event_loop.settle(Task::Connection(running), keep);
        }
        if fails {
            self.service(name).may_end(0);
            self.end(cell);
        } else if ends {
            let handled = self.service(name).handled;
            self.service(name).may_end(handled);
        }
    }

    /// The supervisor takes reports and events.
    fn supervise(&mut self) {
        let now = self.now();
        for cell in 0..WORKERS {
            let Some(worker) = &mut self.workers[cell] else { continue };
            let id = worker.id;
            while let Ok(Received::Message(report, parcel)) =
                worker.channel.receive::<Report>(&mut self.inbox)
            {
                match report {
                    Report::Ready | Report::Scarce | Report::Ran(_) => {}
                    Report::Offer => {
                        let channel = &worker.channel;
                        let given = self.handover.give(id, now, |o, fds| channel.send(o, fds));
                        if given != Given::Sent {
                            channel.send(&Order::Nothing, &[]).unwrap();
                        }
                    }
                    Report::Leaving => {
                        worker.leaves = true;
                        self.handover.revoke(id, usize::MAX, Reserved::No);
                    }
                    report => self.handover.report(id, report, parcel, now),
                }
            }
        }
        let mut events = [EpollEvent::empty(); 64];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        events[..count].iter().for_each(|event| self.handover.event(event.data() & !TOKEN));
        self.handover.advance(now);
    }

    fn give(&mut self, cell: usize) {
        let now = self.now();
        let Some(worker) = self.workers[cell].as_ref().filter(|worker| !worker.leaves) else {
            return;
        };
        self.handover.give(worker.id, now, |order, fds| worker.channel.send(order, fds));
    }

    /// A client sends: if the server has closed the TCP connection, its kernel answers with RST, and the
    /// client may lose what it has not read.
    fn excuse_reset(&mut self, index: usize) {
        let Some(inode) = self.clients[index].as_ref().map(|client| client.inode) else { return };
        let service = self.service(inode);
        if !index.is_multiple_of(2) && service.due.is_some() {
            service.may_end(0);
        }
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Connect(index, at_supervisor) => self.connect(index, at_supervisor),
            Operation::Send(index, large) => {
                self.excuse_reset(index);
                let Some(client) = &mut self.clients[index] else { return };
                let request = client.request(large && client.part == 0);
                let part = std::mem::take(&mut client.part);
                client.send(&request[part..]);
                client.sent += 1;
            }
            Operation::SendPart(index) => {
                self.excuse_reset(index);
                let Some(client) = &mut self.clients[index] else { return };
                if client.part == 0 {
                    client.part = 5;
                    client.send(&client.request(false)[..5]);
                }
            }
            Operation::Read(index) => self.clients[index].iter_mut().for_each(Client::read),
            Operation::Hang(index) => self.clients[index] = None,
            Operation::Step(cell) => self.step(cell),
            Operation::Decide(cell, decision) => self.decide(cell, decision),
            Operation::Supervise => self.supervise(),
            Operation::Give(cell) => self.give(cell),
            Operation::Revoke(cell, reserves) => {
                let now = self.now();
                let Some(Worker { id, .. }) = &self.workers[cell] else { return };
                let until = now + Duration::from_millis(20);
                let reserved =
                    if reserves { Reserved::Against(id.pid, until) } else { Reserved::No };
                self.handover.revoke(*id, 2, reserved);
            }
            Operation::Terminate(cell) => {
                if let Some(worker) = self.workers[cell].as_mut().filter(|_| !self.shuts_down) {
                    worker.channel.send(&Order::Terminate, &[]).unwrap();
                    worker.leaves = true;
                }
            }
            Operation::Kill(cell) => self.kill(cell),
            Operation::Fork(cell) => self.fork(cell),
            Operation::Pass(milliseconds) => {
                self.passed += Duration::from_millis(milliseconds);
            }
            Operation::ShutDown => self.shut_down(),
        }
    }

    fn shut_down(&mut self) {
        if std::mem::replace(&mut self.shuts_down, true) {
            return;
        }
        self.handover.shut_down();
        for worker in self.workers.iter().flatten().filter(|worker| !worker.leaves) {
            worker.channel.send(&Order::Drain, &[]).unwrap();
        }
        for index in 0..CLIENTS {
            if let Some((inode, sent)) = self.clients[index].as_ref().map(|it| (it.inode, it.sent))
            {
                self.service(inode).may_end(sent);
            }
        }
    }

    /// Whether a client has got, or will never get, all that it waits for.
    fn is_satisfied(&self, client: &Client) -> bool {
        let due = self.services[&client.inode].due;
        if client.ended {
            let due = due.expect("a connection has ended without a reason");
            assert!(client.answered >= due.min(client.sent), "an answer is lost");
        }
        client.ended || (!self.shuts_down && client.answered == client.sent)
    }

    /// Everybody goes on until no client waits.
    fn settle(&mut self) {
        for round in 0..1000 {
            self.clients.iter_mut().flatten().for_each(Client::read);
            let clients = self.clients.iter().flatten();
            if clients.filter(|client| !self.is_satisfied(client)).count() == 0 {
                return;
            }
            self.fork(0);
            self.supervise();
            for cell in 0..WORKERS {
                self.decide(cell, Decision::Park);
                self.give(cell);
                self.step(cell);
            }
            match round {
                10 | 20 | 30 | 40 | 50 | 60 => self.passed += Duration::from_millis(1_100),
                // The kernel may take its time to send again to a client that has not read for a while.
                100.. => std::thread::sleep(Duration::from_millis(2)),
                _ => {}
            }
        }
        let waiting = self.clients.iter().flatten().filter(|client| !self.is_satisfied(client));
        let waiting: Vec<_> =
            waiting.map(|it| (it.inode, it.sent, it.answered, it.ended)).collect();
        panic!("clients wait in vain (inode, requests, answers, ended): {waiting:?}");
    }
}

fn run(operations: &[Operation]) {
    let mut world = World::new();
    operations.iter().for_each(|operation| world.apply(*operation));
    world.settle();
    // Connections without a request are there as well.
    for index in 0..CLIENTS {
        world.apply(Operation::Send(index, false));
    }
    world.settle();
    world.shut_down();
    world.settle();
}

fn fails(operations: &[Operation]) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(operations))).is_err()
}

/// Leaves out what is not needed for the sequence to fail.
fn shorten(mut operations: Vec<Operation>) -> Vec<Operation> {
    let mut index = operations.len();
    while index > 0 {
        index -= 1;
        let mut shorter = operations.clone();
        shorter.remove(index);
        if fails(&shorter) {
            operations = shorter;
        }
    }
    operations
}

#[test]
fn no_connection_is_lost_answered_twice_or_owned_by_two() {
    let setting = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match setting("CONNECTIONS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("CONNECTIONS_SEEDS").unwrap_or(200),
    };
    for seed in seeds {
        let operations = operations(seed);
        if fails(&operations) {
            let shortest = shorten(operations);
            eprintln!("CONNECTIONS_SEED={seed} fails, shortened to {shortest:#?}");
            run(&shortest);
            panic!("the sequence of seed {seed} fails now and then");
        }
    }
}
