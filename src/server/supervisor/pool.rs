//! One pool: its size, its timers, its ports, and what its workers did.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::activity;
use super::child::{Child, Life};
use super::children::{Children, Forked};
use super::handover::{Counts, Handover, Shared};
use super::ports::Ports;
use super::readiness::is_readable;
use super::saturation::Saturation;
use super::sizing::{Advice, Census, Sizing};
use super::timers::Timers;
use crate::server::ipc::channel::Channel;
use crate::server::ipc::clock;
use crate::server::ipc::pool_losses::PoolLoss;
use crate::server::ipc::scoreboard::{Activity, Counter, Total};
use crate::server::listen::listener::Listener;
use crate::server::listen::pool::{CELLS, Pool};
use crate::server::metrics::pool::{Reason, Supervised};
use crate::server::operator::log::{Level, Log};
use crate::server::operator::status::PoolStatus;
use crate::sys::os::error_text;
use crate::sys::os::usage::{self, LiveUsage, ProcessEnd, Usage};

/// How many workers of a full pool the log names at most.
const NAMED: usize = 20;

/// What all workers of a pool that have ended did together.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    accepted: u64,
    handled: u64,
    errors: u64,
    ended: u64,
    /// Workers forked in the place of ended ones.
    respawns: u64,
}

/// One pool with what the supervisor remembers of it.
pub struct PoolState {
    /// Its position in the supervisor.
    pub index: usize,
    /// The pool as it was registered.
    pub pool: Rc<Pool>,
    /// The policy of its size.
    pub sizing: Sizing,
    /// Its interval and main listeners.
    pub timers: Timers,
    /// Its ports, until they are closed.
    pub ports: Ports,
    /// A connection waited at a port while a worker was idle, at the last check.
    pub neglected: bool,
    totals: Totals,
    /// Workers, and ended ones, when the log last told of them.
    logged: (usize, u64),
    saturation: Saturation,
    /// Why workers have ended in whose place none was forked yet.
    vacancies: VecDeque<Reason>,
    /// Workers that were forked in the place of some that have not ended yet.
    anticipated: usize,
    /// What became of connections, as far as metrics know it.
    counted: Counts,
    /// The same for connections without a valid PROXY header.
    proxy_errors: u64,
    /// Which cells of the scoreboard are taken.
    cells: Vec<bool>,
}

impl PoolState {
    /// A pool without workers yet.
    pub fn new(index: usize, pool: Rc<Pool>, now: Instant) -> Self {
        let mut sizing = Sizing::default();
        let workers = pool.claimed.iter().map(|(_, workers)| *workers).max().unwrap_or(0);
        sizing.begin_with(usize::try_from(workers).unwrap_or(usize::MAX));
        PoolState {
            index,
            sizing,
            timers: Timers::new(&pool.listeners, now),
            ports: Ports::new(pool.clone()),
            neglected: false,
            totals: Totals::default(),
            logged: (0, 0),
            saturation: Saturation::new(now),
            vacancies: VecDeque::new(),
            anticipated: 0,
            counted: Counts::default(),
            proxy_errors: 0,
            cells: vec![false; CELLS * pool.config.max_fork],
            pool,
        }
    }

    /// The memory that it shares with its workers.
    pub fn shared(&self) -> Shared {
        Shared { scoreboard: self.pool.scoreboard.clone(), leases: self.pool.leases.clone() }
    }

    /// A cell of the scoreboard for a new worker, which has it from now on.
    fn take_cell(&mut self) -> Option<usize> {
        let free = self.cells.iter().position(|taken| !taken)?;
        self.cells[free] = true;
        self.pool.scoreboard.cell(free).reset();
        self.pool.scoreboard.note(free).clear();
        self.pool.scoreboard.sending(free).for_each(|note| note.clear());
        Some(free)
    }

    /// Forks a worker. Returns its cell and its end of the control channel in the new process, and `None` in
    /// the supervisor.
    pub fn fork(
        &mut self,
        children: &mut Children,
        handover: &mut Handover,
        log: &mut Log,
        serves: bool,
        now: Instant,
    ) -> Option<(usize, Channel)> {
        let (cell, number) = (self.take_cell()?, self.pool.number);
        match children.fork(&self.pool, self.index, cell) {
            Ok(Forked::Child(channel)) => return Some((cell, channel)),
            Err(errno) => {
                self.cells[cell] = false;
                self.sizing.failed(&self.pool.config, now);
                let reason = error_text::describe(errno as i32);
                log.notice(&format!("Could not fork a worker for pool #{number}: {reason}"));
            }
            Ok(Forked::Parent(worker)) => {
                self.pool.scoreboard.assign(cell, Some(worker.pid));
                match self.vacancies.pop_front() {
                    Some(reason) => self.note_respawn(reason),
                    None if self.sizing.replaces() => self.anticipated += 1,
                    None => {}
                }
                self.sizing.forked(now);
                handover.add_worker(worker.pid);
                if let Some(child) = children.get_mut(worker.pid) {
                    child.journal = log.logs(Level::Debug).then(Vec::new);
                    if !serves {
                        child.drain();
                    }
                }
                let pid = worker.pid;
                log.debug(&format!("Forked child process in pool #{number} with PID {pid}"));
            }
        }
        None
    }

