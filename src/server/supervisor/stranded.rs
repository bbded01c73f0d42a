//! Workers that do not get on: the kernel holds or has frozen them while they have nothing to do, or a
//! signal has stopped them. What they were given goes to others; if that lasts, they are replaced.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};

use super::attention::Advice;
use super::guest::Guest;
use super::held_input::InputBudget;
use super::pool_state::PoolState;
use super::stretch::{is_runnable, is_stopped};
use super::worker_entry::{Life, WorkerEntry};
use super::{Phase, Supervisor};
use crate::server::ipc::channel::{Inbox, Received};
use crate::server::ipc::clock;
use crate::server::ipc::message::Order;
use crate::server::ipc::scoreboard::{Activity, Cell, Counter};
use crate::server::ipc::ticket::Ticket;
use crate::server::listen::listener::Listener;
use crate::server::operator::log::Level;

/// How often it is looked at whether idle workers leave input of their connections alone.
const INTERVAL: Duration = Duration::from_millis(100);

/// How often it is looked at whether a connection waits at a port though workers are idle (the kernel
/// may have told one alone that does not get on), and whether workers that nothing else would tell of
/// are there.
const PORTS: Duration = Duration::from_secs(1);

/// When to look for workers that do not get on.
pub struct Checks {
    leases: Instant,
    ports: Instant,
}

impl Checks {
    /// The first looks are soon.
    pub fn new(now: Instant) -> Self {
        Checks { leases: now, ports: now }
    }
}

impl Supervisor {
    /// When to look again.
    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        let orders = self.workers.values().filter_map(|worker| worker.attention.next()).min();
        let ports = (self.phase == Phase::Serving).then_some(self.checks.ports.max(now));
        orders.into_iter().chain(ports).min()
    }

    /// Looks after the orders that workers were given.
    pub(super) fn look_after_orders(&mut self, now: Instant) {
        for worker in self.workers.values_mut() {
            if let Some(order) = worker.attention.owed(now) {
                worker.order(&order);
            }
        }
        let due = self.workers.values().filter(|worker| worker.attention.is_due(now));
        for pid in due.map(|worker| worker.pid.as_raw()).collect::<Vec<_>>() {
            self.look_after(pid, now);
        }
    }

    fn look_after(&mut self, pid: i32, now: Instant) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        let state = &mut self.pools[worker.pool];
        if !worker.has_unread_orders() {
            return worker.attention.taken();
        }
        // A handler that was stopped by a signal does not return either.
        let is_free =
            waits_for_work(state.pool.scoreboard.cell(worker.cell)) || is_stopped(worker.pid);
        match worker.attention.unread(worker.pid, is_free, now) {
            Advice::GiveUp => self.give_up_worker(pid),
            Advice::Wait => {}
            Advice::TakeBack => {
                let rest = take_back_orders(worker, state, &mut self.inbox, &self.memory.budget);
                let told = !rest.is_empty();
                rest.iter().for_each(|order| worker.order(order));
                if is_free {
                    if !told {
                        // When this is taken, the worker gets on.
                        worker.order(&Order::Look);
                    }
                    self.revoke_leases(pid, usize::MAX);
                } else if !told {
                    worker.attention.taken();
                }
            }
        }
    }

    /// A worker that does not answer is killed. Should that have no effect, as the kernel holds the
    /// process, it does not count any more.
    fn give_up_worker(&mut self, pid: i32) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        let _ = kill(worker.pid, Signal::SIGKILL);
        if std::mem::replace(&mut worker.life, Life::Lost) != Life::Lost {
            self.pools[worker.pool].sizing.ended();
            let text = "The worker does not react; it is killed";
            self.log.line(Level::Notice, &worker.prefix(), text);
        }
        self.revoke_leases(pid, usize::MAX);
    }

    /// Takes connections from workers that are idle and leave their input alone.
    pub(super) fn relieve_frozen(&mut self, now: Instant) {
        if self.checks.leases > now {
            return;
        }
        self.checks.leases = now + INTERVAL;
        let mut frozen = Vec::new();
        for worker in self.workers.values_mut() {
            let pool = &self.pools[worker.pool].pool;
            let cell = pool.scoreboard.cell(worker.cell);
            let is_quiet = cell.activity() == Activity::Idle
                && clock::instant(cell.idle_since()) + INTERVAL <= now;
            let before = worker.ignored.take();
            if worker.leases.is_empty() || !is_quiet {
                continue;
            }
            let number = worker.cell;
            let turns = |ticket: Ticket| {
                let lease = pool.leases.lease(number, ticket.index())?;
                lease.is_parked(ticket.generation()).then(|| lease.turns())
            };
            if let Some((ticket, turn)) = before
                && turns(ticket) == Some(turn)
                && !is_runnable(worker.pid)
                && worker.prompt(cell)
            {
                frozen.push(worker.pid.as_raw());
                continue;
            }
            let readable = worker.readable_leases();
            worker.ignored = readable.into_iter().find_map(|t| Some((t, turns(t)?)));
        }
        for pid in frozen {
            self.revoke_leases(pid, usize::MAX);
        }
    }

    /// Sends idle workers to the ports where connections wait all the same.
    pub(super) fn look_at_ports(&mut self, now: Instant) {
        if self.checks.ports > now || self.phase != Phase::Serving {
            return;
        }
        self.checks.ports = now + PORTS;
        self.ask_after_workers(now);
        for (index, state) in self.pools.iter_mut().enumerate() {
            let board = &state.pool.scoreboard;
            let sockets = || state.pool.listeners.iter().filter_map(Listener::socket);
            let idle = |worker: &&mut WorkerEntry| {
                let cell = board.cell(worker.cell);
                worker.pool == index && worker.is_serving() && cell.activity() == Activity::Idle
            };
            let neglected = self.workers.values_mut().any(|worker| idle(&&mut *worker))
                && sockets().any(is_readable);
            if std::mem::replace(&mut state.neglected, neglected) && neglected {
                for worker in self.workers.values_mut().filter(idle) {
                    worker.prompt(board.cell(worker.cell));
                }
            } else if neglected {
                self.checks.ports = now + INTERVAL;
            }
        }
    }
}

