//! The supervisor: forks workers, watches them, ends when it is told to.
//!
//! It runs no user code and parses nothing that a client sends. It is put together from parts, each of
//! which has its own state and is told what happens. The supervisor itself is the event loop: it passes
//! events to the parts and carries out what they answer.
//!
//! | module | what it is |
//! |---|---|
//! | [`children`], [`child`] | the workers: processes, control channels, standard error |
//! | [`handover`] | connections that wait, or that workers have on lease |
//! | [`pool`], [`sizing`], [`timers`], [`ports`], [`saturation`] | a pool: its size, jobs, ports, and whether it is full |
//! | [`dispatch`] | what waits goes to workers that have time |
//! | [`balance`] | which workers have which connections |
//! | [`liveness`], [`delivery`], [`progress`] | workers that do not get on |
//! | [`reload`] | the script is run anew, and another process takes over |
//! | `watching` | in development: files that have changed are a reason to reload |
//! | [`shutdown`], `ending` | how far the end of the server has come, and what the supervisor does about it |
//! | [`status_process`] | the process that answers whoever asks how the server does |
//! | [`access_log`] | the queues of the access log, and the process that writes it |
//! | [`signals`], [`descriptors`] | what the supervisor needs of the kernel |

mod access_log;
mod activity;
pub mod balance;
pub mod child;
pub mod children;
pub mod delivery;
pub mod descriptors;
mod dispatch;
mod ending;
pub mod handover;
pub mod liveness;
pub mod pool;
pub mod ports;
pub mod progress;
mod readiness;
pub mod reload;
pub mod saturation;
pub mod shutdown;
mod signals;
pub mod sizing;
mod source;
mod status_process;
pub mod timers;
mod watching;

use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid};

use super::development::watcher::Watcher;
use super::ipc::channel::Parcel;
use super::ipc::clock;
use super::ipc::message::Report;
use super::ipc::server_stage::Stage;
use super::listen::registry::{Pool, StatusListeners};
use super::operator::access_log::AccessLogSettings;
use super::operator::log::{Level, Log};
use super::operator::notifier::Notifier;
use super::operator::options::{Hangup, SupervisorLimits};
use super::operator::status::PoolStatus;
use super::status_process::StatusStart;
use super::worker_start::WorkerStart;
use crate::sys::os::error_text;
use crate::sys::os::usage::{self, ProcessEnd, Usage};
use crate::sys::os::worker_signals;
use access_log::AccessLog;
use balance::{Balance, Revocation};
use children::Children;
use descriptors::RaisedLimit;
use handover::{Bounds, Handover, WorkerId};
use liveness::{Liveness, LivenessAction};
use pool::PoolState;
use reload::later::GenerationOrigin;
use reload::{Introduced, Role};
use shutdown::{ServerPhase, Shutdown};
use signals::Signals;
use sizing::Advice;
use source::{CONNECTION, EventSource};
use status_process::StatusProcess;

/// Messages taken from one worker at once: one worker must not keep the others waiting.
const MESSAGES_AT_ONCE: usize = 64;

/// Messages of an ended worker that are still taken: more than fit into its channel.
const LAST_MESSAGES: usize = 4096;

/// The exit code of a generation that does not become ready.
const ERROR_AT_START: i32 = 3;

/// How [`Supervisor::serve`] ends: in the supervisor, or in a new process.
pub enum Outcome {
    /// Everything is shut down; the exit code.
    Ended(i32),
    /// This process is a new worker.
    Worker(Box<WorkerStart>),
    /// This process is a new status process.
    Status(StatusStart),
}

/// What the parts want next.
enum Next {
    /// To be woken, at that time at the latest.
    Wait(Option<Instant>),
    /// This process is a new worker.
    Worker(Box<WorkerStart>),
}

