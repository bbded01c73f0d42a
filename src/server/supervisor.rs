//! The supervisor: forks workers, watches them, ends when it is told to.
//!
//! It runs no user code and parses nothing that a client sends. Signals arrive through a descriptor, so one
//! `match` in [`Supervisor::serve`] sees everything that happens.

pub mod attention;
pub mod balance;
mod custody;
pub mod descriptors;
mod doing;
mod events;
mod full_pools;
pub mod fullness;
pub mod guest;
pub mod held_input;
pub mod in_flight;
mod inspection;
pub mod lent;
pub mod lobby;
mod memory;
pub mod occupation;
pub mod pool_state;
pub mod ports;
mod revocation;
mod shutdown;
pub mod sizing;
mod source;
mod stranded;
pub mod stretch;
pub mod timers;
pub mod worker_entry;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigAction, SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpid};

use super::birth::Birth;
use super::ipc::channel::{Channel, Inbox};
use super::ipc::clock;
use super::ipc::scoreboard::Activity;
use super::listen::registry::Pool;
use super::operator::log::{Level, Log};
use super::operator::notifier::Notifier;
use super::operator::options::SupervisorLimits;
use super::operator::stderr_lines::StderrLines;
use crate::glue;
use crate::sys::os::dispositions;
use crate::sys::os::process::{Fork, fork};
use crate::sys::os::worker_signals;
use balance::processors::Processors;
use balance::spread::Looks;
use descriptors::RaisedLimit;
use lobby::Lobby;
use memory::Memory;
use pool_state::PoolState;
use shutdown::TimeLimit;
use sizing::Advice;
use source::{GUEST, Source};
use stranded::Checks;
use worker_entry::{Life, WorkerEntry};

/// How long a handler may run before its worker's other connections are given to other workers, and
/// how often the supervisor looks for that.
const PATIENCE: Duration = Duration::from_millis(20);

/// The exit code of a server that could not go on.
const ERROR_AT_RUN_TIME: i32 = 4;

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
    /// Running handlers complete, what waits is served.
    Draining,
    /// Workers were killed.
    Killing,
}

/// The supervisor's state.
pub struct Supervisor {
    pools: Vec<PoolState>,
    workers: HashMap<i32, WorkerEntry>,
    lobby: Lobby,
    memory: Memory,
    epoll: Rc<Epoll>,
    inbox: Inbox,
    /// When the leases of slow workers are looked at next.
    next_round: Option<Instant>,
    /// When to look for workers that do not get on.
    checks: Checks,
    /// When it is looked at which connections are hot.
    looks: Looks,
    /// Whether the machine has processors to spare.
    processors: Processors,
    signals: SignalFd,
    previous_mask: SigSet,
    /// What the host does about ended children, where the supervisor waits for them.
    previous_sigchld: SigAction,
    log: Log,
    notifier: Notifier,
    phase: Phase,
    time_limit: TimeLimit,
    exit_code: i32,
    pid: Pid,
    /// When all workers are gone: until when lingering connections are waited for.
    last_call: Option<Instant>,
    /// Held raised while this process supervises.
    _limit: RaisedLimit,
    /// Descriptors of connections and workers that may be held at the same time.
    descriptor_budget: usize,
}

