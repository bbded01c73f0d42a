//! What a worker attends to between two runs of the handler: its listeners, its connections, and what the
//! kernel tells of them. It takes in what happened, and gives the connections that the handler is to be called for.

use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::accept::Acceptor;
use super::connection::{Connection, Running};
use super::connections::Connections;
use super::control::{Control, complain};
use super::events::{Events, WorkerSource};
use super::handover::Arrival;
use super::handshake;
use super::places::Places;
use super::stopwatch::Stopwatch;
use super::tidying::Tidying;
use crate::io::Wakeup;
use crate::io::wait::{self, Direction};
use crate::server::ipc::lease::LeaseTable;
use crate::server::ipc::message::Report;
use crate::server::ipc::scoreboard::{Counter, Total};
use crate::server::listen::listener::Listener;
use crate::server::metrics::pool::Meter;
use crate::sys::os::error_text;
use crate::sys::os::fallback_allocator::give_back;
use crate::sys::os::freed_memory::FreedMemory;
use crate::sys::os::monotonic::MonotonicTime;
use crate::sys::os::process::close_for_good;
use crate::sys::os::worker_signals;

/// How many connections a worker that leaves takes from each port at most: the kernel tells one
/// worker of each.
const LAST_CONNECTIONS: usize = 4;

/// A worker that had this many more connections gives freed memory back to the kernel.
const CROWD: usize = 128;

/// The sources of what a worker does.
pub struct WorkSources {
    listeners: Rc<[Listener]>,
    control: Rc<Control>,
    pub(super) events: Events,
    acceptor: Acceptor,
    /// The connections that the handler does not have.
    pub connections: Connections,
    /// Counted in connections.
    freed_memory: FreedMemory,
    /// What follows such a fall in Lua.
    pub tidying: Tidying,
    /// What is measured.
    pub stopwatch: Stopwatch,
    /// How many workers the pool may have.
    pub most_workers: usize,
    /// The worker has left, and another one is to serve in its place.
    is_replaced: bool,
}

