//! The event loop of a worker: it carries out the supervisor's orders and serves its [`WorkSources`], until there is something to
//! call the handler for. It knows nothing of Lua.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::connection::Running;
use super::connections::Connections;
use super::control::{Control, Heard, WorkerPhase, complain};
use super::disposition::Disposition;
use super::events::WorkerSource;
use super::handover::Arrival;
use super::holding::Holding;
use super::places::Places;
use super::recycling::Recycling;
use super::request_log;
use super::sources::WorkSources;
use crate::io::Wakeup;
use crate::io::sigterm;
use crate::server::ipc::channel::Parcel;
use crate::server::ipc::clock;
use crate::server::ipc::lease::LeaseTable;
use crate::server::ipc::message::{Order, Report};
use crate::server::ipc::scoreboard::{Activity, Counter};
use crate::server::ipc::ticket::Ticket;
use crate::server::listen::listener::Listener;
use crate::server::metrics::pool::Meter;
use crate::sys::os::monotonic::MonotonicTime;

/// The interval at which a worker that only sends remaining output at a shutdown offers to do more.
const OFFER_AGAIN: Duration = Duration::from_millis(100);

/// A worker that has nothing to do, and that was given nothing though something waits, asks again after
/// this: what waits may be reserved for others.
const RESERVED: Duration = Duration::from_millis(1);

/// What the handler is called for.
pub enum Task {
    /// A connection.
    Connection(Running),
    /// An interval or main listener, by its position in the pool.
    Job(u32),
}

/// The parts of a worker that know nothing of Lua.
pub struct EventLoop {
    pre_fork: usize,
    control: Rc<Control>,
    pub(super) sources: WorkSources,
    /// Intervals and main listeners whose handler is to be called.
    jobs: VecDeque<u32>,
    /// The supervisor had nothing for the last offer.
    refused: bool,
    recycling: Option<Recycling>,
}