    /// A worker has ended. Its cell becomes free, and what it counted is added up.
    pub fn ended(&mut self, child: &Child, end: ProcessEnd, usage: &Usage) {
        let reason = reason(child, end);
        let counters = &self.pool.counters;
        for (what, time, counted) in [
            (Supervised::User, usage.user, child.counted.user),
            (Supervised::System, usage.system, child.counted.system),
        ] {
            counters.add(what, microseconds(time.saturating_sub(counted)));
        }
        let (index, cell) = (child.worker.cell, child.cell());
        // A worker may have scribbled over its cell: never overflow.
        let totals = &mut self.totals;
        totals.accepted = totals.accepted.wrapping_add(cell.get(Counter::Accepted));
        totals.handled = totals.handled.wrapping_add(cell.get(Counter::Handled));
        totals.errors = totals.errors.wrapping_add(cell.get(Counter::Errors));
        totals.ended += 1;
        cell.reset();
        self.pool.scoreboard.assign(index, None);
        counters.add(Supervised::Reaped, 1);
        self.cells[index] = false;
        match self.anticipated.checked_sub(1) {
            Some(left) => {
                self.anticipated = left;
                self.note_respawn(reason);
            }
            None => self.vacancies.push_back(reason),
        }
    }

    /// This generation is replaced: what its workers have used so far is counted, since the
    /// generation that reports the metrics from now on does not know them.
    pub fn count_usage(&self, children: &mut Children) {
        for child in children.of_pool_mut(self.index) {
            let Some(LiveUsage { user, system, .. }) = usage::of_process(child.pid()) else {
                continue;
            };
            self.pool.counters.add(Supervised::User, microseconds(user));
            self.pool.counters.add(Supervised::System, microseconds(system));
            child.counted = LiveUsage { user, system, resident: 0 };
        }
    }

    fn note_respawn(&mut self, reason: Reason) {
        self.totals.respawns += 1;
        self.pool.counters.note_respawn(reason);
    }

    /// Such a worker is to be replaced, or not.
    pub fn replace(&mut self, child: &Child, now: Instant) {
        match child.life {
            _ if !child.has_served => self.sizing.failed(&self.pool.config, now),
            Life::Surplus | Life::Unresponsive | Life::Leaving => {}
            _ => self.sizing.ended(),
        }
    }

    /// A connection was taken over from a port.
    pub fn note_accepted(&mut self) {
        self.totals.accepted += 1;
        self.pool.counters.add(Supervised::Accepted, 1);
    }

    /// Ends workers of which the pool has too many. Returns what else is to be done about its size: a fork,
    /// or nothing before some time.
    pub fn manage(&mut self, children: &mut Children, now: Instant) -> Advice {
        loop {
            match self.advise(children, now) {
                Advice::Shrink => self.shrink(children, now),
                advice => return advice,
            }
        }
    }

    /// What the policy says now. Where it says to wait for better times, workers are asked to report
    /// scarcity only if that could change anything.
    fn advise(&mut self, children: &Children, now: Instant) -> Advice {
        let census = self.census(children);
        let advice = self.sizing.advise(&self.pool.config, census, now);
        let enough = |census: Census| census.spare >= self.pool.config.pre_fork;
        let can_grow = census.total < self.pool.config.max_fork;
        self.pool.scoreboard.watch_scarcity(can_grow && enough(census));
        let after = self.census(children);
        if can_grow && enough(census) && !enough(after) {
            // A worker became busy while the flag was still down.
            return self.sizing.advise(&self.pool.config, after, now);
        }
        advice
    }

    /// Ends the worker that has been idle for longest.
    fn shrink(&mut self, children: &mut Children, now: Instant) {
        self.sizing.shrunk(now);
        let idle = children.of_pool_mut(self.index).filter(|child| child.is_idle());
        if let Some(child) = idle.min_by_key(|child| child.cell().idle_since()) {
            child.terminate(Life::Surplus);
        }
    }

    /// Ends workers that have been idle for longer than the pool allows. Returns when the next one will be.
    pub fn end_idle(&mut self, children: &mut Children, now: Instant) -> Option<Instant> {
        let limit = self.pool.config.idle_timeout?;
        let mut next = None;
        for child in children.of_pool_mut(self.index).filter(|child| child.is_serving()) {
            // The rest of a busy worker begins anew.
            let since =
                if child.is_idle() { clock::instant(child.cell().idle_since()) } else { now };
            if since + limit <= now {
                child.terminate(Life::Dismissed);
            } else {
                next = next.into_iter().chain([since + limit]).min();
            }
        }
        next
    }

    /// What the policy says at a shutdown, when workers are forked only for connections that wait.
    pub fn advise_shutdown(&self, children: &Children, queued: usize, now: Instant) -> Advice {
        let is_busy = |child: &Child| {
            matches!(child.activity(), Activity::Busy | Activity::Finishing | Activity::Ended)
        };
        // Those that are not busy are about to ask for what waits.
        if queued == 0 || !children.of_pool(self.index).all(is_busy) {
            return Advice::Rest;
        }
        let total = children.of_pool(self.index).count();
        self.sizing.advise_shutdown(&self.pool.config, total, now)
    }

