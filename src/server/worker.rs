//! A worker: a small event loop around the Lua handler.
//!
//! [`Worker::next`] is called between two runs of the handler. It settles the connection that the
//! handler had, and waits for the next thing to do: a new connection, input on one that was parked,
//! an interval, an order of the supervisor.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{Lua, Value};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::accept::{Accepted, Acceptor};
use super::channel::{Channel, Inbox, Received};
use super::clock;
use super::listener::Listener;
use super::message::{Order, Report, Waiting};
use super::parking::{Connection, Due, ParkingLot, Ticket, detach};
use super::registry::Pool;
use super::scoreboard::{Activity, Cell, Counter};
use super::supervisor::Birth;
use crate::io::{Stream, Wakeup, new_handle, sigterm, stream_of};
use crate::sys::{alarm, class};

/// Events taken from the kernel at once.
const EVENTS: usize = 64;

/// Input that cannot be used yet and is more than this, in bytes, is not sent to and fro.
const MAX_INCOMPLETE: usize = 16 * 1024;

/// What is to be looked at.
#[derive(Debug)]
enum Source {
    Control,
    Listener(usize),
    Parked(Ticket, Wakeup),
    Arrival(Box<Arrival>),
}

/// A connection that comes from the supervisor.
#[derive(Debug)]
struct Arrival {
    descriptor: OwnedFd,
    wakeup: Wakeup,
    waiting: Waiting,
}

const CONTROL: u64 = 0;
const LISTENER: u64 = 1 << 60;
const PARKED: u64 = 2 << 60;
const NUMBER: u64 = LISTENER - 1;

impl Source {
    fn of(token: u64) -> Self {
        match token & !NUMBER {
            LISTENER => Source::Listener((token & NUMBER) as usize),
            PARKED => Source::Parked(Ticket::of(token & NUMBER), Wakeup::Input),
            _ => Source::Control,
        }
    }
}

/// What the handler is called for.
enum Task {
    Connection {
        connection: Connection,
        /// Its place in the parking lot, if it was parked before.
        ticket: Option<Ticket>,
        /// Why it comes back.
        wakeup: Wakeup,
        /// What becomes of it when the handler returns.
        fate: Fate,
    },
    /// An interval or main listener, by its position in the pool.
    Listener(u32),
}

/// What becomes of a connection when its handler returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Close,
    /// It is parked, until the deadline if there is one.
    Park(Option<Instant>),
    /// Its output is finished; its input is discarded until the client's end or this time.
    Linger(Instant),
}

/// Where the worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// The backlogs are served, then the worker ends.
    Draining,
    /// The worker ends when its parked connections are settled.
    Leaving,
}

/// The state of a worker.
pub struct Worker {
    pool: Rc<Pool>,
    cell: usize,
    channel: Channel,
    epoll: Rc<Epoll>,
    acceptor: Acceptor,
    parking: ParkingLot,
    /// What is to be looked at before the next wait.
    queue: VecDeque<Source>,
    /// Parked connections with input that was already received: their turn comes after the others'.
    ready: VecDeque<Ticket>,
    /// What the handler is to be called for next.
    tasks: VecDeque<Task>,
    /// What the handler is called for now.
    task: Option<Task>,
    inbox: Inbox,
    phase: Phase,
    /// The supervisor knows that the backlogs are empty.
    drained: bool,
    /// How often fields of handles had been assigned when that was last looked at.
    assignments: u64,
}

impl Worker {
    /// The worker that a fork made.
    pub fn new(birth: Birth) -> Result<Self, Errno> {
        let Birth { pool, cell, channel, .. } = birth;
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        epoll.add(&channel, EpollEvent::new(EpollFlags::EPOLLIN, CONTROL))?;
        Ok(Worker {
            acceptor: Acceptor::new(pool.clone(), epoll.clone(), LISTENER),
            parking: ParkingLot::new(epoll.clone(), PARKED, pool.clone(), cell),
            pool,
            cell,
            channel,
            epoll,
            queue: VecDeque::new(),
            ready: VecDeque::new(),
            tasks: VecDeque::new(),
            task: None,
            inbox: Inbox::default(),
            phase: Phase::Serving,
            drained: false,
            assignments: class::assignments(),
        })
    }

