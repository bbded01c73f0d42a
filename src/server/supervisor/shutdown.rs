//! The end of the server: what waits at the ports is taken over, the ports are closed, workers
//! complete what is there, and what takes too long is killed.

use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use nix::sys::signal::{Signal, kill};

use super::doing::doing;
use super::guest::Guest;
use super::lobby::LINGER_AT_SHUTDOWN;
use super::ports::Taken;
use super::sizing::Advice;
use super::{ERROR_AT_RUN_TIME, Managed, Phase, Supervisor};
use crate::server::listen::listener::Listener;
use crate::server::operator::log::Level;

/// For so long, connections whose handshake has begun, or whose client is about to send the first
/// byte, may still arrive.
const LAST_ARRIVALS: Duration = Duration::from_millis(10);

/// Where descriptors were short, connections that wait at the ports are asked for again after this.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A killed worker that is still there after this (the kernel holds it) does not keep the server.
const DEATH_THROES: Duration = Duration::from_secs(5);

/// How long a shutdown may take.
#[derive(Debug)]
pub struct TimeLimit {
    timeout: Option<Duration>,
    due: Option<Instant>,
}

impl TimeLimit {
    /// None: as long as it likes.
    pub fn new(timeout: Option<Duration>) -> Self {
        TimeLimit { timeout, due: None }
    }

    fn begin(&mut self, now: Instant) {
        self.due = self.timeout.and_then(|timeout| now.checked_add(timeout));
    }

    fn kill(&mut self, now: Instant) {
        self.due = Some(now + DEATH_THROES);
    }

    fn is_over(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }
}

impl Supervisor {
    /// Orderly shutdown: no new connections, running handlers complete.
    pub(super) fn drain(&mut self) {
        if self.phase != Phase::Serving {
            self.log.notice("Shutdown already in progress");
            return;
        }
        let now = Instant::now();
        self.phase = Phase::Draining;
        self.time_limit.begin(now);
        for state in &mut self.pools {
            state.sizing.shutdown(now);
            state.ports.refuse();
        }
        self.close_ports(now + LAST_ARRIVALS);
        self.log.notice("Initiate shutdown");
        self.dismiss_guests();
        for worker in self.workers.values_mut() {
            let cell = self.pools[worker.pool].pool.scoreboard.cell(worker.cell);
            worker.note_turns(cell.turns(), now);
            worker.drain();
        }
    }

    /// A main listener's handler has returned, or its worker has ended without that: the server ends,
    /// unless it was about to.
    pub(super) fn main_ended(&mut self, pool: usize, listener: u32, well: bool) {
        if self.phase == Phase::Killing {
            return;
        }
        let listeners = self.pools.get(pool).map(|state| &state.pool.listeners);
        let name = match listeners.and_then(|all| all.get(listener as usize)) {
            Some(Listener::Main { name }) if !name.is_empty() => format!(" \"{name}\""),
            _ => String::new(),
        };
        if well {
            self.log.notice(&format!("The main listener{name} has ended, and with it the server"));
        } else {
            self.exit_code = ERROR_AT_RUN_TIME;
            self.log.notice(&format!("The main listener{name} has failed, and with it the server"));
        }
        if self.phase == Phase::Serving {
            self.drain();
        }
    }

    /// Fast shutdown: workers are killed.
    pub(super) fn kill_all(&mut self) {
        if self.phase != Phase::Killing {
            self.log.notice("Fast shutdown requested");
        }
        self.kill_workers(Instant::now());
    }

    fn kill_workers(&mut self, now: Instant) {
        if self.phase != Phase::Killing {
            self.time_limit.kill(now);
        }
        self.phase = Phase::Killing;
        for state in &mut self.pools {
            state.ports.close();
        }
        for worker in self.workers.values() {
            let _ = kill(worker.pid, Signal::SIGKILL);
        }
    }

    /// Takes over what waits at the ports, and what arrives there until the given time; then closes
    /// them. They stay open only if there is no descriptor for what waits there: false then.
    fn close_ports(&mut self, until: Instant) -> bool {
        loop {
            for index in 0..self.pools.len() {
                if !self.take_waiting(index) {
                    return false;
                }
            }
            let mut ports: Vec<_> =
                self.pools.iter().flat_map(|state| state.ports.watched()).collect();
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            if ports.is_empty() || left == PollTimeout::ZERO || poll(&mut ports, left) == Ok(0) {
                break;
            }
        }
        self.pools.iter_mut().for_each(|state| state.ports.close());
        true
    }