impl Supervisor {
    /// Gives an order, by which it is seen whether they get on, to workers that a signal has stopped in
    /// a handler, and to those that have long been idle though they have connections.
    fn ask_after_workers(&mut self, now: Instant) {
        for worker in self.workers.values_mut().filter(|worker| worker.is_serving()) {
            let cell = self.pools[worker.pool].pool.scoreboard.cell(worker.cell);
            let unknown = cell.get(Counter::Parked) + cell.get(Counter::Sending);
            let has_connections = unknown > 0 || !worker.leases.is_empty();
            match cell.activity() {
                Activity::Busy if is_stopped(worker.pid) => worker.order(&Order::Look),
                Activity::Idle
                    if has_connections && clock::instant(cell.idle_since()) + PORTS <= now =>
                {
                    worker.prompt(cell);
                }
                _ => {}
            }
        }
    }
}

/// Whether the worker runs no handler, and would take an order at once.
fn waits_for_work(cell: Cell<'_>) -> bool {
    matches!(cell.activity(), Activity::Idle | Activity::Claimed | Activity::Offering)
}

/// Takes back the connections and ticks that were given to a worker and that it has not taken. Gives
/// its other orders, which it has not taken either.
pub(super) fn take_back_orders(
    worker: &mut WorkerEntry,
    state: &mut PoolState,
    inbox: &mut Inbox,
    budget: &Rc<InputBudget>,
) -> Vec<Order> {
    let mut rest = Vec::new();
    let Some(far_end) = worker.far_end.take() else { return rest };
    while let Ok(Received::Message(order, _)) = far_end.receive::<Order>(inbox) {
        match order {
            Order::Run(_) => worker.never_ran(&mut state.timers),
            Order::Resume(number, wakeup, waiting) => {
                if let Some(parcel) = worker.in_flight.settle(number) {
                    state.totals.reclaimed += 1;
                    let guest = Guest::waiting(worker.pool, parcel, waiting, budget);
                    state.call_first(Guest { wakeup, ..guest });
                }
            }
            Order::Terminate | Order::Drain => rest.push(order),
            Order::Nothing | Order::Look => {}
        }
    }
    worker.far_end = Some(far_end);
    rest
}

impl WorkerEntry {
    fn has_unread_orders(&self) -> bool {
        self.far_end.as_ref().is_some_and(is_readable)
    }

    /// Leased connections with input that nobody has received.
    fn readable_leases(&self) -> Vec<Ticket> {
        let descriptors = self.leases.values().map(|lent| lent.descriptor.as_fd());
        let mut polled: Vec<PollFd<'_>> =
            descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let _ = poll(&mut polled, PollTimeout::ZERO);
        let found = self.leases.keys().zip(&polled).filter(|(_, fd)| fd.any() == Some(true));
        found.map(|(ticket, _)| *ticket).collect()
    }
}

fn is_readable(descriptor: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO) == Ok(1)
}