/// The supervisor: its parts.
pub struct Supervisor {
    epoll: Rc<Epoll>,
    signals: Signals,
    pools: Vec<PoolState>,
    children: Children,
    handover: Handover,
    balance: Balance,
    liveness: Liveness,
    status: StatusProcess,
    shutdown: Shutdown,
    log: Log,
    access_log: Option<AccessLog>,
    notifier: Notifier,
    pid: Pid,
    input_limit: usize,
    hangup: Hangup,
    reload_timeout: Option<Duration>,
    role: Role,
    /// In development.
    watcher: Option<Watcher>,
    /// The candidate that this generation has introduced itself to.
    introduced: Option<Introduced>,
    /// Another generation has taken over.
    replaced: bool,
    /// Held raised while this process supervises.
    limit: RaisedLimit,
}

impl Supervisor {
    /// Takes over the signals and announces the pools.
    pub fn new(
        (pools, status): (Vec<Rc<Pool>>, StatusListeners),
        (mut log, access_log): (Log, Option<AccessLogSettings>),
        limits: &SupervisorLimits,
        origin: Option<GenerationOrigin>,
        watcher: Option<Watcher>,
    ) -> Result<Self, Errno> {
        let signals = Signals::watch()?;
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, EventSource::Signals.token()))?;
        let now = Instant::now();
        if let Some(text) = worker_signals::refused_notice() {
            log.notice(&text);
        }
        worker_signals::prepare_to_pass_on();
        let is_candidate = origin.is_some();
        for pool in pools.iter().filter(|_| !is_candidate) {
            log.notice(&format!("Pool #{} created", pool.number));
            for listener in pool.listeners.iter() {
                log.notice(&format!("Adding {}", listener.description()));
            }
        }
        let status = StatusProcess::new(status)?;
        for listener in status.listeners().iter().filter(|_| !is_candidate) {
            log.notice(&format!("Adding {}", listener.description()));
        }
        let access_log = access_log.map(|settings| AccessLog::new(settings, &pools)).transpose()?;
        let pools = pools.into_iter().enumerate();
        let pools: Vec<_> = pools.map(|(index, pool)| PoolState::new(index, pool, now)).collect();
        let limit = RaisedLimit::raise();
        let shared = pools.iter().map(PoolState::shared).collect();
        let bounds = Bounds::new(limits.waiting_input, limit.budget());
        let mut children = Children::new(epoll.clone());
        children.held = is_candidate;
        let role = reload::role(&epoll, origin)?;
        if let Some(watcher) = &watcher {
            epoll.add(watcher, EpollEvent::new(EpollFlags::EPOLLIN, EventSource::Files.token()))?;
        }
        Ok(Supervisor {
            handover: Handover::new(epoll.clone(), CONNECTION, shared, bounds),
            children,
            epoll,
            signals,
            pools,
            balance: Balance::new(now),
            liveness: Liveness::new(now),
            status,
            shutdown: Shutdown::new(limits.drain_delay, limits.shutdown_timeout),
            log,
            access_log,
            notifier: Notifier::from_environment(now),
            pid: getpid(),
            input_limit: limits.waiting_input,
            hangup: limits.hangup,
            reload_timeout: limits.reload_timeout,
            role,
            watcher,
            introduced: None,
            replaced: false,
            limit,
        })
    }

    /// Serves until everything is shut down, or returns in a new worker.
    pub fn serve(&mut self) -> Outcome {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let now = Instant::now();
            let files = self.advance_watching(now);
            let reload = self.advance_reload(now);
            if !self.is_candidate()
                && let Some(start) = self.status.tend(&mut self.log, now)
            {
                return Outcome::Status(start);
            }
            let mut wake = match self.advance(now) {
                Next::Wait(wake) => wake,
                Next::Worker(start) => return Outcome::Worker(start),
            };
            if matches!(&self.role, Role::Later(later) if later.has_failed()) {
                return Outcome::Ended(ERROR_AT_START);
            }
            if self.is_over() {
                match self.outlast_clients(now) {
                    Some(end) => wake = wake.into_iter().chain([end]).min(),
                    None if self.outlives() => {}
                    None => return Outcome::Ended(self.shutdown.exit_code()),
                }
            }
            self.publish();
            let serves = self.shutdown.serves();
            let check = self.liveness.next(&self.children, serves, now);
            let status = self.status.next().filter(|_| !self.is_candidate());
            let passed = self.flush_successor(now);
            let Supervisor { access_log, log, .. } = &mut *self;
            let kept = access_log.as_mut().and_then(|access_log| access_log.tend(log, now));
            let due = [
                self.notify(now),
                self.log.attend(now),
                check,
                wake,
                reload,
                files,
                status,
                passed,
                kept,
            ];
            let timeout = clock::timeout(due.into_iter().flatten().min(), now);
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                // No signal is heard any more. Without a supervisor, workers end by themselves.
                Err(errno) => {
                    let reason = error_text::describe(errno as i32);
                    self.log.notice(&format!("Waiting for events failed: {reason}"));
                    self.shutdown.fail();
                    return Outcome::Ended(self.shutdown.exit_code());
                }
            };
            for event in &events[..count] {
                match EventSource::of(event.data()) {
                    EventSource::Signals => self.take_signals(),
                    EventSource::Control(pid) => self.take_reports(pid),
                    EventSource::Stderr(pid) => self.children.copy_stderr(pid, &mut self.log),
                    EventSource::Connection(number) => self.handover.event(number),
                    EventSource::Predecessor => self.hear_predecessor(),
                    // What it takes is sent before the next wait.
                    EventSource::Successor => {}
                    EventSource::First => self.hear_first(),
                    EventSource::Generation(pid) => self.hear_generation(pid),
                    EventSource::CandidateStderr => self.copy_candidate(),
                    EventSource::Files => self.hear_of_files(),
                }
            }
        }
    }

    /// Lets all parts do what is due. Gives when something will be.
    fn advance(&mut self, now: Instant) -> Next {
        if let Some(text) = self.handover.tend_memory(now) {
            self.log.notice(&text);
        }
        let actions = self.liveness.check_orders(&mut self.children, now);
        self.carry_out(actions);
        let mut wake = self.handover.advance(now);
        if self.shutdown.phase() == ServerPhase::Leaving {
            if self.shutdown.is_overdue(now) {
                self.drain();
            }
            wake = wake.into_iter().chain(self.shutdown.due()).min();
        }
        if !self.shutdown.serves() {
            return self.advance_shutdown(now, wake);
        }
        if self.is_candidate() {
            return self.advance_candidate(now);
        }
        self.liveness.check_ports(&mut self.children, &self.handover, &mut self.pools, now);
        self.rebalance(now);
        wake = wake.into_iter().chain(self.balance.next()).min();
        for index in 0..self.pools.len() {
            let Supervisor { pools, children, handover, .. } = self;
            let state = &mut pools[index];
            let idle = state.end_idle(children, now);
            let assigned = dispatch::assign(state, children, handover, now);
            let sized = match self.size(index, now) {
                Ok(sized) => sized,
                Err(start) => return Next::Worker(start),
            };
            let Supervisor { pools, children, handover, log, .. } = self;
            let queued = handover.store().queued(index);
            let checked = pools[index].check_saturation(children, queued, log, now);
            wake = [wake, idle, assigned, sized, checked].into_iter().flatten().min();
        }
        Next::Wait(wake)
    }

    /// Sees to the size of a pool. Gives when to do so again, or in a new worker its start.
    fn size(&mut self, index: usize, now: Instant) -> Result<Option<Instant>, Box<WorkerStart>> {
        loop {
            match self.pools[index].manage(&mut self.children, now) {
                Advice::Fork => {
                    if let Some(start) = self.fork(index, now) {
                        return Err(start);
                    }
                }
                Advice::Wait(at) => return Ok(Some(at)),
                Advice::Shrink | Advice::Rest => return Ok(None),
            }
        }
    }

    /// Moves connections from workers that are slow, or have too many, to where they are better off.
    fn rebalance(&mut self, now: Instant) {
        let Some(revocations) = self.balance.advance(&mut self.children, &mut self.handover, now)
        else {
            return;
        };
        let frozen = self.liveness.check_leases(&mut self.children, &self.handover, now);
        self.carry_out(frozen);
        for revocation in revocations {
            match revocation {
                Revocation::Any(worker, most) => {
                    dispatch::revoke(worker, most, &self.children, &mut self.handover);
                }
                Revocation::Of(worker, ticket, reserved) => {
                    self.handover.reassign(worker, ticket, reserved);
                }
            }
        }
    }

    /// Deals with workers that do not get on.
    fn carry_out(&mut self, actions: Vec<LivenessAction>) {
        let Supervisor { pools, children, handover, log, .. } = self;
        for action in actions {
            liveness::carry_out(action, pools, children, handover, log);
        }
    }

    /// Forks one worker. Gives its start in the new process and `None` in the supervisor.
    fn fork(&mut self, index: usize, now: Instant) -> Option<Box<WorkerStart>> {
        let (serves, supervisor, input_limit) =
            (self.shutdown.serves(), self.pid, self.input_limit);
        let Supervisor { pools, children, handover, log, .. } = self;
        let (cell, channel) = pools[index].fork(children, handover, log, serves, now)?;
        let pool = pools[index].pool.clone();
        let held = self.children.held;
        let access_queue = self.access_log.as_ref().map(|log| log.queue_of(index, cell));
        Some(Box::new(WorkerStart {
            pool,
            cell,
            channel,
            supervisor,
            input_limit,
            access_queue,
            held,
        }))
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            if signal != Signal::SIGCHLD && !self.pass_signal(signal) {
                self.take_signal(signal);
            }
        }
        // One SIGCHLD may stand for several children.
        loop {
            match usage::reap() {
                Ok(Some((pid, end, usage))) => self.bury(pid.as_raw(), end, &usage),
                Err(Errno::EINTR) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn take_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGTERM | Signal::SIGQUIT | Signal::SIGINT if self.is_candidate() => {
                self.fail_candidate();
            }
            Signal::SIGTERM | Signal::SIGQUIT => self.leave(),
            Signal::SIGHUP if self.hangup == Hangup::Reload => self.ask_for_reload(None),
            Signal::SIGINT | Signal::SIGHUP => {
                if self.shutdown.phase() != ServerPhase::Killing {
                    self.log.notice("Fast shutdown requested");
                }
                self.kill_all(Instant::now());
            }
            Signal::SIGUSR1 => self.reopen_log(),
            Signal::SIGUSR2 => self.log_status(),
            _ => {}
        }
    }

    fn reopen_log(&mut self) {
        if let Err(error) = self.log.reopen() {
            let reason = error_text::reason(&error);
            self.log.notice(&format!("Could not reopen the log file: {reason}"));
        }
        if let Some(Err(error)) = self.access_log.as_mut().map(AccessLog::reopen) {
            let reason = error_text::reason(&error);
            self.log.notice(&format!("Could not reopen the access log: {reason}"));
        }
    }

    fn take_reports(&mut self, pid: i32) {
        for _ in 0..MESSAGES_AT_ONCE {
            let Some((worker, report, parcel)) = self.children.receive(pid, &mut self.log) else {
                return;
            };
            self.take_report(worker, report, parcel);
        }
    }

    fn take_report(&mut self, worker: WorkerId, report: Report, parcel: Option<Parcel>) {
        let now = Instant::now();
        let Some(child) = self.children.get_mut(worker.pid) else { return };
        let state = &mut self.pools[worker.pool];
        match report {
            Report::Ready => {
                child.ready();
                state.pool.scoreboard.note_prepared(worker.cell);
                if !self.children.held
                    && let Some(child) = self.children.get_mut(worker.pid)
                {
                    child.release();
                }
                state.sizing.succeeded();
            }
            // The pool is sized before the next wait.
            Report::FewIdle => {}
            Report::Leaving => {
                child.leaving();
                dispatch::revoke(worker, usize::MAX, &self.children, &mut self.handover);
            }
            Report::Offer => {
                let serves = self.shutdown.serves();
                dispatch::answer_offer(state, child, &mut self.handover, serves);
            }
            Report::Ran(_) => {
                if let Some(listener) = child.running.take() {
                    self.job_ended(worker.pool, listener, true, now);
                }
            }
            Report::Loaded(path) => self.watch_also(path),
            Report::Reload => self.ask_for_reload(parcel.map(|parcel| parcel.connection)),
            report => self.handover.report(worker, report, parcel, now),
        }
    }

    /// A child has ended. It may be none of the workers.
    fn bury(&mut self, pid: i32, end: ProcessEnd, usage: &Usage) {
        // Connections that it gave up are among its last messages. Bounded: a process that it forked may
        // have the other end.
        for _ in 0..LAST_MESSAGES {
            match self.children.receive_rest(pid) {
                // It cannot take what it would be given.
                Some((_, Report::Offer, _)) => {}
                Some((worker, report, parcel)) => self.take_report(worker, report, parcel),
                None => break,
            }
        }
        let Some(worker) = self.children.get(pid).map(|child| child.worker) else {
            let Supervisor { access_log, log, .. } = self;
            let now = Instant::now();
            if !access_log.as_mut().is_some_and(|access_log| access_log.ended(pid, log, now))
                && !self.status.bury(pid, end, &mut self.log)
            {
                self.bury_generation(pid, end);
            }
            return;
        };
        let Supervisor { pools, children, handover, .. } = self;
        dispatch::take_back(worker, &mut pools[worker.pool], children, handover);
        let Some(mut child) = self.children.remove(pid) else { return };
        child.drain_stderr(&mut self.log);
        self.handover.remove_worker(worker);
        if let Some(access_log) = &self.access_log {
            access_log.died(worker.pool, worker.cell, &child.request());
        }
        let (level, text) = child.obituary(end, self.shutdown.phase() == ServerPhase::Killing);
        self.log.line(level, "", &text);
        if self.log.logs(Level::Stats) {
            self.log.stats(&format!("Child process with PID {pid} has used {usage}"));
        }
        let now = Instant::now();
        let state = &mut self.pools[worker.pool];
        state.ended(&child);
        let well = end == ProcessEnd::Exited(0);
        if let Some(listener) = child.running.take()
            && !self.job_ended(worker.pool, listener, well, now)
        {
            return;
        }
        self.pools[worker.pool].replace(&child, now);
        if self.is_candidate() {
            self.fail_candidate();
        }
    }

    /// Puts into shared memory and into the log what only the supervisor knows.
    fn publish(&mut self) {
        self.status.publish(match self.shutdown.phase() {
            ServerPhase::Serving => Stage::Serving,
            ServerPhase::Leaving => Stage::Leaving,
            ServerPhase::Draining | ServerPhase::Killing => Stage::Ending,
        });
        self.children.log_orders(&mut self.log);
        for state in &mut self.pools {
            state.publish(&self.children, &mut self.handover, &mut self.log);
        }
    }

    /// The figures of all pools, for the operator.
    fn log_status(&mut self) {
        self.publish();
        for state in &self.pools {
            let status = PoolStatus::of(&state.pool.scoreboard);
            self.log.notice(&format!("Status of pool #{}: {status}", state.pool.number));
        }
    }

    /// Tells the service manager how far the server is. Gives when to do so again.
    fn notify(&mut self, now: Instant) -> Option<Instant> {
        if self.shutdown.is_announced() && !self.replaced {
            self.notifier.stopping();
        } else if self.notifier.awaits_readiness() {
            let serves = |index| self.children.of_pool(index).any(|child| child.has_served);
            if (0..self.pools.len()).all(serves) {
                self.notifier.ready();
            }
        }
        self.feed_watchdog(now)
    }
}
