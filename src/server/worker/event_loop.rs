//! The event loop of a worker: it passes what happens to the parts, until there is something to call the
//! handler for. It knows nothing of Lua.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::accept::Acceptor;
use super::connection::{Connection, Running};
use super::connections::Connections;
use super::control::{Control, Heard, Phase, complain};
use super::disposition::Disposition;
use super::events::{Events, Source};
use super::handover::Arrival;
use super::places::Places;
use super::recycling::Recycling;
use super::request_log;
use super::stopwatch::Stopwatch;
use crate::io::{Wakeup, sigterm};
use crate::server::ipc::channel::Parcel;
use crate::server::ipc::clock;
use crate::server::ipc::lease::LeaseTable;
use crate::server::ipc::message::{Order, Report};
use crate::server::ipc::scoreboard::{Activity, Counter};
use crate::server::ipc::ticket::Ticket;
use crate::server::listen::listener::Listener;
use crate::server::listen::spec::ListenerSpec;
use crate::server::metrics::pool::Meter;
use crate::sys::os::error_text;
use crate::sys::os::monotonic::MonotonicTime;
use crate::sys::os::process::close_for_good;
use crate::sys::os::worker_signals;

/// A worker that only sends what is left at a shutdown asks so often whether there is more to do.
const OFFER_AGAIN: Duration = Duration::from_millis(100);

/// A worker that has nothing to do, and that was given nothing though something waits, asks again after
/// this: what waits may be reserved for others.
const RESERVED: Duration = Duration::from_millis(1);

/// A worker that leaves takes so many connections from each port with it at most: the kernel tells one
/// worker of each.
const LAST_CONNECTIONS: usize = 4;

/// What the handler is called for.
pub enum Task {
    /// A connection.
    Connection(Running),
    /// An interval or main listener, by its position in the pool.
    Job(u32),
}

/// The parts of a worker that know nothing of Lua.
pub struct EventLoop {
    listeners: Rc<[Listener]>,
    pre_fork: usize,
    control: Rc<Control>,
    events: Events,
    acceptor: Acceptor,
    connections: Connections,
    /// Intervals and main listeners whose handler is to be called.
    jobs: VecDeque<u32>,
    /// The last offer was in vain.
    refused: bool,
    recycling: Option<Recycling>,
    stopwatch: Stopwatch,
}

