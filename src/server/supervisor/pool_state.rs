//! The supervisor's view of one pool.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::fullness::Fullness;
use super::guest::Guest;
use super::ports::Ports;
use super::sizing::{Advice, Census, Sizing};
use super::timers::Timer;
use super::worker_entry::{Life, WorkerEntry};
use crate::server::ipc::message::Order;
use crate::server::ipc::scoreboard::{Activity, Counter};
use crate::server::listen::listener::Listener;
use crate::server::listen::registry::{CELLS, Pool};

/// What all workers of a pool that have ended did together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Connections accepted.
    pub accepted: u64,
    /// Handler calls that returned.
    pub handled: u64,
    /// Handler calls that threw.
    pub errors: u64,
    /// Workers that ended.
    pub ended: u64,
    /// Workers forked in the place of ended ones.
    pub respawns: u64,
    /// Waiting connections that were closed for want of descriptors or memory.
    pub shed: u64,
    /// Parked connections taken from workers.
    pub reclaimed: u64,
    /// Connections that broke off without their handler's or client's doing.
    pub lost: u64,
}

/// One pool with what the supervisor remembers of it.
pub struct PoolState {
    /// The pool as it was registered.
    pub pool: Rc<Pool>,
    /// The policy of its size.
    pub sizing: Sizing,
    /// Its interval and main listeners.
    pub timers: Vec<Timer>,
    /// Counts of workers that are gone.
    pub totals: Totals,
    /// Connections that have input, or whose time is up, and that wait for a worker.
    pub callers: VecDeque<Guest>,
    /// When all workers may have each of them.
    reserved_until: Option<Instant>,
    /// Workers, and ended ones, when the log told of them last.
    pub logged: (u64, u64),
    /// A connection waited at a port while a worker was idle, at the last look.
    pub neglected: bool,
    /// Connections on lease for each worker, on average.
    fair_share: usize,
    /// Its ports, until they are closed.
    pub ports: Ports,
    /// Whether it has been full for a while.
    pub fullness: Fullness,
    cells: Vec<bool>,
}

impl PoolState {
    /// A pool without workers yet.
    pub fn new(pool: Rc<Pool>, now: Instant) -> Self {
        let mut timers = Vec::new();
        for (index, listener) in pool.listeners.iter().enumerate() {
            let index = index as u32;
            match listener {
                Listener::Interval { delay, strict, .. } => {
                    timers.push(Timer::interval(index, *delay, *strict, now));
                }
                Listener::Main { .. } => timers.push(Timer::main(index, now)),
                _ => {}
            }
        }
        PoolState {
            sizing: Sizing::default(),
            timers,
            totals: Totals::default(),
            callers: VecDeque::new(),
            reserved_until: None,
            logged: (0, 0),
            neglected: false,
            fair_share: 0,
            ports: Ports::new(pool.clone()),
            fullness: Fullness::new(now),
            cells: vec![false; CELLS * pool.config.max_fork],
            pool,
        }
    }

    /// A cell of the scoreboard for a new worker, which has it from now on.
    pub fn take_cell(&mut self) -> Option<usize> {
        let free = self.cells.iter().position(|taken| !taken)?;
        self.cells[free] = true;
        self.pool.scoreboard.cell(free).reset();
        self.pool.scoreboard.note(free).write(&[]);
        Some(free)
    }

    /// A worker was forked.
    pub fn forked(&mut self, now: Instant) {
        if self.totals.respawns < self.totals.ended {
            self.totals.respawns += 1;
        }
        self.sizing.forked(now);
    }

    /// Gives back the cell of a worker that could not be forked.
    pub fn free_cell(&mut self, index: usize) {
        self.cells[index] = false;
    }

    /// Whether the worker with that cell has said that it has come to its end.
    pub fn is_over(&self, cell: usize) -> bool {
        self.pool.scoreboard.cell(cell).activity() == Activity::Ended
    }

    /// Gives back the cell of a worker that is gone, and adds up what it counted.
    pub fn give_back_cell(&mut self, index: usize) {
        let cell = self.pool.scoreboard.cell(index);
        // A worker may have scribbled over its cell: never overflow.
        let totals = &mut self.totals;
        totals.accepted = totals.accepted.wrapping_add(cell.get(Counter::Accepted));
        totals.handled = totals.handled.wrapping_add(cell.get(Counter::Handled));
        totals.errors = totals.errors.wrapping_add(cell.get(Counter::Errors));
        totals.ended += 1;
        cell.reset();
        self.cells[index] = false;
    }

    /// What the policy says now. Where it says to wait for better times, reports of scarcity are
    /// asked for only if they could change anything.
    pub fn advise(&mut self, workers: &HashMap<i32, WorkerEntry>, now: Instant) -> Advice {
        let advice = self.sizing.advise(&self.pool.config, self.census(workers), now);
        let board = &self.pool.scoreboard;
        let census = self.census(workers);
        let can_grow = census.total < self.pool.config.max_fork;
        let enough = census.spare >= self.pool.config.pre_fork;
        board.watch_scarcity(can_grow && enough);
        if can_grow && enough && self.census(workers).spare < self.pool.config.pre_fork {
            // A worker became busy while the flag was still down.
            return self.sizing.advise(&self.pool.config, self.census(workers), now);
        }
        advice
    }