    fn census(&self, children: &Children) -> Census {
        let mut census = Census::default();
        for child in children.of_pool(self.index).filter(|c| c.life != Life::Unresponsive) {
            census.total += 1;
            let is_spare = matches!(child.activity(), Activity::Idle | Activity::Starting);
            census.spare += usize::from(child.will_serve() && is_spare);
        }
        census
    }

    /// Whether a connection waits at a port.
    pub fn has_arrivals(&self) -> bool {
        self.pool.listeners.iter().filter_map(Listener::socket).any(|socket| is_readable(&socket))
    }

    /// Tells the log if the pool has been full for a while, and what its workers do. Returns when to check
    /// again; none if the pool can still grow.
    pub fn check_saturation(
        &mut self,
        children: &mut Children,
        queued: usize,
        log: &mut Log,
        now: Instant,
    ) -> Option<Instant> {
        if children.of_pool(self.index).count() < self.pool.config.max_fork {
            return None;
        }
        if self.saturation.next() > now {
            return Some(self.saturation.next());
        }
        children.of_pool_mut(self.index).for_each(|child| child.note_turns(now));
        let is_full = !children.of_pool(self.index).any(Child::has_time)
            && (queued > 0 || self.timers.due().is_some() || self.has_arrivals());
        if self.saturation.note(is_full, now) {
            self.log_saturation(children, log, now);
        }
        Some(self.saturation.next())
    }

    fn log_saturation(&self, children: &Children, log: &mut Log, now: Instant) {
        let mut workers: Vec<&Child> = children.of_pool(self.index).collect();
        workers.sort_by_key(|child| child.pid());
        let (number, total) = (self.pool.number, workers.len());
        log.notice(&format!(
            "Pool #{number} is full: its workers ({total}) are busy, and connections or jobs wait"
        ));
        for child in workers.iter().take(NAMED) {
            let text = activity::describe(child, &self.pool.listeners, now);
            log.line(Level::Notice, &child.prefix(), &text);
        }
        if total > NAMED {
            log.notice(&format!("and {} more", total - NAMED));
        }
    }

    /// Puts into shared memory what only the supervisor knows; logs worker counts that have changed
    /// if statistics are wanted.
    pub fn publish(&mut self, children: &Children, handover: &mut Handover, log: &mut Log) {
        let (mut workers, mut parked) = (0, handover.store().waiting(self.index));
        for child in children.of_pool(self.index) {
            workers += 1;
            let alone = usize::try_from(child.cell().get(Counter::Parked)).unwrap_or(0);
            parked += handover.store().lease_count(child.pid()) + alone;
        }
        let (board, counts) = (&self.pool.scoreboard, handover.reception.counts(self.index));
        board.publish(Total::Workers, workers as u64);
        board.publish(Total::Parked, parked as u64);
        board.publish(Total::Accepted, self.totals.accepted);
        board.publish(Total::Handled, self.totals.handled);
        board.publish(Total::Errors, self.totals.errors);
        board.publish(Total::Respawns, self.totals.respawns);
        let queued = handover.store().queued(self.index);
        board.publish(Total::Waiting, handover.store().waiting(self.index) as u64);
        board.publish(Total::Queued, queued as u64);
        let before = std::mem::replace(&mut self.counted, counts);
        let proxy_errors = board.losses(PoolLoss::ProxyHeader).total();
        let proxy_errors = (proxy_errors, self.proxy_errors);
        self.proxy_errors = proxy_errors.0;
        for (what, now, before) in [
            (Supervised::Shed, counts.shed, before.shed),
            (Supervised::Reclaimed, counts.reclaimed, before.reclaimed),
            (Supervised::Lost, counts.lost, before.lost),
            (Supervised::ProxyErrors, proxy_errors.0, proxy_errors.1),
        ] {
            if now != before {
                self.pool.counters.add(what, now.saturating_sub(before));
            }
        }
        board.publish(Total::Shed, counts.shed);
        board.publish(Total::Reclaimed, counts.reclaimed);
        board.publish(Total::Lost, counts.lost);
        let counted = (workers, self.totals.ended);
        if log.logs(Level::Stats) && counted != self.logged {
            self.logged = counted;
            log.stats(&format!("Pool #{}: {}", self.pool.number, PoolStatus::of(board)));
        }
    }
}

/// Why a worker has to be replaced.
fn reason(child: &Child, end: ProcessEnd) -> Reason {
    match end {
        _ if child.life == Life::Unresponsive => Reason::Unresponsive,
        ProcessEnd::Exited(0) if child.activity() == Activity::Ended => Reason::Ended,
        ProcessEnd::Exited(1) => Reason::Error,
        ProcessEnd::Exited(_) => Reason::Exit,
        ProcessEnd::Killed(libc::SIGALRM) => Reason::Timeout,
        ProcessEnd::Killed(_) => Reason::Signal,
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
