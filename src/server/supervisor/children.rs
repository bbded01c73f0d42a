//! The workers: forking them, hearing from them, and what they do together.

use std::collections::HashMap;
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;

use super::child::Child;
use super::handover::WorkerId;
use super::progress::Times;
use super::source::EventSource;
use crate::server::ipc::channel::{Channel, Inbox, Parcel, Received};
use crate::server::ipc::message::{Order, Report};
use crate::server::listen::pool::Pool;
use crate::server::operator::log::{Level, Log};
use crate::server::operator::stderr_lines::StderrLines;
use crate::sys::os::process::{Fork, fork};

/// What a fork gave.
pub enum Forked {
    /// In the supervisor: the new worker.
    Parent(WorkerId),
    /// In the new worker: its end of the control channel.
    Child(Channel),
}

/// All workers, by process id.
pub struct Children {
    by_pid: HashMap<i32, Child>,
    epoll: Rc<Epoll>,
    inbox: Inbox,
    /// New workers do not serve before they are told to.
    pub held: bool,
}

impl Children {
    /// No workers yet.
    pub fn new(epoll: Rc<Epoll>) -> Self {
        Children { by_pid: HashMap::new(), epoll, inbox: Inbox::default(), held: false }
    }

    /// Forks a worker for the pool at a position, with a cell of its own.
    ///
    /// # Errors
    /// What the kernel reports for lack of processes, memory or descriptors.
    pub fn fork(&mut self, pool: &Pool, index: usize, cell: usize) -> Result<Forked, Errno> {
        let (ours, theirs) = Channel::pair()?;
        let lines = StderrLines::new()?;
        let Fork::Parent(pid) = fork()? else {
            lines.become_stderr();
            return Ok(Forked::Child(theirs));
        };
        let pid = pid.as_raw();
        let worker = WorkerId { pid, pool: index, cell };
        let mut child =
            Child::new(worker, pool.number, pool.scoreboard.clone(), (ours, theirs), lines);
        child.held = self.held;
        let event = |source: EventSource| EpollEvent::new(EpollFlags::EPOLLIN, source.token());
        let watched = self
            .epoll
            .add(&child.channel, event(EventSource::Control(pid)))
            .and_then(|()| self.epoll.add(child.stderr.reader(), event(EventSource::Stderr(pid))));
        if watched.is_err() {
            // Out of kernel memory: a worker that cannot report is useless.
            child.kill(Signal::SIGKILL);
        }
        self.by_pid.insert(pid, child);
        Ok(Forked::Parent(worker))
    }

    /// A worker has ended.
    pub fn remove(&mut self, pid: i32) -> Option<Child> {
        let child = self.by_pid.remove(&pid)?;
        let _ = self.epoll.delete(&child.channel);
        let _ = self.epoll.delete(child.stderr.reader());
        Some(child)
    }

    /// A signal has stopped a worker: an order shows whether it goes on in time.
    pub fn stopped(&mut self, pid: i32) {
        if let Some(child) = self.by_pid.get_mut(&pid).filter(|child| child.is_serving())
            && !child.prompt()
        {
            child.order(&Order::CheckPorts);
        }
    }

    /// What is left is given up: it cannot even be killed.
    pub fn clear(&mut self) {
        self.by_pid.clear();
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_pid.is_empty()
    }

    /// That worker.
    pub fn get(&self, pid: i32) -> Option<&Child> {
        self.by_pid.get(&pid)
    }

    /// That worker.
    pub fn get_mut(&mut self, pid: i32) -> Option<&mut Child> {
        self.by_pid.get_mut(&pid)
    }

    /// All workers.
    pub fn iter(&self) -> impl Iterator<Item = &Child> {
        self.by_pid.values()
    }

    /// All workers.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Child> {
        self.by_pid.values_mut()
    }

    /// The workers of the pool at that position.
    pub fn of_pool(&self, pool: usize) -> impl Iterator<Item = &Child> {
        self.by_pid.values().filter(move |child| child.worker.pool == pool)
    }

    /// The workers of the pool at that position.
    pub fn of_pool_mut(&mut self, pool: usize) -> impl Iterator<Item = &mut Child> {
        self.by_pid.values_mut().filter(move |child| child.worker.pool == pool)
    }

    /// What all have had of the processors.
    pub fn times(&mut self) -> Times {
        let mut sum = Times::default();
        for times in self.by_pid.values_mut().filter_map(|child| child.clock.read()) {
            sum.ran += times.ran;
            sum.waited += times.waited;
        }
        sum
    }

    /// The next report of a worker. One that sends something else is killed. If its end of the channel is
    /// closed, the signal of its end decides.
    pub fn receive(
        &mut self,
        pid: i32,
        log: &mut Log,
    ) -> Option<(WorkerId, Report, Option<Parcel>)> {
        let child = self.by_pid.get(&pid)?;
        match child.channel.receive(&mut self.inbox) {
            Ok(Received::Message(report, descriptors)) => {
                if log.logs(Level::Debug) {
                    log.line(Level::Debug, &child.prefix(), &format!("reported: {report:?}"));
                }
                return Some((child.worker, report, descriptors.into_parcel()));
            }
            Ok(Received::Empty) => return None,
            Ok(Received::Closed) => {}
            Ok(Received::Garbage) | Err(_) => {
                let text = "Invalid message on the control channel; the worker is killed";
                log.line(Level::Notice, &child.prefix(), text);
                child.kill(Signal::SIGKILL);
            }
        }
        let _ = self.epoll.delete(&child.channel);
        None
    }

    /// The next report that an ended worker has left.
    pub fn receive_rest(&mut self, pid: i32) -> Option<(WorkerId, Report, Option<Parcel>)> {
        let child = self.by_pid.get(&pid)?;
        match child.channel.receive(&mut self.inbox) {
            Ok(Received::Message(report, descriptors)) => {
                Some((child.worker, report, descriptors.into_parcel()))
            }
            _ => None,
        }
    }

    /// Takes back the orders that a worker has not read.
    pub fn take_back(&mut self, pid: i32) -> Vec<Order> {
        let Some(child) = self.by_pid.get(&pid) else { return Vec::new() };
        let next = || match child.their_end.receive(&mut self.inbox) {
            Ok(Received::Message(order, _)) => Some(order),
            _ => None,
        };
        std::iter::from_fn(next).collect()
    }

    /// Copies what a worker has written to its standard error into the log.
    pub fn copy_stderr(&mut self, pid: i32, log: &mut Log) {
        if let Some(child) = self.by_pid.get_mut(&pid)
            && child.copy_stderr(log)
        {
            let _ = self.epoll.delete(child.stderr.reader());
        }
    }

    /// Tells the log which orders were given, if it is to show them.
    pub fn log_orders(&mut self, log: &mut Log) {
        self.by_pid.values_mut().for_each(|child| child.log_orders(log));
    }
}