    /// What the policy says at a shutdown, when workers are forked only for connections that wait.
    pub fn advise_shutdown(&self, workers: &HashMap<i32, WorkerEntry>, now: Instant) -> Advice {
        let (mut total, mut busy) = (0, 0);
        for worker in workers.values().filter(|worker| worker.pool_number == self.pool.number) {
            let activity = self.pool.scoreboard.cell(worker.cell).activity();
            total += 1;
            busy += usize::from(matches!(
                activity,
                Activity::Busy | Activity::Finishing | Activity::Ended
            ));
        }
        // The others are about to ask for what waits.
        if self.callers.is_empty() || busy < total {
            return Advice::Rest;
        }
        self.sizing.advise_shutdown(&self.pool.config, total, now)
    }

    /// A connection waits for a worker from now on.
    pub fn call(&mut self, guest: Guest) {
        if let Some(guest) = self.prepare_call(guest) {
            self.callers.push_back(guest);
        }
    }

    /// The same for one whose turn it was before.
    pub fn call_first(&mut self, guest: Guest) {
        if let Some(guest) = self.prepare_call(guest) {
            self.callers.push_front(guest);
        }
    }

    /// Makes room for a connection. Where there is none it is closed: as many come as clients like.
    fn prepare_call(&mut self, guest: Guest) -> Option<Guest> {
        self.reserved_until = self.reserved_until.max(guest.reserved.until());
        if self.callers.try_reserve(1).is_ok() {
            return Some(guest);
        }
        self.totals.shed += 1;
        guest.close();
        None
    }

    /// When all workers may have a connection that waits, and that is reserved for some now.
    pub fn released(&self, now: Instant) -> Option<Instant> {
        self.reserved_until.filter(|until| *until > now)?;
        self.callers.iter().filter_map(|guest| guest.released(now)).min()
    }

    /// Of the connections that wait for a worker and hold input, the one that came last.
    pub fn last_holder(&mut self) -> Option<Guest> {
        let place = self.callers.iter().rposition(|guest| !guest.input.is_empty())?;
        self.callers.remove(place)
    }

    /// Whether something waits for a worker.
    pub fn has_work(&self) -> bool {
        !self.callers.is_empty() || self.timers.iter().any(Timer::is_due)
    }

    /// Whether something waits for a worker, also at the ports.
    pub fn is_waited_for(&self) -> bool {
        self.has_work()
            || self.pool.listeners.iter().filter_map(Listener::socket).any(|socket| {
                let mut waited = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                poll(&mut waited, PollTimeout::ZERO) == Ok(1)
            })
    }

    /// Whether something waits that this worker may have.
    pub fn has_work_for(&self, pid: i32, now: Instant) -> bool {
        self.timers.iter().any(Timer::is_due)
            || self.callers.iter().any(|guest| guest.is_for(pid, now))
    }

    /// Gives a worker that has time what waits for one: a tick, or else a connection. If nothing
    /// waits that it may have, it gets leave to go on.
    /// False if that could not be sent; it goes on waiting then.
    pub fn give_work(&mut self, worker: &mut WorkerEntry, now: Instant) -> bool {
        if let Some(timer) = self.timers.iter_mut().find(|timer| timer.is_due()) {
            let sent = worker.run(timer.listener);
            if sent {
                timer.started();
            }
            return sent;
        }
        let pid = worker.pid.as_raw();
        let place = self.callers.iter().position(|guest| guest.is_for(pid, now));
        match place.and_then(|place| self.callers.remove(place)) {
            Some(guest) => {
                if let Some(guest) = worker.resume(guest) {
                    self.call_first(guest);
                    return false;
                }
            }
            None => worker.order(&Order::Nothing),
        }
        true
    }

    /// Notes how many connections the pool's workers have on lease together.
    pub fn note_leases(&mut self, workers: usize, leases: usize) {
        self.fair_share = leases.div_ceil(workers.max(1));
    }

    /// How many connections a worker may have before it has more than its share.
    pub fn fair_share(&self) -> usize {
        self.fair_share.max(1)
    }

    fn census(&self, workers: &HashMap<i32, WorkerEntry>) -> Census {
        let mut census = Census::default();
        for worker in workers.values().filter(|worker| worker.pool_number == self.pool.number) {
            if worker.life == Life::Lost {
                continue;
            }
            census.total += 1;
            let activity = self.pool.scoreboard.cell(worker.cell).activity();
            if worker.will_serve() && matches!(activity, Activity::Idle | Activity::Starting) {
                census.spare += 1;
            }
        }
        census
    }
}