    /// Takes over what waits at the ports of a pool. False if there is no descriptor for all of it.
    fn take_waiting(&mut self, index: usize) -> bool {
        loop {
            if !self.make_room() {
                return false;
            }
            let state = &mut self.pools[index];
            match state.ports.take() {
                Taken::Connection(connection) => {
                    state.totals.accepted += 1;
                    state.call(Guest::accepted(index, connection));
                }
                Taken::Nothing => return true,
                Taken::Exhausted => return false,
            }
        }
    }

    /// What is to be done while the server shuts down: ports are closed, workers forked for what
    /// waits, and what takes too long is killed.
    pub(super) fn manage_shutdown(&mut self, now: Instant, wake: Option<Instant>) -> Managed {
        if self.time_limit.is_over(now) {
            self.end_overdue(now);
        }
        let mut wake = wake.into_iter().chain(self.time_limit.due).min();
        if self.phase == Phase::Killing {
            return Managed::Wait(wake);
        }
        if self.pools.iter().any(|state| state.ports.are_closing()) && !self.close_ports(now) {
            if self.has_nothing() {
                // No descriptor will become free by waiting.
                self.pools.iter_mut().for_each(|state| state.ports.close());
            }
            wake = wake.into_iter().chain([now + ASK_AGAIN]).min();
        }
        for index in 0..self.pools.len() {
            match self.pools[index].advise_shutdown(&self.workers, now) {
                Advice::Fork if self.pools[index].sizing.is_hopeless() => self.give_up(index),
                Advice::Fork => {
                    if let Some(birth) = self.fork(index, now) {
                        return Managed::Worker(birth);
                    }
                    wake = Some(now);
                }
                Advice::Wait(at) => wake = wake.into_iter().chain([at]).min(),
                Advice::Rest | Advice::Shrink => {}
            }
        }
        Managed::Wait(wake)
    }

    /// No worker can be had for what waits.
    fn give_up(&mut self, index: usize) {
        if !self.workers.values().any(|worker| worker.pool == index) {
            self.pools[index].callers.drain(..).for_each(Guest::close);
        }
    }

    /// Whether no connection is here or in a worker.
    fn has_nothing(&self) -> bool {
        self.workers.is_empty() && self.pools.iter().all(|state| state.callers.is_empty())
    }

    /// Whether connections wait for a worker that is still to be forked.
    pub(super) fn owes_service(&self) -> bool {
        self.phase == Phase::Draining
            && self.pools.iter().any(|s| !s.callers.is_empty() || s.ports.are_closing())
    }

    /// The shutdown has lasted too long: what still runs is killed, and named. What cannot even be
    /// killed is left behind.
    fn end_overdue(&mut self, now: Instant) {
        let killed = self.phase == Phase::Killing;
        let what = if killed { "Left behind" } else { "Killed" };
        if !killed {
            self.log.notice("Shutdown timeout: what still runs is killed");
        }
        let mut workers: Vec<_> = self.workers.values().collect();
        workers.sort_by_key(|worker| (worker.pool, worker.pid.as_raw()));
        for worker in workers {
            let doing = doing(&self.pools[worker.pool], worker, now);
            self.log.line(Level::Notice, &worker.prefix(), &format!("{what}: {doing}"));
        }
        if killed {
            self.workers.clear();
        } else {
            self.kill_workers(now);
        }
    }

    /// When all workers are gone: until when lingering connections still keep the server. None if
    /// there is nothing to wait for.
    pub(super) fn last_call(&mut self, now: Instant) -> Option<Instant> {
        // What nobody took is closed in order.
        for state in &mut self.pools {
            state.callers.drain(..).for_each(Guest::close);
        }
        if self.phase == Phase::Killing || self.lobby.is_empty() {
            return None;
        }
        let end = *self.last_call.get_or_insert(now + LINGER_AT_SHUTDOWN);
        if end <= now {
            self.lobby.let_go();
            return None;
        }
        Some(end)
    }
}