impl EventLoop {
    /// The loop of a worker in a pool with these listeners that wants `pre_fork` idle workers, with the leases of its cell.
    /// Its parked connections may hold that many bytes of input that nobody else can hold.
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
        Ok(EventLoop {
            pre_fork,
            sources: WorkSources::new(control.clone(), listeners, leases, input_limit)?,
            control,
            jobs: VecDeque::new(),
            refused: false,
            recycling: None,
        })
    }

    /// The same for a worker that is replaced now and then.
    pub fn recycled(mut self, recycling: Recycling) -> Self {
        self.sources.most_workers = recycling.most_workers;
        EventLoop { recycling: Some(recycling), ..self }
    }

    /// The same for a worker that can have connections held.
    pub fn holding(mut self, holding: Option<Holding>) -> Self {
        self.sources.connections.holding = holding;
        self
    }

    /// The same for a worker that counts what it does.
    pub fn counted(mut self, meter: Meter) -> Self {
        self.sources.count(meter);
        self
    }

    /// The listeners of the pool.
    pub fn listeners(&self) -> &[Listener] {
        self.sources.listeners()
    }

    /// Its side of the control channel.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The places of its connections.
    pub fn places(&self) -> &Places {
        self.sources.connections.places()
    }

    /// The connections.
    pub fn connections(&mut self) -> &mut Connections {
        &mut self.sources.connections
    }

    /// `prepare` is done: connections are accepted from now on.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn ready(&mut self) -> Result<(), Errno> {
        self.control.try_send(&Report::Ready, &[])?;
        while self.control.is_held() && self.control.phase() == WorkerPhase::Serving {
            self.control.wait_for_order();
            self.take_orders();
        }
        self.sources.stopwatch.told(MonotonicTime::now());
        // It counts as starting until it is idle: a moment of work would make the pool grow.
        self.take_orders();
        let serves = self.control.phase() == WorkerPhase::Serving;
        if serves {
            self.sources.listen()?;
        }
        if !serves || !self.sources.are_empty() {
            self.control.cell().set(Activity::Busy);
        }
        Ok(())
    }

    /// The handler has returned: counts that, and ends the worker if that is due. Returns the place of a connection it keeps.
    pub fn settle(&mut self, task: Task, keep: bool, now: MonotonicTime) -> Option<Ticket> {
        self.note_end(Some(&task), now);
        let ticket = match task {
            Task::Job(index) => {
                self.control.report(&Report::Ran(index));
                None
            }
            Task::Connection(running) => self.sources.connections.settle(running, now),
        };
        self.control.cell().add(Counter::Handled, 1);
        let mut told = sigterm::received();
        if told {
            // At a shutdown the signal comes with an order, which says what to do first.
            self.take_orders();
            told = self.control.phase() == WorkerPhase::Serving;
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

    /// Waits for what the handler is to be called for next; nothing when the worker ends.
    pub fn next_task(&mut self) -> Option<Task> {
        loop {
            if let Some(task) = self.poll_task() {
                return Some(task);
            }
            if self.control.phase() == WorkerPhase::Leaving {
                return self.sources.connections.next_to_tell().map(Task::Connection);
            }
            if self.sources.tidying.is_due(self.sources.stopwatch.now()) {
                return None;
            }
            self.wait(self.sources.stopwatch.now(), None);
        }
    }

    /// There was nothing to do: as [`WorkSources::tidy`].
    pub fn tidy(&mut self, collect: impl FnOnce(&mut Places)) -> bool {
        self.sources.tidy(collect)
    }

    /// The handler has returned, or thrown.
    #[inline(always)]
    fn note_end(&mut self, task: Option<&Task>, now: MonotonicTime) {
        let running = match task {
            Some(Task::Connection(running)) => Some(running),
            Some(Task::Job(_)) | None => None,
        };
        self.sources.stopwatch.end(running, now);
    }

    /// What the handler is to be called for next, if something has happened.
    pub fn poll_task(&mut self) -> Option<Task> {
        if let Some(job) = self.jobs.pop_front() {
            return Some(Task::Job(job));
        }
        while self.control.phase() != WorkerPhase::Leaving {
            let running = match self.sources.next()? {
                WorkerSource::Control => {
                    self.take_orders();
                    None
                }
                source => self.sources.take_in(source),
            };
            let job = || self.jobs.pop_front().map(Task::Job);
            if let Some(task) = running.map(Task::Connection).or_else(job) {
                return Some(task);
            }
        }
        None
    }

    /// The handler is about to be called.
    pub fn begin(&mut self, task: &Task) {
        // A SIGTERM received before the handler begins is not for it.
        sigterm::clear();
        self.sources.connections.before_handler();
        if let Task::Connection(Running { connection, wakeup, queued, .. }) = task {
            let mut stream = connection.stream.borrow_mut();
            let (ready, start) = self.sources.stopwatch.begin(*queued, stream.duplex.written());
            request_log::begin_run(&stream, ready, start);
            stream.handler.wakeup = *wakeup;
            // With TLS, the first request of a new connection may still be on its way.
            let drains = self.control.phase() == WorkerPhase::Draining;
            stream.handler.last = drains && *wakeup != Wakeup::None;
        }
    }

    /// Nothing is left for the handler: the worker sends what is queued, and ends.
    pub fn finish(&mut self) {
        self.sources.send_rest();
        self.control.cell().set(Activity::Finishing);
    }

    /// The worker ends after an error: its other connections go back. That of the handler is reset, unless it had ended.
    pub fn abandon(&mut self, task: Option<Task>) {
        self.control.cell().add(Counter::Errors, 1);
        let now = MonotonicTime::now();
        self.note_end(task.as_ref(), now);
        self.sources.note_failure();
        match task {
            Some(Task::Connection(running)) => match running.disposition {
                Disposition::Linger { .. } => drop(self.sources.connections.settle(running, now)),
                _ => self.sources.connections.reset(&running),
            },
            Some(Task::Job(_)) | None => {}
        }
        self.leave();
        self.sources.send_rest();
    }

    /// The worker has ended gracefully: tells the supervisor so.
    pub fn over(&self) {
        self.control.cell().set(Activity::Ended);
    }

    /// Waits for events and queues them, but not beyond the given time.
    pub fn wait(&mut self, now: MonotonicTime, most: Option<MonotonicTime>) {
        let resumed = self.sources.look_after(now);
        let idle = self.sources.are_idle();
        if idle && self.sources.tidying.is_due(now) {
            return;
        }
        let refused = std::mem::take(&mut self.refused);
        let (control, phase) = (self.control.clone(), self.control.phase());
        if control.board().wants_offers() && phase == WorkerPhase::Serving && !refused {
            return self.offer();
        }
        if idle && phase == WorkerPhase::Draining {
            return self.drain(now, most);
        }
        let mut until = Some(now);
        if idle {
            control.cell().rest(clock::monotonic_milliseconds(self.sources.stopwatch.now()));
            // The flag may have been raised before the supervisor could see this worker idle.
            let wanted = control.board().wants_offers();
            if wanted && !refused && control.cell().wake() {
                return self.offer();
            }
            let again = (wanted && refused).then(|| now + RESERVED);
            let alarms = [self.sources.connections.next_alarm(), resumed, again, most];
            until = alarms.into_iter().flatten().min();
        }
        self.collect(until, now);
        if idle && !control.cell().wake() {
            // Claimed: an order is on its way and comes before everything else.
            control.cell().set(Activity::Busy);
            self.sources.pass_new_connections();
            self.refused = !control.wait_for_order();
            self.sources.stopwatch.told(MonotonicTime::now());
            self.take_orders();
        }
        if idle && control.board().report_scarcity(self.pre_fork) {
            control.report(&Report::FewIdle);
        }
    }

    /// As [`WorkSources::collect`]; false if the worker has to leave.
    fn collect(&mut self, until: Option<MonotonicTime>, now: MonotonicTime) -> bool {
        self.sources.collect(until, now).unwrap_or_else(|_| {
            // Some code in this process has closed a descriptor of the worker's: it is replaced.
            self.leave();
            false
        })
    }

    /// Offers the supervisor to take what waits there.
    fn offer(&mut self) {
        self.sources.queue_ready();
        self.refused = !self.control.offer();
        self.sources.stopwatch.told(MonotonicTime::now());
        self.take_orders();
    }

    fn take_orders(&mut self) {
        loop {
            match self.control.hear() {
                Heard::Order(order, parcel) => self.carry_out(order, parcel),
                Heard::Nothing => return,
                Heard::End => return self.control.enter(WorkerPhase::Leaving),
            }
        }
    }

    fn carry_out(&mut self, order: Order, parcel: Option<Parcel>) {
        match order {
            Order::Resume(number, wakeup, state) => match parcel {
                Some(parcel) => {
                    self.sources.arrive(Arrival { number, parcel, wakeup, state: *state });
                }
                // This process may open no descriptor for it, nor for those that follow: another one
                // serves better.
                None => {
                    complain("No descriptor is left for a connection: another worker gets it");
                    self.control.report(&Report::Declined(number, wakeup, *state));
                    if !self.sources.connections.end_slowest() {
                        self.leave();
                    }
                }
            },
            Order::Run(index) => self.jobs.push_back(index),
            Order::Nothing => self.refused = true,
            Order::CheckPorts if self.control.phase() != WorkerPhase::Serving => {}
            Order::CheckPorts => self.sources.check_ports(),
            Order::Serve => self.control.hold(false),
            Order::Terminate => self.leave(),
            Order::Drain => {
                self.control.enter(WorkerPhase::Draining);
                self.sources.begin_drain();
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
        if !self.sources.are_empty() {
            return;
        }
        let connections = &self.sources.connections;
        if !connections.have_parked() && connections.have_sent() {
            return self.leave();
        }
        let alarms = [connections.next_alarm(), Some(now + OFFER_AGAIN), most];
        let next = alarms.into_iter().flatten().min();
        self.collect(next, now);
    }

    /// From now on the worker takes nothing new.
    fn leave(&mut self) {
        let phase = self.control.phase();
        if phase == WorkerPhase::Leaving {
            return;
        }
        self.control.enter(WorkerPhase::Leaving);
        self.sources.leave(phase == WorkerPhase::Serving);
        self.control.report(&Report::Leaving);
    }

    /// In a new child of the worker: gives up all descriptors of the worker's.
    pub fn disown(&mut self) {
        self.sources.disown();
    }
}