impl EventLoop {
    /// The loop of a worker in a pool with these listeners that wants `pre_fork` idle workers, with the
    /// leases of its cell. Its parked connections may hold so many bytes of input that nobody else can
    /// hold.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn new(
        control: Control,
        (listeners, pre_fork): (Rc<[Listener]>, usize),
        leases: (Rc<LeaseTable>, usize),
        input_limit: usize,
    ) -> Result<Self, Errno> {
        let control = Rc::new(control);
        let events = Events::new(control.channel())?;
        let epoll = events.epoll().clone();
        Ok(EventLoop {
            acceptor: Acceptor::new(listeners.clone(), epoll.clone()),
            listeners,
            pre_fork,
            connections: Connections::new(epoll, control.clone(), leases, input_limit),
            control,
            events,
            jobs: VecDeque::new(),
            refused: false,
            recycling: None,
            stopwatch: Stopwatch::new(MonotonicTime::now()),
        })
    }

    /// The same for a worker that is replaced now and then.
    pub fn recycled(self, recycling: Recycling) -> Self {
        EventLoop { recycling: Some(recycling), ..self }
    }

    /// The same for a worker that counts what it does.
    pub fn counted(mut self, meter: Meter) -> Self {
        self.stopwatch.count(meter);
        self
    }

    /// The listeners of the pool.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Its side of the control channel.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The places of its connections.
    pub fn places(&self) -> &Places {
        self.connections.places()
    }

    /// Whether the worker takes new connections.
    #[cfg(test)]
    pub fn serves(&self) -> bool {
        self.control.phase() == Phase::Serving
    }

    /// Whether the worker ends.
    #[cfg(test)]
    pub fn is_leaving(&self) -> bool {
        self.control.phase() == Phase::Leaving
    }

    /// Connections that would be lost if this process were killed now.
    #[cfg(test)]
    pub fn unshared(&self) -> Vec<std::os::fd::OwnedFd> {
        let arrivals = self.events.queue.iter().filter_map(|source| match source {
            Source::Arrival(arrival) => arrival.parcel.connection.try_clone().ok(),
            _ => None,
        });
        arrivals.chain(self.connections.unshared()).collect()
    }

    /// The connections.
    pub fn connections(&mut self) -> &mut Connections {
        &mut self.connections
    }

    /// `prepare` is done: connections are accepted from now on.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn ready(&mut self) -> Result<(), Errno> {
        self.control.try_send(&Report::Ready, &[])?;
        while self.control.is_held() && self.control.phase() == Phase::Serving {
            self.control.wait_for_order();
            self.take_orders();
        }
        self.stopwatch.told(MonotonicTime::now());
        // It counts as starting until it is idle: a moment of work would make the pool grow.
        self.take_orders();
        let serves = self.control.phase() == Phase::Serving;
        if serves {
            self.acceptor.watch(true)?;
        }
        if !serves || !self.events.queue.is_empty() {
            self.control.cell().set(Activity::Busy);
        }
        Ok(())
    }

    /// The handler has returned at this time: counts that, and ends the worker if that is due.
    /// Gives the place of its connection if the worker keeps that.
    pub fn settle(&mut self, task: Task, keep: bool, now: MonotonicTime) -> Option<Ticket> {
        self.note_end(Some(&task), now);
        let ticket = match task {
            Task::Job(index) => {
                self.control.report(&Report::Ran(index));
                None
            }
            Task::Connection(running) => self.connections.settle(running, now),
        };
        self.control.cell().add(Counter::Handled, 1);
        let mut told = sigterm::received();
        if told {
            // At a shutdown the signal comes with an order, which says what to do first.
            self.take_orders();
            told = self.control.phase() == Phase::Serving;
        }
        let due = self.recycling.as_mut().and_then(Recycling::is_due);
        if let Some(Some(text)) = &due {
            complain(text);
        }
        if !keep || told || due.is_some() {
            self.leave();
        }
        ticket
    }

    /// The handler has returned nothing: tells once in each pool what that means.
    pub fn note_no_result(&self, task: &Task) {
        // The end of a main listener's handler ends the server.
        let ends = |index: u32| {
            let listener = self.listeners.get(index as usize);
            listener.is_some_and(|listener| matches!(listener.spec, ListenerSpec::Main { .. }))
        };
        if matches!(task, Task::Job(index) if ends(*index))
            || !self.control.board().tell_no_result()
        {
            return;
        }
        complain(
            "\"connect\" has returned nothing, so this worker ends and another one is forked: that costs far \
             more than a request. Return true to keep workers. This is told once",
        );
    }

    /// Waits for what the handler is to be called for next; nothing when the worker ends.
    pub fn next_task(&mut self) -> Option<Task> {
        loop {
            if let Some(task) = self.poll_task() {
                return Some(task);
            }
            if self.control.phase() == Phase::Leaving {
                return None;
            }
            self.wait(self.stopwatch.now(), None);
        }
    }

    /// The handler has returned, or thrown.
    #[inline(always)]
    fn note_end(&mut self, task: Option<&Task>, now: MonotonicTime) {
        let running = match task {
            Some(Task::Connection(running)) => Some(running),
            Some(Task::Job(_)) | None => None,
        };
        self.stopwatch.end(running, now);
    }

    /// What the handler is to be called for next, if something has happened.
    pub fn poll_task(&mut self) -> Option<Task> {
        if let Some(job) = self.jobs.pop_front() {
            return Some(Task::Job(job));
        }
        while self.control.phase() != Phase::Leaving {
            let running = match self.events.queue.pop_front()? {
                Source::Control => {
                    self.take_orders();
                    None
                }
                Source::Arrival(arrival) => self.connections.receive(*arrival),
                Source::Parked(ticket, wakeup) => self.connections.wake(ticket, wakeup),
                Source::Sending(ticket) => {
                    self.connections.send_more(ticket);
                    None
                }
                Source::Listener(index) => self.accept(index).and_then(|new| self.admit(new)),
            };
            let running = running.and_then(|running| self.connections.read_proxy_header(running));
            let job = || self.jobs.pop_front().map(Task::Job);
            if let Some(task) = running.map(Task::Connection).or_else(job) {
                return Some(task);
            }
        }
        None
    }

    /// A new connection is for the handler, unless the next generation serves: then it is for that.
    fn admit(&mut self, connection: Connection) -> Option<Running> {
        if worker_signals::are_ports_passed_on() {
            self.connections.pass_new(&connection);
            return None;
        }
        Some(Running::new(connection, None, Wakeup::None))
    }

    /// The handler is about to be called.
    pub fn begin(&mut self, task: &Task) {
        // A SIGTERM received before the handler begins is not for it.
        sigterm::clear();
        self.connections.before_handler();
        if let Task::Connection(Running { connection, wakeup, queued, .. }) = task {
            let mut stream = connection.stream.borrow_mut();
            let (ready, start) = self.stopwatch.begin(*queued, stream.written());
            request_log::begin_run(ready, start);
            stream.handler.wakeup = *wakeup;
            stream.handler.last = self.control.phase() == Phase::Draining;
        }
    }

    /// Nothing is left for the handler: the worker sends what is queued, and ends.
    pub fn finish(&mut self) {
        self.send_rest();
        self.control.cell().set(Activity::Finishing);
    }

    /// The worker ends after an error: its other connections go back to the supervisor. That of the
    /// handler is reset, unless the handler was done with it for good.
    pub fn abandon(&mut self, task: Option<Task>) {
        self.control.cell().add(Counter::Errors, 1);
        let now = MonotonicTime::now();
        self.note_end(task.as_ref(), now);
        self.note_failure();
        match task {
            Some(Task::Connection(running)) => match running.disposition {
                Disposition::Linger { .. } => drop(self.connections.settle(running, now)),
                _ => self.connections.reset(&running),
            },
            Some(Task::Job(_)) | None => {}
        }
        self.leave();
        self.send_rest();
    }

    /// The worker has come to its end: how the process ends is the orderly way.
    pub fn over(&self) {
        self.control.cell().set(Activity::Ended);
    }

    /// Waits for events and queues them, but not beyond the given time.
    pub fn wait(&mut self, now: MonotonicTime, most: Option<MonotonicTime>) {
        self.connections.look_after(now);
        let resumed = self.acceptor.resume(now);
        let idle = self.events.queue.is_empty() && self.connections.ready().is_empty();
        let refused = std::mem::take(&mut self.refused);
        let (control, phase) = (self.control.clone(), self.control.phase());
        if control.board().wants_offers() && phase == Phase::Serving && !refused {
            return self.offer();
        }
        if idle && phase == Phase::Draining {
            return self.drain(now, most);
        }
        let mut until = Some(now);
        if idle {
            control.cell().rest(clock::monotonic_milliseconds(self.stopwatch.now()));
            // The flag may have been raised before the supervisor could see this worker idle.
            let wanted = control.board().wants_offers();
            if wanted && !refused && control.cell().wake() {
                return self.offer();
            }
            let again = (wanted && refused).then(|| now + RESERVED);
            let alarms = [self.connections.next_alarm(), resumed, again, most];
            until = alarms.into_iter().flatten().min();
        }
        self.collect(until, now);
        if idle && !control.cell().wake() {
            // Claimed: an order is on its way and comes before everything else.
            control.cell().set(Activity::Busy);
            self.pass_new_connections();
            self.refused = !control.wait_for_order();
            self.stopwatch.told(MonotonicTime::now());
            self.take_orders();
        }
        if idle && control.board().report_scarcity(self.pre_fork) {
            control.report(&Report::FewIdle);
        }
    }

    /// Queues what the kernel has, then what is due without an event; true if the kernel had something.
    fn collect(&mut self, until: Option<MonotonicTime>, now: MonotonicTime) -> bool {
        let found = self.events.collect(until, now).unwrap_or_else(|errno| {
            // Something in this process has closed what it does not own: another one serves better.
            complain(&format!("Waiting for events failed: {}", error_text::describe(errno as i32)));
            self.leave();
            false
        });
        self.stopwatch.told(MonotonicTime::now());
        self.queue_ready();
        found
    }

    fn queue_ready(&mut self) {
        if self.connections.ready().is_empty() {
            return;
        }
        let ready = self.connections.ready().drain(..);
        self.events.queue.extend(ready.map(|(ticket, wakeup)| Source::Parked(ticket, wakeup)));
    }

    /// An order comes first, and may take long. The kernel has told this worker alone of new
    /// connections: they go to whoever has time.
    fn pass_new_connections(&mut self) {
        for source in std::mem::take(&mut self.events.queue) {
            match source {
                Source::Listener(index) => {
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

    /// Offers the supervisor to take what waits there.
    fn offer(&mut self) {
        self.queue_ready();
        self.refused = !self.control.offer();
        self.stopwatch.told(MonotonicTime::now());
        self.take_orders();
    }

    fn take_orders(&mut self) {
        loop {
            match self.control.hear() {
                Heard::Order(order, parcel) => self.obey(order, parcel),
                Heard::Nothing => return,
                Heard::End => return self.control.enter(Phase::Leaving),
            }
        }
    }

    fn obey(&mut self, order: Order, parcel: Option<Parcel>) {
        match order {
            Order::Resume(number, wakeup, state) => match parcel {
                Some(parcel) => {
                    let arrival = Box::new(Arrival { number, parcel, wakeup, state: *state });
                    self.events.queue.push_front(Source::Arrival(arrival));
                }
                // This process may open no descriptor for it, nor for those that follow: another one
                // serves better.
                None => {
                    complain("No descriptor is left for a connection: another worker gets it");
                    self.control.report(&Report::Declined(number, wakeup, *state));
                    if !self.connections.end_slowest() {
                        self.leave();
                    }
                }
            },
            Order::Run(index) => self.jobs.push_back(index),
            Order::Nothing => self.refused = true,
            Order::CheckPorts if self.control.phase() != Phase::Serving => {}
            Order::CheckPorts => {
                self.events.queue.extend((0..self.listeners.len()).map(Source::Listener))
            }
            Order::Serve => self.control.hold(false),
            Order::Terminate => self.leave(),
            Order::Drain => {
                self.control.enter(Phase::Draining);
                self.connections.begin_drain();
                // The supervisor has closed the ports. What waits at a service manager's stays there.
                self.events.queue.retain(|source| !matches!(source, Source::Listener(_)));
                let _ = self.acceptor.watch(false);
            }
        }
    }

    /// One step of an orderly shutdown: what has input is served, then what waits at the supervisor. The
    /// other parked connections are told when they are cold, so that the next request of a hot one,
    /// which may be on its way, is served. Then the worker ends.
    fn drain(&mut self, now: MonotonicTime, most: Option<MonotonicTime>) {
        if self.collect(Some(now), now) {
            return;
        }
        // The last question: does the supervisor have connections that are to be told as well?
        self.offer();
        if !self.events.queue.is_empty() {
            return;
        }
        if !self.connections.have_parked() && self.connections.have_sent() {
            return self.leave();
        }
        let alarms = [self.connections.next_alarm(), Some(now + OFFER_AGAIN), most];
        let next = alarms.into_iter().flatten().min();
        self.collect(next, now);
    }

    /// From now on the worker takes nothing new.
    fn leave(&mut self) {
        let phase = self.control.phase();
        if phase == Phase::Leaving {
            return;
        }
        self.control.enter(Phase::Leaving);
        let _ = self.acceptor.watch(false);
        if phase == Phase::Serving {
            self.pass_last_connections();
        }
        let mut with_input = Vec::new();
        for source in std::mem::take(&mut self.events.queue) {
            match source {
                Source::Arrival(arrival) => {
                    let Arrival { number, wakeup, state, .. } = *arrival;
                    self.control.report(&Report::Declined(number, wakeup, state));
                }
                Source::Parked(ticket, Wakeup::Input) => with_input.push(ticket),
                _ => {}
            }
        }
        self.connections.leave(with_input);
        if phase == Phase::Serving {
            self.connections.pass_on_output();
        }
        self.control.report(&Report::Leaving);
    }

    /// The last thing a worker does: it waits until all output is sent. Nothing new is taken.
    fn send_rest(&mut self) {
        if self.connections.have_sent() {
            return;
        }
        let _ = self.acceptor.watch(false);
        // What the supervisor still sends it takes back when this process has ended.
        let _ = self.events.epoll().delete(&*self.control);
        while !self.connections.have_sent() {
            let now = MonotonicTime::now();
            self.connections.look_after(now);
            self.collect(self.connections.next_alarm(), now);
            while let Some(source) = self.events.queue.pop_front() {
                match source {
                    Source::Sending(ticket) => self.connections.send_more(ticket),
                    // Its lease was not revoked in time.
                    Source::Parked(ticket, _) => self.connections.hand_over_parked(ticket, false),
                    Source::Control | Source::Listener(_) | Source::Arrival(_) => {}
                }
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

    fn note_failure(&self) {
        if let Some(meter) = self.stopwatch.meter() {
            meter.failed();
        }
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
