//! A worker: a small event loop around the Lua handler.
//!
//! [`Worker::next`] is called between two runs of the handler. It settles the connection that the
//! handler had, and waits for the next thing to do: a new connection, input on one that was parked,
//! an interval, an order of the supervisor.

pub mod accept;
mod child;
mod connections;
pub mod context;
pub mod cooling;
mod fate;
pub mod handle_methods;
mod outbox;
pub mod parking;
mod sending;
pub mod timeout;
mod waiting;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use mlua::{Lua, Table, Value};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::birth::Birth;
use super::ipc::channel::{Channel, Inbox, Parcel};
use super::ipc::connection_state::ConnectionState;
use super::ipc::message::Report;
use super::ipc::scoreboard::{Activity, Cell, Counter};
use super::ipc::ticket::Ticket;
use super::listen::listener::Listener;
use super::listen::registry::Pool;
use super::tally::Tally;
use crate::io::{Stream, Wakeup, sigterm, stream_of};
use crate::sys::lua::class;
use crate::sys::os::alarm;
use accept::Acceptor;
use fate::Fate;
use outbox::Outbox;
use parking::{Connection, ParkingLot};

pub use fate::STALL;

/// What is to be looked at.
#[derive(Debug)]
enum Source {
    Control,
    Listener(usize),
    Parked(Ticket, Wakeup),
    /// Its handler is done with it, and its client takes more output or is gone.
    Sending(Ticket),
    Arrival(Box<Arrival>),
}

/// A connection that comes from the supervisor.
#[derive(Debug)]
struct Arrival {
    /// Its number at the supervisor.
    number: u64,
    parcel: Parcel,
    wakeup: Wakeup,
    state: ConnectionState,
}

const CONTROL: u64 = 0;
const LISTENER: u64 = 1 << 60;
const PARKED: u64 = 2 << 60;
const SENDING: u64 = 3 << 60;
const NUMBER: u64 = LISTENER - 1;