impl WorkSources {
    /// Of a worker with these listeners, with the leases of its cell. Its parked connections may hold that many bytes
    /// of input that nobody else can hold. Nobody listens yet.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn new(
        control: Rc<Control>,
        listeners: Rc<[Listener]>,
        leases: (Rc<LeaseTable>, usize),
        input_limit: usize,
    ) -> Result<Self, Errno> {
        let events = Events::new(control.channel())?;
        let epoll = events.epoll().clone();
        Ok(WorkSources {
            acceptor: Acceptor::new(listeners.clone(), epoll.clone()),
            listeners: listeners.clone(),
            connections: Connections::new(epoll, control.clone(), leases, input_limit, listeners),
            freed_memory: FreedMemory::new(CROWD),
            tidying: Tidying::new(MonotonicTime::now()),
            control,
            events,
            stopwatch: Stopwatch::new(MonotonicTime::now()),
            most_workers: usize::MAX,
            is_replaced: false,
        })
    }

    /// The listeners of the pool.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Connections are accepted from now on.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn listen(&mut self) -> Result<(), Errno> {
        self.acceptor.watch(true)
    }

    /// Whether nothing is to be attended to yet.
    pub fn are_empty(&self) -> bool {
        self.events.queue.is_empty()
    }

    /// The same, also of what is due without an event.
    pub fn are_idle(&mut self) -> bool {
        self.are_empty()
            && self.connections.ready.is_empty()
            && !self.connections.prologues.have_handshakes()
    }

    /// The next source to attend to.
    pub fn next(&mut self) -> Option<WorkerSource> {
        self.events.queue.pop_front()
    }

    /// Attends to a source, except to the control channel. Returns the connection that the handler is to be called for.
    pub fn take_in(&mut self, source: WorkerSource) -> Option<Running> {
        let running = match source {
            WorkerSource::Control => None,
            WorkerSource::Arrival(arrival) => self.connections.receive(*arrival),
            WorkerSource::Parked(ticket, wakeup) => self.connections.wake(ticket, wakeup),
            WorkerSource::Sending(ticket) => {
                self.connections.send_more(ticket);
                None
            }
            WorkerSource::Relayed(ticket) => self.connections.relay(ticket),
            WorkerSource::Handshake(ticket) => self.connections.resume(ticket, Wakeup::Input),
            WorkerSource::Listener(index) => self.accept(index).and_then(|new| self.admit(new)),
        };
        self.connections.admit(running?)
    }

    /// A connection comes from the supervisor: it is next.
    pub fn arrive(&mut self, arrival: Arrival) {
        self.events.queue.push_front(WorkerSource::Arrival(Box::new(arrival)));
    }

    /// All listeners are to be asked for connections.
    pub fn check_ports(&mut self) {
        self.events.queue.extend((0..self.listeners.len()).map(WorkerSource::Listener));
    }

    /// Does what is due without an event. Returns when listeners that rest are asked again.
    pub fn look_after(&mut self, now: MonotonicTime) -> Option<MonotonicTime> {
        self.connections.look_after(now);
        let count = self.connections.places().len();
        if self.freed_memory.note(count) && count <= CROWD {
            self.tidying.want();
        }
        self.acceptor.resume(now)
    }

    /// Frees what this process has of connections that have left, with `collect` what Lua has. False if that is not due.
    pub fn tidy(&mut self, collect: impl FnOnce(&mut Places)) -> bool {
        let begun = MonotonicTime::now();
        if !self.tidying.is_due(begun) {
            return false;
        }
        self.connections.parking.shrink();
        collect(self.connections.places_mut());
        give_back();
        self.tidying.done(begun, MonotonicTime::now());
        true
    }

    /// Waits until the given time at most, queues what the kernel has, then what is due without an event. True if
    /// the kernel had something.
    ///
    /// # Errors
    /// The kernel refuses to wait, as the log is told.
    pub fn collect(
        &mut self,
        until: Option<MonotonicTime>,
        now: MonotonicTime,
    ) -> Result<bool, Errno> {
        let found = self.events.collect(until, now).inspect_err(|errno| {
            let reason = error_text::describe(*errno as i32);
            complain(&format!("Waiting for events failed: {reason}"));
        });
        self.stopwatch.told(MonotonicTime::now());
        self.queue_ready();
        found
    }

    /// Queues connections that are due without an event.
    pub fn queue_ready(&mut self) {
        if self.connections.prologues.have_handshakes() {
            let next = self.connections.prologues.next_handshakes();
            self.events.queue.extend(next.into_iter().map(WorkerSource::Handshake));
        }
        if self.connections.ready.is_empty() {
            return;
        }
        let ready = self.connections.ready.drain(..);
        self.events
            .queue
            .extend(ready.map(|(ticket, wakeup)| WorkerSource::Parked(ticket, wakeup)));
    }

    /// A new connection is for the handler, unless the next generation serves: then it is for that. A TLS handshake
    /// cannot move, and would wait for any handler that runs here: a worker that has one already passes the next one on.
    fn admit(&mut self, connection: Connection) -> Option<Running> {
        // Those of TLS 1.2 are among them, which stay, too.
        let has_bound = self.connections.parking.alone() > 0 && self.most_workers > 1;
        let is_crowded = has_bound && connection.stream.borrow().handler.tls.is_some();
        if is_crowded || worker_signals::are_ports_passed_on() {
            self.connections.pass_new(&connection);
            return None;
        }
        Some(Running::new(connection, None, Wakeup::None))
    }

    /// An order comes first, and may take long. The kernel has told this worker alone of new
    /// connections: they go to any worker that has time.
    pub fn pass_new_connections(&mut self) {
        for source in std::mem::take(&mut self.events.queue) {
            match source {
                WorkerSource::Listener(index) => {
                    if let Some(connection) = self.accept(index) {
                        self.connections.pass_new(&connection);
                    }
                }
                other => self.events.queue.push_back(other),
            }
        }
    }

    /// This worker serves no longer. The kernel may have told it alone of new connections.
    fn pass_last_connections(&mut self) {
        for index in 0..self.listeners.len() {
            for _ in 0..LAST_CONNECTIONS {
                let Some(connection) = self.accept(index) else { break };
                self.connections.pass_new(&connection);
            }
        }
    }

    /// Asks a listener for a new connection.
    fn accept(&mut self, listener: usize) -> Option<Connection> {
        let errno = match self.acceptor.accept(listener) {
            Ok(connection) => {
                self.control.cell().add(Counter::Accepted, u64::from(connection.is_some()));
                if let Some(meter) = self.stopwatch.meter().filter(|_| connection.is_some()) {
                    meter.accepted();
                }
                return connection;
            }
            Err(errno) => errno,
        };
        self.control.cell().add(Counter::Errors, 1);
        self.note_failure();
        if errno != Errno::EMFILE || !self.connections.end_slowest() {
            self.acceptor.pause(errno, MonotonicTime::now());
        }
        None
    }

    /// What happens is counted there.
    pub fn count(&mut self, meter: Meter) {
        self.connections.prologues.meter = Some(meter.clone());
        self.stopwatch.count(meter);
    }

    /// The handler has failed, or a connection could not be accepted.
    pub fn note_failure(&self) {
        if let Some(meter) = self.stopwatch.meter() {
            meter.failed();
        }
    }

    /// The server shuts down, and the supervisor has closed the ports. What waits at a service manager's stays there.
    pub fn begin_drain(&mut self) {
        self.connections.begin_drain();
        self.connections.relays.dismiss();
        self.events.queue.retain(|source| !matches!(source, WorkerSource::Listener(_)));
        let _ = self.acceptor.watch(false);
    }

    /// The worker takes nothing new from now on, and has served until now, or not: its connections go to the
    /// supervisor, as far as that does not take them back by itself.
    pub fn leave(&mut self, has_served: bool) {
        self.is_replaced = has_served && !worker_signals::are_ports_passed_on();
        let _ = self.acceptor.watch(false);
        if has_served {
            self.pass_last_connections();
        }
        let mut with_input = Vec::new();
        for source in std::mem::take(&mut self.events.queue) {
            match source {
                WorkerSource::Arrival(arrival) => {
                    let Arrival { number, wakeup, state, .. } = *arrival;
                    self.control.report(&Report::Declined(number, wakeup, state));
                }
                WorkerSource::Parked(ticket, Wakeup::Input) => with_input.push(ticket),
                // The kernel tells of it only once.
                WorkerSource::Relayed(_) => self.events.queue.push_back(source),
                _ => {}
            }
        }
        self.connections.leave(with_input);
        self.connections.relays.dismiss();
        if has_served {
            let Connections { outbox, owned, .. } = &mut self.connections;
            outbox.pass_on(owned);
        }
    }

    /// The last thing a worker does: it waits until all output is sent, and for a moment until handshakes are over.
    /// Nothing new is taken.
    pub fn send_rest(&mut self) {
        if self.connections.are_done() {
            return;
        }
        let _ = self.acceptor.watch(false);
        // What the supervisor still sends it takes back when this process has ended.
        let _ = self.events.epoll().delete(&*self.control);
        let mut patient_until = MonotonicTime::now() + handshake::LEAST;
        while !self.connections.are_done() {
            let now = MonotonicTime::now();
            self.connections.look_after(now);
            if now >= patient_until {
                patient_until = now + handshake::LEAST;
                if self.keeps_others_waiting() {
                    self.connections.prologues.give_up();
                    continue;
                }
            }
            let alarms = [self.connections.next_alarm(), Some(patient_until)];
            let until =
                if self.are_idle() { alarms.into_iter().flatten().min() } else { Some(now) };
            if self.collect(until, now).is_err() {
                // What clients have not taken ends with this process.
                return;
            }
            while let Some(source) = self.next() {
                match source {
                    WorkerSource::Sending(ticket) => self.connections.send_more(ticket),
                    // Its WebSockets have left before.
                    WorkerSource::Relayed(ticket) => drop(self.connections.relay(ticket)),
                    // Its lease was not revoked in time, or a handshake goes on.
                    WorkerSource::Parked(ticket, wakeup) => {
                        self.connections.take_leave(ticket, wakeup)
                    }
                    WorkerSource::Handshake(ticket) => {
                        self.connections.take_leave(ticket, Wakeup::Input);
                    }
                    WorkerSource::Control
                    | WorkerSource::Listener(_)
                    | WorkerSource::Arrival(_) => {}
                }
            }
        }
    }

    /// Whether connections wait for the worker that is to take the place of this one when it has ended.
    fn keeps_others_waiting(&self) -> bool {
        let waits = |listener: &Listener| {
            listener.socket().is_some_and(|socket| {
                wait::ready(socket.as_fd(), Direction::Read, Some(Duration::ZERO)).unwrap_or(false)
            })
        };
        let board = self.control.board();
        self.is_replaced
            && board.total(Total::Workers) >= self.most_workers as u64
            && (board.wants_offers() || self.listeners.iter().any(waits))
    }

    /// In a new child of the worker: gives up all descriptors of the worker's.
    pub fn disown(&mut self) {
        self.connections.disown();
        self.events.queue.clear();
        let sockets = self.listeners.iter().filter_map(Listener::socket);
        let numbers = sockets.map(AsRawFd::as_raw_fd);
        let ours = [self.events.epoll().0.as_raw_fd(), self.control.as_fd().as_raw_fd()];
        close_for_good(numbers.chain(ours));
    }
}
