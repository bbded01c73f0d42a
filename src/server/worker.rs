//! A worker: a small event loop around the Lua handler.
//!
//! [`Worker::next`] is called between two runs of the handler. It settles the connection that the
//! handler had, and waits for the next thing to do: a new connection, input on one that was parked,
//! an interval, an order of the supervisor.
//!
//! | module | what it is |
//! |---|---|
//! | [`event_loop`] | the loop: orders of the supervisor, and what the handler is called for |
//! | [`sources`], [`events`] | what is to be attended to; the epoll set |
//! | [`control`] | the control channel and the scoreboard |
//! | [`accept`] | listeners |
//! | [`connections`] | connections between two runs of the handler |
//! | [`connection`] | one of them, and the states it can be in |
//! | [`places`], [`ownership`], [`parking`], [`parking_terms`], [`quiet_time`], [`outbox`], [`input_limit`] | parts of `connections` |
//! | [`prologue`] | the beginning of connections: [`proxy_header`], [`handshake`] |
//! | [`holding`] | the way to the push process |
//! | [`disposition`], [`handover`] | what a handler decides; connections as values |
//! | [`stopwatch`] | how long handlers run, and how much they send |
//! | [`tidying`] | what is done in Lua when a crowd of connections has left |
//! | [`recycling`] | when a worker is replaced though its handler goes on |
//! | [`lua_side`], [`handle_methods`] | what Lua sees |
//! | [`reload`] | a worker asks for a new generation |
//! | [`request_log`] | what this worker says of its requests |
//! | [`context`], [`timeout`] | what the handler is doing, and for how long it may |

mod accept;
pub(super) mod connection;
mod connections;
pub mod context;
pub(super) mod control;
pub(super) mod disposition;
pub(super) mod event_loop;
mod events;
pub mod handle_methods;
mod handover;
mod handshake;
mod holding;
mod input_limit;
mod lua_side;
mod outbox;
mod ownership;
mod parking;
mod parking_terms;
mod places;
mod prologue;
mod proxy_header;
mod quiet_time;
mod recycling;
mod relayed_socket;
mod relays;
pub mod reload;
pub mod request_log;
mod sources;
mod stopwatch;
mod tidying;
pub mod timeout;

#[cfg(test)]
pub(super) mod testing;

use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use mlua::{IntoLua, Lua, Table, Value};
use nix::errno::Errno;

use super::ipc::message::Report;
use super::ipc::ticket::Ticket;
use super::listen::spec::ListenerSpec;
use super::worker_start::WorkerStart;
use crate::io::{Stream, handle};
use crate::sys::os::alarm;
use crate::sys::os::monotonic::MonotonicTime;
use connection::Running;
use control::{Control, ORDER_WITHIN, complain};
use disposition::Disposition;
use event_loop::{EventLoop, Task};
use holding::Holding;
use lua_side::LuaSide;
use recycling::Recycling;

/// What the handler is called for, as Lua is told it by [`Worker::advance`].
pub enum Subject {
    /// A connection that was parked, by the place of its handle.
    Parked(u32),
    /// A connection that needs a handle.
    New,
}

/// A worker, as its Lua code sees it.
pub struct Worker {
    event_loop: EventLoop,
    lua_side: LuaSide,
    /// What the handler is called for now.
    task: Option<Task>,
    /// The interval or main listener it is called for next, which takes a complete step.
    job: Option<u32>,
    /// There is an access log, and the handler is one that HTTP has made: it returns as soon as its response is over.
    is_logged: bool,
}

