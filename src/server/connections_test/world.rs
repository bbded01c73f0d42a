//! Clients, workers and the supervisor's side of their connections in one process.

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::client::{Client, ServedConnection};
use super::generation::Generation;
use super::operations::{CLIENTS, Decision, Operation, REQUEST, WORKERS};
use super::simulated_worker::{SimulatedWorker, answer, inode};
use crate::io::{Awaits, Stream, Wakeup};
use crate::server::ipc::attributes::Attributes;
use crate::server::ipc::channel::{Inbox, Received};
use crate::server::ipc::message::{Order, Report};
use crate::server::supervisor::handover::connection::Reserved;
use crate::server::supervisor::handover::{Given, Handover, LostConnections, WorkerId};
use crate::server::worker::connection::{Connection, Running};
use crate::server::worker::control::WorkerPhase;
use crate::server::worker::disposition::Disposition;
use crate::server::worker::event_loop::Task;
use crate::sys::os::monotonic::MonotonicTime;

pub(super) struct World {
    /// All generations. The last one serves; the others hand over to it.
    generations: Vec<Generation>,
    workers: [Option<SimulatedWorker>; WORKERS],
    clients: [Option<Client>; CLIENTS],
    services: HashMap<u64, ServedConnection>,
    port: TcpListener,
    inbox: Inbox,
    forked: i32,
    /// How far the clock of this world is ahead.
    passed: Duration,
    shuts_down: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = World {
            generations: vec![Generation::new()],
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

    /// The connections of the generation that serves.
    fn handover(&mut self) -> &mut Handover {
        let last = self.generations.len() - 1;
        &mut self.generations[last].handover
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
        let generation = self.generations.len() - 1;
        let worker = SimulatedWorker::fork(id, generation, &self.generations[generation]);
        self.handover().add_worker(id.pid);
        if self.shuts_down {
            worker.channel.send(&Order::Drain, &[]).unwrap();
        }
        self.workers[cell] = Some(worker);
    }

    /// A process has ended: what it had is closed, and the supervisor takes over the rest.
    fn end(&mut self, cell: usize) {
        self.supervise();
        let Some(SimulatedWorker { id, generation, channel, their_end, event_loop, task, .. }) =
            self.workers[cell].take()
        else {
            return;
        };
        drop((event_loop, task));
        let handover = &mut self.generations[generation].handover;
        while let Ok(Received::Message(order, _)) = their_end.receive::<Order>(&mut self.inbox) {
            if let Order::Resume(number, wakeup, state) = order {
                handover.left_unread(id, number, wakeup, *state);
            }
        }
        drop(channel);
        handover.remove_worker(id, LostConnections::default());
    }

    fn kill(&mut self, cell: usize) {
        let Some(worker) = &self.workers[cell] else { return };
        for inode in worker.unshared() {
            self.service(inode).may_end(0);
        }
        self.end(cell);
    }

    fn service(&mut self, inode: u64) -> &mut ServedConnection {
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
        self.services.insert(inode, ServedConnection { handled: 0, due: None });
        let (sent, part, answered, received, ended) = (0, 0, 0, Vec::new(), false);
        let socket = theirs.into();
        let client = Client { socket, inode, sent, part, answered, received, ended };
        self.clients[index] = Some(client);
        let free = (0..WORKERS)
            .find(|cell| self.workers[*cell].as_ref().is_some_and(SimulatedWorker::is_free));
        match free {
            Some(cell) if !at_supervisor => {
                let connection = Connection::new(Stream::accepted(ours, None));
                let running = Running::new(connection, None, Wakeup::None);
                self.begin(cell, Task::Connection(running));
            }
            _ => self.handover().reception.accepted(0, ours, Attributes::default()),
        }
    }

    /// A worker calls its handler, which answers all requests that are there.
    fn begin(&mut self, cell: usize, task: Task) {
        let Some(worker) = &mut self.workers[cell] else { return };
        worker.event_loop.begin(&task);
        let Task::Connection(running) = task else { panic!("there are no jobs") };
        let descriptor = running.connection.stream.borrow().duplex.fd().map(inode);
        let name = descriptor.expect("the connection is open");
        for other in self.workers.iter().flatten().filter(|other| other.id.cell != cell) {
            assert!(!other.unshared().contains(&name), "two workers have a connection");
        }
        self.service(name).handled += answer(&mut running.connection.stream.borrow_mut());
        if let Some(worker) = &mut self.workers[cell] {
            worker.task = Some(running);
        }
    }

    fn step(&mut self, cell: usize) {
        let now = MonotonicTime::now() + self.passed;
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
            None if worker.event_loop.control().phase() == WorkerPhase::Leaving => {
                worker.event_loop.finish();
                self.end(cell);
            }
            None => {}
        }
    }

