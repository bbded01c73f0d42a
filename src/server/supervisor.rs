//! The supervisor: forks workers, watches them, ends when it is told to.
//!
//! It runs no user code and reads no byte of a client. Signals arrive through a descriptor, so one
//! `match` in [`Supervisor::serve`] sees everything that happens.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use super::channel::{Channel, Order, Received, Report};
use super::clock;
use super::log::{Level, Log};
use super::pool_state::PoolState;
use super::registry::Pool;
use super::scoreboard::Activity;
use super::sizing::Advice;
use super::stderr_lines::StderrLines;
use super::timers::Timer;
use super::worker_entry::{Life, WorkerEntry};
use crate::sys::process::{Fork, fork};

/// What the fork left in a new worker.
pub struct Birth {
    /// The pool the worker belongs to.
    pub pool: Rc<Pool>,
    /// Its cell in the scoreboard.
    pub cell: usize,
    /// Its end of the control channel.
    pub channel: Channel,
    /// The process that forked it.
    pub supervisor: Pid,
}

/// How [`Supervisor::serve`] ends: in the supervisor, or in a new process.
pub enum Outcome {
    /// Everything is shut down; the exit code.
    Ended(i32),
    /// This process is a new worker.
    Worker(Box<Birth>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Running handlers complete, nobody is forked.
    Draining,
    /// Workers were killed.
    Killing,
}

/// Where an event of the supervisor's epoll set comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Control(i32),
    Stderr(i32),
}

const SIGNALS: u64 = 0;
const CONTROL: u64 = 1 << 32;
const STDERR: u64 = 2 << 32;

impl Source {
    fn token(self) -> u64 {
        match self {
            Source::Signals => SIGNALS,
            Source::Control(pid) => CONTROL | u64::from(pid.unsigned_abs()),
            Source::Stderr(pid) => STDERR | u64::from(pid.unsigned_abs()),
        }
    }

    fn of(token: u64) -> Self {
        let pid = (token & 0xffff_ffff) as i32;
        match token & !0xffff_ffff {
            CONTROL => Source::Control(pid),
            STDERR => Source::Stderr(pid),
            _ => Source::Signals,
        }
    }
}

/// The supervisor's state.
pub struct Supervisor {
    pools: Vec<PoolState>,
    workers: HashMap<i32, WorkerEntry>,
    epoll: Epoll,
    signals: SignalFd,
    previous_mask: SigSet,
    log: Log,
    phase: Phase,
    exit_code: i32,
    pid: Pid,
}

/// Signals the supervisor takes from its descriptor. SIGPIPE is among them so that a closed
/// standard error does not end it.
fn watched() -> SigSet {
    [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGCHLD,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
    ]
    .into_iter()
    .collect()
}