/// Signals the supervisor takes from its descriptor. SIGPIPE is among them so that a closed
/// standard error does not end it.
fn watched() -> SigSet {
    [
        Signal::SIGTERM,
        Signal::SIGQUIT,
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
    pub fn new(
        pools: Vec<Rc<Pool>>,
        mut log: Log,
        limits: &SupervisorLimits,
    ) -> Result<Self, Errno> {
        let mut previous_mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched()), Some(&mut previous_mask))?;
        let signals =
            SignalFd::with_flags(&watched(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, Source::Signals.token()))?;
        let now = Instant::now();
        if let Some(text) = worker_signals::refused_notice() {
            log.notice(&text);
        }
        for pool in &pools {
            log.notice(&format!("Pool #{} created", pool.number));
            for listener in &pool.listeners {
                log.notice(&listener.announcement());
            }
        }
        let pools = pools.into_iter().map(|pool| PoolState::new(pool, now)).collect();
        let limit = RaisedLimit::raise();
        Ok(Supervisor {
            pools,
            workers: HashMap::new(),
            lobby: Lobby::new(epoll.clone(), GUEST),
            memory: Memory::new(limits.waiting_input),
            epoll,
            inbox: Inbox::default(),
            next_round: None,
            checks: Checks::new(now),
            looks: Looks::new(now),
            processors: Processors::default(),
            signals,
            previous_mask,
            previous_sigchld: dispositions::reset(Signal::SIGCHLD)?,
            log,
            notifier: Notifier::from_environment(now),
            phase: Phase::Serving,
            time_limit: TimeLimit::new(limits.shutdown_timeout),
            exit_code: 0,
            pid: getpid(),
            last_call: None,
            descriptor_budget: limit.budget(),
            _limit: limit,
        })
    }

    /// Serves until everything is shut down, or returns in a new worker.
    pub fn serve(&mut self) -> Outcome {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let now = Instant::now();
            self.tend_memory();
            let wake = match self.manage(now) {
                Managed::Wait(wake) => wake,
                Managed::Worker(birth) => return Outcome::Worker(birth),
            };
            let is_over = self.phase != Phase::Serving && self.workers.is_empty();
            let wake = if is_over && !self.owes_service() {
                match self.last_call(now) {
                    Some(end) => wake.into_iter().chain([end]).min(),
                    None => return Outcome::Ended(self.exit_code),
                }
            } else {
                wake
            };
            self.publish();
            let due = [self.notify(now), self.log.attend(now), self.next_look(now), wake];
            let wake = due.into_iter().flatten().min();
            let timeout = timeout(wake, now);
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                // No signal is heard any more. Without a supervisor, workers end by themselves.
                Err(errno) => {
                    self.log.notice(&format!(
                        "Waiting for events failed: {}",
                        glue::describe(errno as i32)
                    ));
                    self.exit_code = ERROR_AT_RUN_TIME;
                    return Outcome::Ended(self.exit_code);
                }
            };
            for event in &events[..count] {
                match Source::of(event.data()) {
                    Source::Signals => self.signals(),
                    Source::Control(pid) => self.control(pid),
                    Source::Stderr(pid) => self.stderr(pid),
                    Source::Guest(number) => self.guest(number),
                }
            }
        }
    }

    /// Gives every pool the workers and the ticks it is due; tells when to look again.
    fn manage(&mut self, now: Instant) -> Managed {
        self.look_after_orders(now);
        self.look_at_ports(now);
        let mut wake = self.attend_guests(now);
        if self.phase != Phase::Serving {
            return self.manage_shutdown(now, wake);
        }
        for index in 0..self.pools.len() {
            let later = [self.end_idle(index, now), self.assign(index, now)];
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
            let look = self.look_for_fullness(index, now);
            wake = later.into_iter().chain([advised, look, wake]).flatten().min();
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
                let reason = glue::describe(errno as i32);
                self.log.notice(&format!("Could not fork a worker for pool #{number}: {reason}"));
                None
            }
            Ok(((_, channel), lines, Fork::Child)) => {
                lines.become_stderr();
                let (pool, supervisor) = (state.pool.clone(), self.pid);
                let input_limit = self.memory.budget.limit();
                Some(Box::new(Birth { pool, cell, channel, supervisor, input_limit }))
            }
            Ok(((channel, far_end), lines, Fork::Parent(pid))) => {
                state.forked(now);
                let (control, errors) =
                    (Source::Control(pid.as_raw()), Source::Stderr(pid.as_raw()));
                let watched = self
                    .epoll
                    .add(&channel, EpollEvent::new(EpollFlags::EPOLLIN, control.token()))
                    .and_then(|()| {
                        let event = EpollEvent::new(EpollFlags::EPOLLIN, errors.token());
                        self.epoll.add(lines.reader(), event)
                    });
                let mut entry = WorkerEntry::new(pid, index, number, cell, channel, lines);
                entry.far_end = Some(far_end);
                entry.journal = self.log.logs(Level::Debug).then(Vec::new);
                if self.phase != Phase::Serving {
                    entry.drain();
                }
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

    /// The log, for what is said after serving.
    pub fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// What stays to be done in the supervisor, when all workers are gone.
    pub fn close(&mut self) {
        self.notifier.stopping();
        self.log.settle();
        if self.phase == Phase::Draining {
            self.log.notice("All worker threads have terminated");
        }
        self.pools.iter_mut().for_each(|state| state.ports.close());
        self.log.notice(&format!("Terminating with exit code {}", self.exit_code));
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Also in a new worker, which inherits the mask: there it is the host's again.
        while let Ok(Some(_)) = self.signals.read_signal() {}
        if getpid() == self.pid {
            dispositions::restore(Signal::SIGCHLD, &self.previous_sigchld);
        }
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