impl Worker {
    /// The worker that a fork made. `handles` is filled with the handles of parked connections.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn new(start: WorkerStart, handles: Table, is_http: bool) -> Result<Self, Errno> {
        let WorkerStart {
            pool, cell, channel, access_queue, input_limit, held, supervisor, ..
        } = start;
        let board = pool.scoreboard.clone();
        let control = Control::new(channel, board, cell, ORDER_WITHIN);
        control.hold(held);
        let listeners = (pool.listeners.clone(), pool.config.pre_fork);
        let leases = (pool.leases.clone(), cell);
        let is_logged = is_http && access_queue.is_some();
        Ok(Worker {
            event_loop: EventLoop::new(control, listeners, leases, input_limit)?
                .recycled(Recycling::new(&pool.config))
                .counted(pool.counters.meter(cell))
                .holding(Holding::new(supervisor.as_raw(), pool.number)),
            lua_side: LuaSide::new(handles),
            task: None,
            job: None,
            is_logged,
        })
    }

    /// `prepare` is done: connections are accepted from now on.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn ready(&mut self) -> Result<(), Errno> {
        self.event_loop.ready()
    }

    /// Settles what the handler had and waits for what it is to be called for next: its argument,
    /// or nil when the worker ends. `keep` tells whether the worker may live on, `argument` is what
    /// the handler had.
    ///
    /// This is the complete step; [`Worker::advance`] does it for most connections.
    pub fn next(&mut self, lua: &Lua, keep: bool, argument: &Value) -> mlua::Result<Value> {
        self.lua_side.note_fields(lua, argument);
        self.end_logged_run();
        let ticket = self.settle(keep, MonotonicTime::now());
        self.lua_side.publish(self.event_loop.connections().places_mut(), ticket, argument)?;
        let job = self.job.take().map(Task::Job);
        let task = job.or_else(|| self.next_task(lua));
        let value = match &task {
            Some(Task::Connection(running)) => match self.published(running) {
                Some(ticket) => self.lua_side.handle(ticket)?,
                None => handle::of_stream(lua, running.connection.stream.clone())?.into_lua(lua)?,
            },
            Some(Task::Job(index)) => {
                lua_side::job(lua, self.event_loop.listeners().get(*index as usize))?
            }
            None => {
                self.event_loop.finish();
                Value::Nil
            }
        };
        if let Some(task) = &task {
            self.event_loop.begin(task);
        }
        self.task = task;
        Ok(value)
    }

    /// What the handler is called for next; nothing when the worker ends.
    fn next_task(&mut self, lua: &Lua) -> Option<Task> {
        loop {
            let task = self.event_loop.next_task();
            let lua_side = &mut self.lua_side;
            if task.is_some() || !self.event_loop.tidy(|places| lua_side.tidy(lua, places)) {
                return task;
            }
        }
    }

    /// The place of a connection whose handle Lua knows.
    fn published(&self, running: &Running) -> Option<Ticket> {
        running.ticket.filter(|ticket| self.event_loop.places().is_published(*ticket))
    }

    /// As [`Worker::next`], without Lua: from a connection that is parked as it was before, or closed,
    /// to the next parked one, or to a new one. Returns nothing if the complete step has to go on.
    pub fn advance(&mut self, keep: bool) -> Option<Subject> {
        if self.task.is_some() && !(keep && self.is_simple()) {
            return None;
        }
        // The log has just looked at the clock.
        let ended = self.end_logged_run();
        self.settle(keep, ended.unwrap_or_else(MonotonicTime::now));
        let task = self.event_loop.next_task()?;
        let subject = match &task {
            Task::Job(index) => {
                self.job = Some(*index);
                return None;
            }
            Task::Connection(running) => match self.published(running) {
                Some(ticket) => Subject::Parked(ticket.index()),
                None => Subject::New,
            },
        };
        self.event_loop.begin(&task);
        self.task = Some(task);
        Some(subject)
    }

    /// The handler has returned. Returns the place of its connection if the worker keeps that.
    fn settle(&mut self, keep: bool, now: MonotonicTime) -> Option<Ticket> {
        alarm::disarm();
        let task = self.task.take()?;
        self.event_loop.settle(task, keep, now)
    }

    #[inline(always)]
    fn end_logged_run(&self) -> Option<MonotonicTime> {
        if self.is_logged { request_log::end_run() } else { None }
    }

    /// The handler has returned nothing: tells once in each pool what that means.
    pub fn note_no_result(&self) {
        let ends_server = match &self.task {
            None => return,
            // The end of a main listener's handler ends the server.
            Some(Task::Job(index)) => {
                let listener = self.event_loop.listeners().get(*index as usize);
                listener.is_some_and(|listener| matches!(listener.spec, ListenerSpec::Main { .. }))
            }
            Some(Task::Connection(_)) => false,
        };
        if !ends_server && self.event_loop.control().board().tell_no_result() {
            complain(
                "\"connect\" has returned nothing, so this worker ends and another one is forked: that costs far \
                 more than a request. Return true to keep workers. This is told once",
            );
        }
    }

    /// Whether the task can be settled without Lua.
    fn is_simple(&self) -> bool {
        let Some(Task::Connection(running)) = &self.task else { return false };
        match (running.ticket, running.disposition) {
            (Some(_), Disposition::Park { .. }) => {
                self.lua_side.is_current() && self.published(running).is_some()
            }
            (Some(_), _) => false,
            (None, _) => !running.connection.stream.borrow().is_open(),
        }
    }

    /// The stream of the connection that the handler is called for.
    pub fn new_stream(&self) -> Option<Rc<RefCell<Stream>>> {
        match &self.task {
            Some(Task::Connection(running)) => Some(running.connection.stream.clone()),
            _ => None,
        }
    }

    /// The handler decides about its connection. False if the stream is another one, or closed.
    pub fn decide(&mut self, stream: &Rc<RefCell<Stream>>, decision: Disposition) -> bool {
        match &mut self.task {
            Some(Task::Connection(running))
                if Rc::ptr_eq(&running.connection.stream, stream) && stream.borrow().is_open() =>
            {
                running.disposition = decision;
                true
            }
            _ => false,
        }
    }

    /// Before a handler forks: see [`Connections::insure`].
    pub fn insure(&mut self) {
        if let Some(Task::Connection(running)) = &mut self.task {
            self.event_loop.connections().owned.insure(running);
        }
    }

    /// Asks the supervisor for a reload. It answers on the given socket.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn ask_for_reload(&self, answer: BorrowedFd<'_>) -> Result<(), Errno> {
        self.event_loop.control().try_send(&Report::Reload, &[answer])
    }

    /// In development: tells the supervisor that the application has loaded this file.
    pub fn report_loaded(&self, path: Vec<u8>) {
        self.event_loop.control().report(&Report::Loaded(path));
    }

    /// The worker ends after an error of the handler.
    pub fn abandon(&mut self) {
        let task = self.task.take();
        self.event_loop.abandon(task);
    }

    /// The worker has come to its end: how the process ends is the orderly way.
    pub fn over(&self) {
        self.event_loop.over();
    }

    /// In a new child of the worker: gives up all descriptors of the worker's but that of the connection
    /// which the handler has. What the handler does there by itself is its own affair.
    pub fn disown(&mut self) {
        if let Some(Task::Connection(Running { connection, .. })) = &self.task
            && let Ok(mut stream) = connection.stream.try_borrow_mut()
        {
            stream.disown();
        }
        self.event_loop.disown();
    }
}