impl Source {
    fn of(token: u64) -> Self {
        match token & !NUMBER {
            LISTENER => Source::Listener((token & NUMBER) as usize),
            PARKED => Source::Parked(Ticket::of(token & NUMBER), Wakeup::Input),
            SENDING => Source::Sending(Ticket::of(token & NUMBER)),
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

impl Task {
    /// A new connection's handle is known to Lua alone: `argument` is what the handler had.
    fn learn_handle(&mut self, argument: &Value) {
        if let (Task::Connection { connection, .. }, Value::UserData(handle)) = (self, argument)
            && connection.handle.is_none()
            && stream_of(handle).is_some_and(|stream| Rc::ptr_eq(&stream, &connection.stream))
        {
            connection.handle = Some(handle.clone());
        }
    }
}

/// What the handler is called for, as Lua is told it by [`Worker::advance`].
pub enum Subject {
    /// A connection that was parked, by the place of its handle.
    Parked(u32),
    /// A new connection, which needs a handle.
    New,
}

/// Where the worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// What waits at the supervisor is served, then the worker ends.
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
    outbox: Outbox,
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
    /// The last offer was in vain.
    refused: bool,
    /// How often fields of handles had been assigned when that was last looked at.
    assignments: u64,
    /// How many bytes of input parked connections may hold that nobody else can hold.
    input_limit: usize,
    /// Connections that were closed because they held more.
    shed: Tally,
    /// The handles of parked connections, by place (from 1 on), for the Lua side.
    handles: Table,
}

impl Worker {
    /// The worker that a fork made. `handles` is filled with the handles of parked connections.
    pub fn new(birth: Birth, handles: Table) -> Result<Self, Errno> {
        let Birth { pool, cell, channel, input_limit, .. } = birth;
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        epoll.add(&channel, EpollEvent::new(EpollFlags::EPOLLIN, CONTROL))?;
        Ok(Worker {
            acceptor: Acceptor::new(pool.clone(), epoll.clone(), LISTENER),
            parking: ParkingLot::new(epoll.clone(), PARKED, pool.clone(), cell),
            outbox: Outbox::new(epoll.clone(), SENDING),
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
            refused: false,
            assignments: class::assignments(),
            input_limit,
            shed: Tally::default(),
            handles,
        })
    }

    /// `prepare` is done: connections are accepted from now on.
    pub fn ready(&mut self) -> Result<(), Errno> {
        self.channel.send_patiently(&Report::Ready, &[])?;
        // It counts as starting until it is idle: a moment of work would make the pool grow.
        self.take_orders();
        if self.phase == Phase::Serving {
            self.acceptor.watch(true)?;
        }
        if self.phase != Phase::Serving || !self.queue.is_empty() {
            self.cell().set(Activity::Busy);
        }
        Ok(())
    }

    /// Settles what the handler had and waits for what it is to be called for next: its argument,
    /// or nil when the worker ends. `keep` tells whether the worker may live on, `argument` is what
    /// the handler had.
    ///
    /// This is the complete step; [`Worker::advance`] does it for usual connections.
    pub fn next(&mut self, lua: &Lua, keep: bool, argument: &Value) -> mlua::Result<Value> {
        alarm::disarm();
        if let Some(task) = &mut self.task {
            task.learn_handle(argument);
            self.note_fields(lua);
            self.settle();
            self.settled(keep);
            self.publish()?;
        }
        loop {
            if let Some(task) = self.tasks.pop_front() {
                // One that came while nothing was to be done means nothing.
                sigterm::clear();
                return self.hand_out(lua, task);
            }
            if self.phase == Phase::Leaving {
                self.send_rest();
                self.cell().set(Activity::Finishing);
                return Ok(Value::Nil);
            }
            match self.queue.pop_front() {
                Some(source) => self.look_at(lua, source)?,
                None => self.wait(),
            }
        }
    }

    /// As [`Worker::next`], without Lua: from a connection that is parked as it was before, or closed,
    /// to the next parked one that has input, or to a new one. Gives nothing if the complete step has
    /// to go on.
    pub fn advance(&mut self, keep: bool) -> Option<Subject> {
        match &self.task {
            Some(task) if keep && self.is_simple(task) => {
                alarm::disarm();
                self.settle();
                self.settled(keep);
            }
            Some(_) => return None,
            None => {}
        }
        loop {
            if self.phase != Phase::Serving || !self.tasks.is_empty() {
                return None;
            }
            match self.queue.front() {
                None => self.wait(),
                Some(Source::Parked(ticket, wakeup)) => {
                    let (ticket, wakeup) = (*ticket, *wakeup);
                    self.queue.pop_front();
                    if wakeup == Wakeup::Input && self.waits_on(ticket) {
                        continue;
                    }
                    let Some((connection, deadline)) = self.parking.take(ticket) else { continue };
                    if self.skips(&connection, ticket, deadline, wakeup) {
                        continue;
                    }
                    self.hand_in();
                    {
                        let mut stream = connection.stream.borrow_mut();
                        stream.set_parked_until(deadline);
                        stream.set_wakeup(wakeup);
                    }
                    let (ticket, fate) = (Some(ticket), Fate::Close);
                    self.task = Some(Task::Connection { connection, ticket, wakeup, fate });
                    sigterm::clear();
                    return ticket.map(|ticket| Subject::Parked(ticket.index()));
                }
                Some(Source::Listener(index)) => {
                    let index = *index;
                    self.queue.pop_front();
                    let Some(stream) = self.accept(index) else { continue };
                    self.hand_in();
                    let connection = Connection::new(stream);
                    let (ticket, wakeup, fate) = (None, Wakeup::None, Fate::Close);
                    self.task = Some(Task::Connection { connection, ticket, wakeup, fate });
                    sigterm::clear();
                    return Some(Subject::New);
                }
                Some(_) => return None,
            }
        }
    }

    /// Whether the task can be settled without Lua.
    fn is_simple(&self, task: &Task) -> bool {
        match task {
            Task::Connection { ticket: Some(ticket), fate: Fate::Park { .. }, .. } => {
                class::assignments() == self.assignments && self.parking.is_published(*ticket)
            }
            Task::Connection { ticket: None, connection, .. } => {
                !connection.stream.borrow().is_open()
            }
            _ => false,
        }
    }

    /// The stream of a new connection that has no handle yet.
    pub fn new_stream(&self) -> Option<Rc<RefCell<Stream>>> {
        match &self.task {
            Some(Task::Connection { connection, .. }) if connection.handle.is_none() => {
                Some(connection.stream.clone())
            }
            _ => None,
        }
    }

    /// The handler's thing is settled: counts it, and ends the worker if that is due.
    fn settled(&mut self, keep: bool) {
        self.cell().add(Counter::Handled, 1);
        let mut told = sigterm::received();
        if told {
            // At a shutdown the signal comes with an order, which says what to do first.
            self.take_orders();
            told = self.phase == Phase::Serving;
        }
        if !keep || told {
            self.leave();
        }
    }

    /// Lets Lua find the handles of parked connections by their places.
    fn publish(&mut self) -> mlua::Result<()> {
        while let Some((place, handle)) = self.parking.unpublished() {
            self.handles.raw_set(i64::from(place) + 1, handle)?;
        }
        Ok(())
    }

    /// The worker ends after an error: its other connections go back to the supervisor. That of the
    /// handler is reset, unless the handler was done with it for good.
    pub fn abandon(&mut self) {
        self.cell().add(Counter::Errors, 1);
        match self.task.take() {
            Some(task @ Task::Connection { fate: Fate::Linger { .. }, .. }) => {
                self.task = Some(task);
                self.settle();
            }
            Some(Task::Connection { connection, ticket, .. }) => self.reset(&connection, ticket),
            Some(Task::Listener(_)) | None => {}
        }
        self.leave();
        self.send_rest();
    }

    /// The worker has come to its end: how the process ends is the orderly way.
    pub fn over(&self) {
        self.cell().set(Activity::Ended);
    }

    fn cell(&self) -> Cell<'_> {
        self.pool.scoreboard.cell(self.cell)
    }

    /// Gives the handler its argument.
    fn hand_out(&mut self, lua: &Lua, task: Task) -> mlua::Result<Value> {
        self.hand_in();
        let value = match &task {
            Task::Connection { connection, wakeup, .. } => {
                let mut stream = connection.stream.borrow_mut();
                stream.set_wakeup(*wakeup);
                stream.set_last(self.phase == Phase::Draining);
                connection.handle.clone().map_or(Value::Nil, Value::UserData)
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
                self.take_in(lua, *arrival)?;
                self.publish()?;
            }
            Source::Parked(ticket, wakeup) => {
                if wakeup == Wakeup::Input && self.waits_on(ticket) {
                    return Ok(());
                }
                if let Some((connection, deadline)) = self.parking.take(ticket)
                    && !self.skips(&connection, ticket, deadline, wakeup)
                {
                    connection.stream.borrow_mut().set_parked_until(deadline);
                    self.call_for(connection, Some(ticket), wakeup);
                }
            }
            Source::Sending(ticket) => {
                self.send_on(ticket);
                self.publish()?;
            }
            Source::Listener(index) => {
                if let Some(stream) = self.accept(index)
                    && let Some(connection) = Self::connection(lua, stream)?
                {
                    self.call_for(connection, None, Wakeup::None);
                }
            }
        }
        Ok(())
    }
}

/// Writes to standard error, which leads into the log.
fn complain(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}