impl Supervisor {
    /// Takes over the signals and announces the pools.
    pub fn new(pools: Vec<Rc<Pool>>, mut log: Log) -> Result<Self, Errno> {
        let mut previous_mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched()), Some(&mut previous_mask))?;
        let signals =
            SignalFd::with_flags(&watched(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, Source::Signals.token()))?;
        let now = Instant::now();
        for pool in &pools {
            log.notice(&format!("Pool #{} created", pool.number));
            for listener in &pool.listeners {
                log.notice(&listener.announcement());
            }
        }
        let pools = pools.into_iter().map(|pool| PoolState::new(pool, now)).collect();
        Ok(Supervisor {
            pools,
            workers: HashMap::new(),
            epoll,
            signals,
            previous_mask,
            log,
            phase: Phase::Serving,
            exit_code: 0,
            pid: getpid(),
        })
    }

    /// Serves until everything is shut down, or returns in a new worker.
    pub fn serve(&mut self) -> Outcome {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let now = Instant::now();
            let wake = match self.manage(now) {
                Managed::Wait(wake) => wake,
                Managed::Worker(birth) => return Outcome::Worker(birth),
            };
            if self.phase != Phase::Serving && self.workers.is_empty() {
                return Outcome::Ended(self.exit_code);
            }
            let timeout = timeout(wake, now);
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(errno) => {
                    self.log.notice(&format!("Waiting for events failed: {}", errno.desc()));
                    std::thread::sleep(Duration::from_millis(100));
                    0
                }
            };
            for event in &events[..count] {
                match Source::of(event.data()) {
                    Source::Signals => self.signals(),
                    Source::Control(pid) => self.control(pid),
                    Source::Stderr(pid) => self.stderr(pid),
                }
            }
        }
    }

    /// Gives every pool the workers and the ticks it is due; tells when to look again.
    fn manage(&mut self, now: Instant) -> Managed {
        let mut wake: Option<Instant> = None;
        for index in 0..self.pools.len() {
            if self.phase != Phase::Serving {
                break;
            }
            let later = [self.end_idle(index, now), self.run_ticks(index, now)];
            let advised = loop {
                match self.pools[index].advise(&self.workers, now) {
                    Advice::Fork => {
                        if let Some(birth) = self.fork(index, now) {
                            return Managed::Worker(birth);
                        }
                    }
                    Advice::Shrink => self.shrink(index, now),
                    Advice::Wait(at) => break Some(at),
                    Advice::Rest => break None,
                }
            };
            wake = later.into_iter().chain([advised, wake]).flatten().min();
        }
        Managed::Wait(wake)
    }

    /// Forks one worker. Gives its birth in the new process and `None` in the supervisor.
    fn fork(&mut self, index: usize, now: Instant) -> Option<Box<Birth>> {
        let state = &mut self.pools[index];
        let number = state.pool.number;
        let cell = state.take_cell()?;
        let attempt = Channel::pair().and_then(|channels| {
            let lines = StderrLines::new()?;
            Ok((channels, lines, fork()?))
        });
        match attempt {
            Err(errno) => {
                state.free_cell(cell);
                state.sizing.failed(&state.pool.config, now);
                let reason = errno.desc();
                self.log.notice(&format!("Could not fork a worker for pool #{number}: {reason}"));
                None
            }
            Ok(((_, channel), lines, Fork::Child)) => {
                lines.become_stderr();
                let (pool, supervisor) = (state.pool.clone(), self.pid);
                Some(Box::new(Birth { pool, cell, channel, supervisor }))
            }
            Ok(((channel, _), lines, Fork::Parent(pid))) => {
                state.sizing.forked(now);
                let (control, errors) =
                    (Source::Control(pid.as_raw()), Source::Stderr(pid.as_raw()));
                let watched = self
                    .epoll
                    .add(&channel, EpollEvent::new(EpollFlags::EPOLLIN, control.token()))
                    .and_then(|()| {
                        let event = EpollEvent::new(EpollFlags::EPOLLIN, errors.token());
                        self.epoll.add(lines.reader(), event)
                    });
                let entry = WorkerEntry::new(pid, index, number, cell, channel, lines);
                self.workers.insert(pid.as_raw(), entry);
                if watched.is_err() {
                    // Out of kernel memory: a worker that cannot be heard is of no use.
                    let _ = kill(pid, Signal::SIGKILL);
                }
                self.log.debug(&format!("Forked child process in pool #{number} with PID {pid}"));
                None
            }
        }
    }

    /// Ends workers that have been idle for longer than the pool allows.
    fn end_idle(&mut self, index: usize, now: Instant) -> Option<Instant> {
        let state = &self.pools[index];
        let limit = state.pool.config.idle_timeout?;
        let mut next = None;
        for worker in self.workers.values_mut().filter(|w| w.pool == index && w.is_serving()) {
            let cell = state.pool.scoreboard.cell(worker.cell);
            if cell.activity() != Activity::Idle {
                // Its rest begins anew: look again when that could have lasted long enough.
                next = next.into_iter().chain([now + limit]).min();
                continue;
            }
            let due = clock::instant(cell.idle_since()) + limit;
            if due <= now {
                worker.terminate(Life::Dismissed);
            } else {
                next = next.into_iter().chain([due]).min();
            }
        }
        next
    }

    /// Ends the worker that has been idle for longest.
    fn shrink(&mut self, index: usize, now: Instant) {
        let state = &mut self.pools[index];
        state.sizing.shrunk(now);
        let board = &state.pool.scoreboard;
        let longest = self
            .workers
            .values_mut()
            .filter(|w| w.pool == index && w.is_serving())
            .filter(|w| board.cell(w.cell).activity() == Activity::Idle)
            .min_by_key(|w| board.cell(w.cell).idle_since());
        if let Some(worker) = longest {
            worker.terminate(Life::Superfluous);
        }
    }

    /// Hands the ticks that are due to idle workers.
    fn run_ticks(&mut self, index: usize, now: Instant) -> Option<Instant> {
        let state = &mut self.pools[index];
        let mut next = None;
        for timer in &mut state.timers {
            next = [next, timer.advance(now)].into_iter().flatten().min();
            if !timer.is_due() {
                continue;
            }
            let board = &state.pool.scoreboard;
            let free = self.workers.values_mut().find(|worker| {
                worker.pool == index && worker.is_serving() && board.cell(worker.cell).claim()
            });
            if let Some(worker) = free {
                worker.run(timer.listener);
                timer.started();
            }
        }
        // Asked before the second look, so that a worker that becomes idle in between is seen.
        let waiting = state.timers.iter().any(Timer::is_due);
        state.pool.scoreboard.want_offers(waiting);
        if waiting && state.has_idle() {
            return Some(now);
        }
        next
    }

    fn signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match Signal::try_from(signal.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => self.reap(),
                Ok(Signal::SIGTERM) => self.drain(),
                Ok(Signal::SIGINT | Signal::SIGHUP) => self.kill_all(),
                Ok(Signal::SIGUSR1) => {
                    if let Err(error) = self.log.reopen() {
                        self.log.notice(&format!("Could not reopen the log file: {error}"));
                    }
                }
                _ => {}
            }
        }
        // One SIGCHLD may stand for several children.
        self.reap();
    }

    /// Orderly shutdown: no new connections, running handlers complete.
    fn drain(&mut self) {
        if self.phase != Phase::Serving {
            self.log.notice("Shutdown already in progress");
            return;
        }
        self.log.notice("Initiate shutdown");
        self.phase = Phase::Draining;
        for worker in self.workers.values_mut() {
            worker.drain();
        }
    }

    /// Fast shutdown: workers are killed.
    fn kill_all(&mut self) {
        if self.phase != Phase::Killing {
            self.log.notice("Fast shutdown requested");
        }
        self.phase = Phase::Killing;
        for worker in self.workers.values() {
            let _ = kill(worker.pid, Signal::SIGKILL);
        }
    }

    fn control(&mut self, pid: i32) {
        // Bounded: one worker's reports must not keep the others waiting.
        for _ in 0..64 {
            let Some(worker) = self.workers.get_mut(&pid) else { return };
            match worker.channel.next_report() {
                Ok(Received::Message(report, _)) => {
                    let prefix = worker.prefix();
                    self.log.line(Level::Debug, &prefix, &format!("{report:?}"));
                    self.handle(pid, report);
                }
                Ok(Received::Empty) => return,
                Ok(Received::Closed) => {
                    // It ends, or has closed what it must not: the signal of its end decides.
                    let _ = self.epoll.delete(&worker.channel);
                    return;
                }
                Ok(Received::Garbage) | Err(_) => {
                    let prefix = worker.prefix();
                    let text = "Invalid message on the control channel; the worker is killed";
                    self.log.line(Level::Notice, &prefix, text);
                    let _ = kill(worker.pid, Signal::SIGKILL);
                    let _ = self.epoll.delete(&worker.channel);
                    return;
                }
            }
        }
    }

    fn handle(&mut self, pid: i32, report: Report) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        let Some(state) = self.pools.get_mut(worker.pool) else { return };
        match report {
            Report::Ready => worker.ready(),
            Report::Leaving => worker.leaving(),
            // The flag is down; it is raised again when nothing more can be done about it.
            Report::Scarce => {}
            Report::Drained => state.close_ports(),
            Report::Offer => {
                let due = state.timers.iter_mut().find(|timer| timer.is_due());
                match due {
                    Some(timer) if self.phase == Phase::Serving => {
                        worker.run(timer.listener);
                        timer.started();
                    }
                    _ => worker.order(&Order::Nothing),
                }
            }
            Report::Ran(_) => {
                let ended = worker.ran(&mut state.timers, Instant::now());
                if ended && self.phase == Phase::Serving {
                    self.drain();
                }
            }
        }
    }

    fn stderr(&mut self, pid: i32) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        let ended = worker.copy_stderr(&mut self.log);
        if ended {
            let _ = self.epoll.delete(worker.stderr.reader());
        }
    }

    /// Takes note of every process that has ended, known or not.
    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(status) => self.buried(status),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn buried(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid() else { return };
        let Some(mut worker) = self.workers.remove(&pid.as_raw()) else { return };
        worker.drain_stderr(&mut self.log);
        let _ = self.epoll.delete(&worker.channel);
        let _ = self.epoll.delete(worker.stderr.reader());
        let (level, text) = worker.obituary(status, self.phase == Phase::Killing);
        self.log.line(level, "", &text);
        let now = Instant::now();
        let Some(state) = self.pools.get_mut(worker.pool) else { return };
        state.give_back_cell(worker.cell);
        if worker.ran(&mut state.timers, now) && self.phase == Phase::Serving {
            self.drain();
            return;
        }
        match worker.life {
            Life::Starting => state.sizing.failed(&state.pool.config, now),
            Life::Superfluous => {}
            _ => state.sizing.ended(),
        }
    }

    /// The log, for what is said after serving.
    pub fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// What stays to be done in the supervisor, when all workers are gone.
    pub fn close(&mut self) {
        if self.phase == Phase::Draining {
            self.log.notice("All worker threads have terminated");
        }
        for state in &self.pools {
            for listener in &state.pool.listeners {
                listener.unlink();
            }
        }
        self.log.notice(&format!("Terminating with exit code {}", self.exit_code));
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Also in a new worker, which inherits the mask: there it is the host's again.
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.previous_mask), None);
    }
}

enum Managed {
    Wait(Option<Instant>),
    Worker(Box<Birth>),
}

/// How long to wait for events: rounded up, so that nothing is due too early.
fn timeout(wake: Option<Instant>, now: Instant) -> EpollTimeout {
    let Some(wake) = wake else { return EpollTimeout::NONE };
    let wait = wake.saturating_duration_since(now).as_micros().div_ceil(1000);
    EpollTimeout::try_from(i32::try_from(wait).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::MAX)
}