    fn decide(&mut self, cell: usize, decision: Decision) {
        let (now, shuts_down) = (MonotonicTime::now() + self.passed, self.shuts_down);
        let Some(worker) = &mut self.workers[cell] else { return };
        let Some(mut running) = worker.task.take() else { return };
        let Some(name) = running.connection.stream.borrow().duplex.fd().map(inode) else { return };
        let stall = Some(Duration::from_secs(60));
        let (mut keep, mut fails, mut ends) = (true, false, false);
        running.disposition = match decision {
            _ if running.connection.stream.borrow().duplex.is_eof() => Disposition::Close,
            _ if running.wakeup == Wakeup::Shutdown => Disposition::Close,
            Decision::Linger => Disposition::Linger { timeout: Duration::from_secs(9), stall },
            Decision::Close => Disposition::Close,
            Decision::ParkFor(time) => {
                Disposition::Park { timeout: Some(Duration::from_millis(time)), stall }
            }
            Decision::Park | Decision::Leave | Decision::Fail => {
                // At the end of the server a worker may have to wait for its clients.
                keep = shuts_down || decision != Decision::Leave;
                fails = !shuts_down && decision == Decision::Fail;
                Disposition::Park { timeout: None, stall }
            }
        };
        if !matches!(running.disposition, Disposition::Park { .. }) {
            ends = true;
        }
        running.connection.stream.borrow_mut().duplex.input.hold(Awaits::Bytes(REQUEST as u64));
        if matches!(running.disposition, Disposition::Linger { .. }) {
            let _ = running.connection.stream.borrow_mut().finish_nb();
        }
        if fails {
            worker.event_loop.abandon(Some(Task::Connection(running)));
        } else {
            worker.event_loop.settle(Task::Connection(running), keep, now);
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
            let handover = &mut self.generations[worker.generation].handover;
            while let Ok(Received::Message(report, descriptors)) =
                worker.channel.receive::<Report>(&mut self.inbox)
            {
                match report {
                    Report::Ready | Report::FewIdle | Report::Ran(_) | Report::Loaded(_) => {}
                    Report::Offer => {
                        let channel = &worker.channel;
                        let given = handover.give(id, now, |o, fds| channel.send(o, fds));
                        if given != Given::Sent {
                            channel.send(&Order::Nothing, &[]).unwrap();
                        }
                    }
                    Report::Leaving => {
                        worker.leaves = true;
                        handover.revoke(id, usize::MAX, Reserved::No);
                    }
                    report => {
                        handover.report(id, report, descriptors.into_parcel(), now);
                    }
                }
            }
        }
        self.generations.iter_mut().for_each(|generation| generation.supervise(now));
    }

    /// Another generation takes over: the workers end, and their connections go there.
    fn reload(&mut self) {
        if self.shuts_down {
            return;
        }
        let last = self.generations.len() - 1;
        let next = self.generations[last].succeed();
        for worker in self.workers.iter_mut().flatten().filter(|it| it.generation == last) {
            self.generations[last].handover.revoke(worker.id, usize::MAX, Reserved::No);
            if !std::mem::replace(&mut worker.leaves, true) {
                worker.channel.send(&Order::Terminate, &[]).unwrap();
            }
        }
        self.generations.push(next);
    }

    fn give(&mut self, cell: usize) {
        let now = self.now();
        let Some(worker) = self.workers[cell].as_ref().filter(|worker| !worker.leaves) else {
            return;
        };
        let handover = &mut self.generations[worker.generation].handover;
        handover.give(worker.id, now, |order, fds| worker.channel.send(order, fds));
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

    pub(super) fn apply(&mut self, operation: Operation) {
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
                let Some(SimulatedWorker { id, generation, .. }) = &self.workers[cell] else {
                    return;
                };
                let until = now + Duration::from_millis(20);
                let reserved =
                    if reserves { Reserved::Against(id.pid, until) } else { Reserved::No };
                self.generations[*generation].handover.revoke(*id, 2, reserved);
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
            Operation::Reload => self.reload(),
            Operation::ShutDown => self.shut_down(),
        }
    }

    pub(super) fn shut_down(&mut self) {
        if std::mem::replace(&mut self.shuts_down, true) {
            return;
        }
        self.handover().reception.shut_down();
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
    pub(super) fn settle(&mut self) {
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