    /// `prepare` is done: connections are accepted from now on.
    pub fn ready(&mut self) -> Result<(), Errno> {
        self.acceptor.watch(true)?;
        self.cell().set(Activity::Busy);
        self.channel.send_patiently(&Report::Ready, None)
    }

    /// Asks to keep the handler's connection until it has input or the time is up; false if the
    /// stream is not the one the handler was called for.
    pub fn park(&mut self, stream: &Rc<RefCell<Stream>>, timeout: Option<Duration>) -> bool {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.decide(stream, Fate::Park(deadline))
    }

    /// Asks to discard what the client of the handler's connection still sends, until it closes or
    /// the time is up. False as for [`Worker::park`].
    pub fn linger_on(&mut self, stream: &Rc<RefCell<Stream>>, timeout: Duration) -> bool {
        self.decide(stream, Fate::Linger(Instant::now() + timeout))
    }

    fn decide(&mut self, stream: &Rc<RefCell<Stream>>, decision: Fate) -> bool {
        match &mut self.task {
            Some(Task::Connection { connection, fate, .. })
                if Rc::ptr_eq(&connection.stream, stream) && stream.borrow().is_open() =>
            {
                *fate = decision;
                true
            }
            _ => false,
        }
    }

    /// Settles what the handler had and waits for what it is to be called for next: its argument,
    /// or nil when the worker ends. `keep` tells whether the worker may live on.
    pub fn next(&mut self, lua: &Lua, keep: bool) -> mlua::Result<Value> {
        alarm::disarm();
        if self.task.is_some() {
            self.settle(lua);
            self.cell().add(Counter::Handled, 1);
            if !keep || sigterm::received() {
                self.leave();
            }
        }
        loop {
            if let Some(task) = self.tasks.pop_front() {
                // One that came while nothing was to be done means nothing.
                sigterm::clear();
                return self.hand_out(lua, task);
            }
            if self.phase == Phase::Leaving {
                return Ok(Value::Nil);
            }
            match self.queue.pop_front() {
                Some(source) => self.look_at(lua, source)?,
                None => self.wait(),
            }
        }
    }

    /// The worker ends after an error: its other connections go back to the supervisor.
    pub fn abandon(&mut self) {
        self.cell().add(Counter::Errors, 1);
        if let Some(Task::Connection { connection, ticket, .. }) = self.task.take() {
            if !connection.stream.borrow().is_closed() {
                let _ = connection.stream.borrow_mut().reset();
            }
            self.release(ticket);
        }
        self.leave();
    }

    fn cell(&self) -> Cell<'_> {
        self.pool.scoreboard.cell(self.cell)
    }

    /// What becomes of the thing the handler had.
    fn settle(&mut self, lua: &Lua) {
        match self.task.take() {
            None => {}
            Some(Task::Listener(index)) => self.report(&Report::Ran(index)),
            Some(Task::Connection { connection, ticket, fate, .. }) => {
                if !connection.stream.borrow().is_open() {
                    self.close(&connection, ticket);
                    return;
                }
                match fate {
                    Fate::Close => self.close(&connection, ticket),
                    Fate::Park(deadline) => {
                        let assignments = class::assignments();
                        if assignments != self.assignments {
                            self.assignments = assignments;
                            let personal = class::has_user_fields(lua, &connection.handle);
                            connection.personal.set(personal);
                        }
                        self.keep(connection, ticket, deadline);
                    }
                    Fate::Linger(until) => self.linger(&connection, ticket, until),
                }
            }
        }
    }

    /// Parks a connection, here or, if it is better off there, at the supervisor.
    fn keep(&mut self, connection: Connection, ticket: Option<Ticket>, deadline: Option<Instant>) {
        let (has_input, received) = {
            let mut stream = connection.stream.borrow_mut();
            if stream.pending() > 0 && stream.flush().is_err() {
                drop(stream);
                return self.close(&connection, ticket);
            }
            (stream.has_input(), stream.input().len())
        };
        // Input that cannot be used yet would be stuck here with a handler that runs for long.
        let incomplete = !has_input && received > 0;
        let personal = connection.personal.get();
        if incomplete && received <= MAX_INCOMPLETE && !personal {
            return self.hand_over(connection, ticket, deadline);
        }
        let Ok(ticket) = ticket.map_or_else(|| self.parking.admit(connection.clone()), Ok) else {
            // The system cannot watch it: better an end than a connection nobody hears.
            return self.close(&connection, None);
        };
        if !self.parking.is_leased(ticket) && !incomplete && !personal {
            if !self.parking.has_lease(ticket) {
                return self.hand_over(connection, Some(ticket), deadline);
            }
            let lent = {
                let stream = connection.stream.borrow();
                self.channel.send_patiently(&Report::Leased(ticket.number()), stream.fd())
            };
            if lent.is_ok() {
                self.parking.set_leased(ticket);
            }
        }
        // What other processes cannot have stays with this worker, whatever happens.
        let movable = !incomplete && !personal;
        self.parking.park(ticket, deadline, movable, Instant::now());
        if has_input {
            self.ready.push_back(ticket);
        }
    }

    /// Gives a connection to the supervisor until its client speaks.
    fn hand_over(
        &mut self,
        connection: Connection,
        ticket: Option<Ticket>,
        deadline: Option<Instant>,
    ) {
        let payload = connection.stream.borrow().input().to_vec();
        let waiting = Waiting { deadline: deadline.map(clock::milliseconds), payload };
        self.give_up(&connection, ticket, |leased| Report::Cooled(leased, waiting.clone()));
    }

    /// Gives a connection to the supervisor, which waits for the client's end.
    fn linger(&mut self, connection: &Connection, ticket: Option<Ticket>, until: Instant) {
        let until = clock::milliseconds(until);
        self.give_up(connection, ticket, |leased| Report::Lingering(leased, until));
    }

    fn give_up(
        &mut self,
        connection: &Connection,
        ticket: Option<Ticket>,
        report: impl FnOnce(Option<u64>) -> Report,
    ) {
        let leased = ticket.filter(|ticket| self.parking.is_leased(*ticket));
        if let Some(ticket) = ticket {
            self.parking.discharge(ticket);
        }
        let report = report(leased.map(Ticket::number));
        let Some(descriptor) = detach(connection) else { return };
        let attached = leased.is_none().then(|| descriptor.as_fd());
        let _ = self.channel.send_patiently(&report, attached);
    }

    /// Closes a connection that the handler left open. Its failure concerns the client alone.
    fn close(&mut self, connection: &Connection, ticket: Option<Ticket>) {
        {
            let mut stream = connection.stream.borrow_mut();
            if !stream.is_closed() {
                let _ = stream.close();
            }
        }
        self.release(ticket);
    }

    /// Gives up the place of a closed connection.
    fn release(&mut self, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        let leased = self.parking.is_leased(ticket);
        self.parking.discharge(ticket);
        if leased {
            self.report(&Report::Released(ticket.number()));
        }
    }

    /// Gives the handler its argument.
    fn hand_out(&mut self, lua: &Lua, task: Task) -> mlua::Result<Value> {
        let value = match &task {
            Task::Connection { connection, wakeup, .. } => {
                connection.stream.borrow_mut().set_wakeup(*wakeup);
                Value::UserData(connection.handle.clone())
            }
            Task::Listener(index) => {
                let table = lua.create_table()?;
                match self.pool.listeners.get(*index as usize) {
                    Some(Listener::Interval { name, .. }) => table.raw_set("interval", &**name)?,
                    Some(Listener::Main { name }) => table.raw_set("main", &**name)?,
                    _ => {}
                }
                Value::Table(table)
            }
        };
        self.task = Some(task);
        Ok(value)
    }

    fn look_at(&mut self, lua: &Lua, source: Source) -> mlua::Result<()> {
        match source {
            Source::Control => self.take_orders(),
            Source::Arrival(arrival) => {
                let Arrival { descriptor, wakeup, waiting } = *arrival;
                let mut stream = Stream::accepted(descriptor, None);
                stream.preload(&waiting.payload);
                stream.set_parked_until(waiting.deadline.map(clock::instant));
                self.receive(lua, stream, wakeup)?;
            }
            Source::Parked(ticket, wakeup) => {
                if let Some((connection, deadline)) = self.parking.take(ticket) {
                    connection.stream.borrow_mut().set_parked_until(deadline);
                    self.call_for(connection, Some(ticket), wakeup);
                }
            }
            Source::Listener(index) => match self.acceptor.accept(index) {
                Accepted::Connection(stream) => self.welcome(lua, *stream)?,
                Accepted::Nothing => {}
                Accepted::Closed => self.acceptor.watch(false).unwrap_or(()),
                Accepted::Exhausted(errno) => self.cannot_accept(errno),
            },
        }
        Ok(())
    }

    fn welcome(&mut self, lua: &Lua, stream: Stream) -> mlua::Result<()> {
        self.cell().add(Counter::Accepted, 1);
        self.receive(lua, stream, Wakeup::None)
    }

    fn receive(&mut self, lua: &Lua, stream: Stream, wakeup: Wakeup) -> mlua::Result<()> {
        let handle = new_handle(lua, stream)?;
        if let Some(stream) = stream_of(&handle) {
            self.call_for(Connection { handle, stream, personal: Rc::default() }, None, wakeup);
        }
        Ok(())
    }

    fn call_for(&mut self, connection: Connection, ticket: Option<Ticket>, wakeup: Wakeup) {
        self.tasks.push_back(Task::Connection { connection, ticket, wakeup, fate: Fate::Close });
    }

    fn cannot_accept(&mut self, errno: Errno) {
        self.cell().add(Counter::Errors, 1);
        if self.acceptor.pause(Instant::now()) {
            complain(&format!("Could not accept a connection: {}", errno.desc()));
        }
    }

    /// Waits for events and queues them; connections whose input was received already come last, so
    /// that a client that sends without end does not keep the others waiting.
    fn wait(&mut self) {
        let now = Instant::now();
        if self.cell().take_revocation() {
            self.parking.forget_revoked();
        }
        while let Some(due) = self.parking.due(now) {
            match due {
                Due::Timeout(ticket) => {
                    self.queue.push_back(Source::Parked(ticket, Wakeup::Timeout));
                }
                Due::Cold(ticket) => {
                    if let Some((connection, deadline)) = self.parking.take(ticket) {
                        self.hand_over(connection, Some(ticket), deadline);
                    }
                }
            }
        }
        let resumed = self.acceptor.resume(now);
        let idle = self.queue.is_empty() && self.ready.is_empty();
        if self.pool.scoreboard.wants_offers() && self.phase == Phase::Serving {
            return self.offer();
        }
        if idle && self.phase == Phase::Draining {
            return self.drain();
        }
        let timeout = if idle {
            self.cell().rest(clock::milliseconds(now));
            // The flag may have been raised before the supervisor could see this worker idle.
            if self.pool.scoreboard.wants_offers() && self.cell().wake() {
                return self.offer();
            }
            timeout([self.parking.next_alarm(), resumed].into_iter().flatten().min(), now)
        } else {
            EpollTimeout::ZERO
        };
        self.collect(timeout);
        if idle && !self.cell().wake() {
            // Claimed: an order is on its way and comes before everything else.
            self.cell().set(Activity::Busy);
            self.await_order();
        }
        if idle && self.pool.scoreboard.report_scarcity(self.pool.config.pre_fork) {
            self.report(&Report::Scarce);
        }
    }

    /// Takes what the kernel has; true if there was something.
    fn collect(&mut self, timeout: EpollTimeout) -> bool {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        self.queue.extend(events[..count].iter().map(|event| Source::of(event.data())));
        let ready = self.ready.drain(..).map(|ticket| Source::Parked(ticket, Wakeup::Input));
        self.queue.extend(ready);
        count > 0
    }

    /// Offers the supervisor to take what waits there.
    fn offer(&mut self) {
        self.cell().set(Activity::Offering);
        self.report(&Report::Offer);
        self.await_order();
        self.cell().set(Activity::Busy);
    }

    /// Waits for one order, which is known to come, or for the end of the supervisor.
    fn await_order(&mut self) {
        let _ = self.channel.wait_for_message();
        self.take_orders();
    }

    fn take_orders(&mut self) {
        loop {
            match self.channel.receive(&mut self.inbox) {
                Ok(Received::Message(order, descriptor)) => self.obey(order, descriptor),
                Ok(Received::Empty) => return,
                // Without a supervisor nobody replaces or ends this worker.
                Ok(Received::Closed | Received::Garbage) | Err(_) => {
                    self.phase = Phase::Leaving;
                    return;
                }
            }
        }
    }

    fn obey(&mut self, order: Order, descriptor: Option<OwnedFd>) {
        match order {
            Order::Resume(wakeup, waiting) => {
                // Without a descriptor this process has too many: the client sees the end.
                if let Some(descriptor) = descriptor {
                    let arrival = Arrival { descriptor, wakeup, waiting };
                    self.queue.push_front(Source::Arrival(Box::new(arrival)));
                }
            }
            Order::Run(index) => self.tasks.push_back(Task::Listener(index)),
            Order::Nothing => {}
            Order::Terminate => self.leave(),
            Order::Drain => {
                self.phase = Phase::Draining;
                let _ = self.acceptor.watch(false);
            }
        }
    }

    /// One step of an orderly shutdown: what waits in the backlogs is accepted, what has input is
    /// served, the other parked connections are told; then the worker ends.
    fn drain(&mut self) {
        if let Some(index) = self.acceptor.waiting() {
            self.queue.push_back(Source::Listener(index));
            return;
        }
        if !std::mem::replace(&mut self.drained, true) {
            self.report(&Report::Drained);
        }
        if self.collect(EpollTimeout::ZERO) {
            return;
        }
        let parked = self.parking.tickets();
        let farewell = |ticket| Source::Parked(ticket, Wakeup::Shutdown);
        self.queue.extend(parked.into_iter().map(farewell));
        if self.queue.is_empty() {
            // The last question: does the supervisor have connections that are to be told as well?
            self.offer();
            if self.queue.is_empty() {
                self.leave();
            }
        }
    }

    /// From now on the worker takes nothing new.
    fn leave(&mut self) {
        if self.phase != Phase::Leaving {
            self.phase = Phase::Leaving;
            let _ = self.acceptor.watch(false);
            for ticket in self.parking.tickets() {
                // The supervisor takes back the others by itself.
                if !self.parking.is_revocable(ticket)
                    && let Some((connection, deadline)) = self.parking.take(ticket)
                {
                    self.hand_over(connection, Some(ticket), deadline);
                }
            }
            self.report(&Report::Leaving);
        }
    }

    /// Tells the supervisor; if it is gone, the control channel says so at the next look.
    fn report(&self, report: &Report) {
        let _ = self.channel.send_patiently(report, None);
    }
}

/// Writes to standard error, which leads into the log.
fn complain(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// How long to wait for events: rounded up, so that nothing is due too early.
fn timeout(wake: Option<Instant>, now: Instant) -> EpollTimeout {
    let Some(wake) = wake else { return EpollTimeout::NONE };
    let wait = wake.saturating_duration_since(now).as_micros().div_ceil(1000);
    EpollTimeout::try_from(i32::try_from(wait).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::MAX)
}
