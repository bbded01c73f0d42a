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
//! | [`service`] | the pools with their workers and connections: what serves |
//! | [`pool`], [`sizing`], [`timers`], [`ports`], [`saturation`] | a pool: its size, jobs, ports, and whether it is full |
//! | [`dispatch`] | what waits goes to workers that have time |
//! | [`balance`] | which workers have which connections |
//! | [`liveness`], [`delivery`], [`progress`] | workers that do not get on |
//! | [`reload`] | the script is run anew, and another process takes over |
//! | [`watching`] | in development: files that have changed are a reason to reload |
//! | [`shutdown`], [`ending`] | how far the end of the server has come, and what is to be done about it |
//! | [`attendant`] | a process beside the workers: when it starts, and how it ends |
//! | [`status_process`] | the process that answers whoever asks how the server does |
//! | [`access_log`] | the queues of the access log, and the process that writes it |
//! | [`signals`], [`descriptors`] | what the supervisor needs of the kernel |

mod access_log;
mod activity;
mod attendant;
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
mod service;
pub mod shutdown;
mod signals;
pub mod sizing;
mod slow_requests;
mod source;
mod status_process;
pub mod timers;
mod watching;

use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;

use super::development::watcher::Watcher;
use super::ipc::clock;
use super::ipc::message::Report;
use super::ipc::server_stage::Stage;
use super::listen::registry::{Pool, StatusListeners};
use super::metrics::server::ServerMetrics;
use super::operator::access_log::AccessLogSettings;
use super::operator::log::Log;
use super::operator::notifier::Notifier;
use super::operator::options::{Hangup, SupervisorLimits};
use super::status_process::StatusStart;
use super::worker_start::WorkerStart;
use crate::sys::os::error_text;
use crate::sys::os::usage::{self, ProcessEnd, Usage};
use crate::sys::os::worker_signals;
use descriptors::RaisedLimit;
use ending::Ending;
use reload::later::GenerationOrigin;
use reload::{Introduced, Role};
use service::{Next, Request, Service};
use shutdown::{ServerPhase, Shutdown};
use signals::Signals;
use slow_requests::SlowRequests;
use source::EventSource;
use status_process::StatusProcess;
use watching::Watching;

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

/// The supervisor: its parts.
pub struct Supervisor {
    epoll: Rc<Epoll>,
    signals: Signals,
    service: Service,
    status: StatusProcess,
    metrics: ServerMetrics,
    ending: Ending,
    log: Log,
    notifier: Notifier,
    hangup: Hangup,
    reload_timeout: Option<Duration>,
    role: Role,
    watching: Watching,
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
        metrics: ServerMetrics,
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
        let limit = RaisedLimit::raise();
        let bounds = (limits.waiting_input, limit.budget());
        let mut service = Service::new(pools, access_log, &epoll, bounds, is_candidate, now)?;
        service.slow_requests = SlowRequests::new(limits.slow_request);
        let status = StatusProcess::new(status)?;
        if !is_candidate {
            service.announce(&mut log);
            status.announce(&mut log);
        }
        let role = reload::role(&epoll, origin)?;
        if let Some(watcher) = &watcher {
            epoll.add(watcher, EpollEvent::new(EpollFlags::EPOLLIN, EventSource::Files.token()))?;
        }
        Ok(Supervisor {
            epoll,
            signals,
            service,
            status,
            metrics,
            ending: Ending::new(Shutdown::new(limits.drain_delay, limits.shutdown_timeout)),
            log,
            notifier: Notifier::from_environment(now),
            hangup: limits.hangup,
            reload_timeout: limits.reload_timeout,
            role,
            watching: Watching::new(watcher),
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
            let files = self.watch_files(now);
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
            if !self.awaits_generation() && self.ending.is_over(&self.service) {
                match self.ending.outlast_clients(&mut self.service, now) {
                    Some(end) => wake = wake.into_iter().chain([end]).min(),
                    None if self.outlives() => {}
                    None => return Outcome::Ended(self.ending.shutdown.exit_code()),
                }
            }
            self.publish();
            // A candidate has no ports to check yet.
            let serves = self.ending.shutdown.serves() && !self.is_candidate();
            let check = self.service.next_check(serves, now);
            let status = self.status.next().filter(|_| !self.is_candidate());
            let passed = self.flush_successor(now);
            // A candidate's standard error is not the server's yet.
            let kept = match self.is_candidate() {
                true => None,
                false => self.service.tend_access_log(&mut self.log, now),
            };
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
                    self.ending.shutdown.fail();
                    return Outcome::Ended(self.ending.shutdown.exit_code());
                }
            };
            for event in &events[..count] {
                match EventSource::of(event.data()) {
                    EventSource::Signals => self.take_signals(),
                    EventSource::Control(pid) => self.take_reports(pid),
                    EventSource::Stderr(pid) => {
                        self.service.children.copy_stderr(pid, &mut self.log);
                    }
                    EventSource::Connection(number) => self.service.handover.event(number),
                    EventSource::Predecessor => self.hear_predecessor(),
                    // What it takes is sent before the next wait.
                    EventSource::Successor => {}
                    EventSource::First => self.hear_first(),
                    EventSource::Generation(pid) => self.hear_generation(pid),
                    EventSource::CandidateStderr => self.copy_candidate(),
                    EventSource::Files => self.watching.hear(),
                }
            }
        }
    }

    /// Lets all parts do what is due. Gives when something will be.
    fn advance(&mut self, now: Instant) -> Next {
        let mut wake = self.service.tend(&mut self.log, now);
        let shutdown = &self.ending.shutdown;
        if shutdown.phase() == ServerPhase::Leaving {
            if shutdown.is_overdue(now) {
                self.drain();
            }
            wake = wake.into_iter().chain(self.ending.shutdown.due()).min();
        }
        let next = if !self.ending.shutdown.serves() {
            let whose = if self.replaced { "of the old generation " } else { "" };
            if self.ending.is_to_kill(&mut self.service, whose, &mut self.log, now) {
                self.kill_all(now);
            }
            self.ending.advance(&mut self.service, &mut self.log, now)
        } else if self.is_candidate() {
            self.service.prepare(&mut self.log, now)
        } else {
            self.service.serve(&mut self.log, now)
        };
        match next {
            Next::Wait(at) => Next::Wait(wake.into_iter().chain(at).min()),
            worker => worker,
        }
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
                if self.ending.shutdown.phase() != ServerPhase::Killing {
                    self.log.notice("Fast shutdown requested");
                }
                self.kill_all(Instant::now());
            }
            Signal::SIGUSR1 => self.reopen_log(),
            Signal::SIGUSR2 => self.service.log_status(&mut self.log),
            _ => {}
        }
    }

    fn reopen_log(&mut self) {
        if let Err(error) = self.log.reopen() {
            let reason = error_text::reason(&error);
            self.log.notice(&format!("Could not reopen the log file: {reason}"));
        }
        if let Err(error) = self.service.reopen_access_log() {
            let reason = error_text::reason(&error);
            self.log.notice(&format!("Could not reopen the access log: {reason}"));
        }
    }

    fn take_reports(&mut self, pid: i32) {
        for _ in 0..MESSAGES_AT_ONCE {
            let received = self.service.children.receive(pid, &mut self.log);
            let Some((worker, report, parcel)) = received else { return };
            let (serves, now) = (self.ending.shutdown.serves(), Instant::now());
            let request = self.service.take_report(worker, report, parcel, serves, now);
            self.grant(request, now);
        }
    }

    /// A worker wants something of the server as a whole.
    fn grant(&mut self, request: Option<Request>, now: Instant) {
        match request {
            Some(Request::JobEnded(pool, listener)) => {
                self.job_ended(pool, listener, true, now);
            }
            Some(Request::Watch(path)) => self.watching.add(path),
            Some(Request::Reload(socket)) => self.ask_for_reload(socket),
            None => {}
        }
    }

    /// A child has ended. It may be none of the workers.
    fn bury(&mut self, pid: i32, end: ProcessEnd, usage: &Usage) {
        let now = Instant::now();
        // Connections that it gave up are among its last messages. Bounded: a process that it forked may
        // have the other end.
        for _ in 0..LAST_MESSAGES {
            match self.service.children.receive_rest(pid) {
                // It cannot take what it would be given.
                Some((_, Report::Offer, _)) => {}
                Some((worker, report, parcel)) => {
                    let serves = self.ending.shutdown.serves();
                    let request = self.service.take_report(worker, report, parcel, serves, now);
                    self.grant(request, now);
                }
                None => break,
            }
        }
        let was_killed = self.ending.shutdown.phase() == ServerPhase::Killing;
        let Some(mut child) = self.service.bury(pid, (end, usage), was_killed, &mut self.log)
        else {
            if !self.service.access_log_ended(pid, &mut self.log)
                && !self.status.bury(pid, end, &mut self.log)
            {
                self.bury_generation(pid, end);
            }
            return;
        };
        let well = end == ProcessEnd::Exited(0);
        if let Some(listener) = child.running.take()
            && !self.job_ended(child.worker.pool, listener, well, now)
        {
            return;
        }
        self.service.replace(&child, now);
        if self.is_candidate() {
            self.fail_candidate();
        }
    }

    /// A main listener's handler has returned, or its worker has ended without that: the server ends,
    /// unless it was about to.
    fn main_ended(&mut self, pool: usize, listener: u32, well: bool) {
        if self.ending.shutdown.phase() == ServerPhase::Killing {
            return;
        }
        let (name, how) =
            (self.service.main_name(pool, listener), if well { "ended" } else { "failed" });
        if !well {
            self.ending.shutdown.fail();
        }
        self.log.notice(&format!("The main listener{name} has {how}, and with it the server"));
        if self.ending.shutdown.serves() {
            self.drain();
        }
    }

    /// The server is told to end: it does so at once, or serves on for `drain_delay`. Told again, it does not
    /// wait any longer.
    fn leave(&mut self) {
        match self.ending.shutdown.leave(Instant::now()) {
            Some(delay) if !self.replaced => {
                self.announce_end(false);
                let seconds = delay.as_secs_f64();
                self.log
                    .notice(&format!("Shutdown in {seconds} s: the server is not ready any more"));
            }
            _ => self.drain(),
        }
    }

    /// Graceful shutdown.
    fn drain(&mut self) {
        let now = Instant::now();
        if self.replaced || !self.ending.shutdown.drain(now) {
            return self.log.notice("Shutdown already in progress");
        }
        self.announce_end(false);
        self.ending.drain(&mut self.service, &mut self.log, now);
    }

    /// Fast shutdown.
    fn kill_all(&mut self, now: Instant) {
        self.announce_end(true);
        self.ending.kill(&mut self.service, now);
    }

    /// Asks for a reload if files have changed. Gives when to look again.
    fn watch_files(&mut self, now: Instant) -> Option<Instant> {
        if self.replaced {
            // Its successor watches them.
            self.watching = Watching::new(None);
        }
        let serves = self.ending.shutdown.serves() && !self.is_candidate();
        if serves && self.watching.has_changed(&mut self.log, now) {
            self.ask_for_reload(None);
        }
        self.watching.due().filter(|_| serves)
    }

    /// Puts into shared memory and into the log what only the supervisor knows.
    fn publish(&mut self) {
        self.status.publish(match self.ending.shutdown.phase() {
            ServerPhase::Serving => Stage::Serving,
            ServerPhase::Leaving => Stage::Leaving,
            ServerPhase::Draining | ServerPhase::Killing => Stage::Ending,
        });
        self.metrics.note_lost_lines([self.log.lost(), self.service.lost_access_lines()]);
        self.service.publish(&mut self.log);
    }

    /// Tells the service manager how far the server is. Gives when to do so again.
    fn notify(&mut self, now: Instant) -> Option<Instant> {
        if self.ending.shutdown.is_announced() && !self.replaced {
            self.notifier.stopping();
        } else if self.notifier.awaits_readiness() && self.service.is_ready() {
            self.notifier.ready();
        }
        self.feed_watchdog(now)
    }

    /// What stays to be done when all workers are gone.
    pub fn close(&mut self) {
        self.notifier.stopping();
        self.service.close_access_log();
        self.log.settle();
        if self.is_candidate() {
            // The ports are those of the generation that serves.
            return;
        }
        if self.replaced {
            return self.service.close_ports();
        }
        self.status.end();
        if self.ending.shutdown.phase() == ServerPhase::Draining {
            self.log.notice("All worker threads have terminated");
        }
        self.service.close_ports();
        let code = self.ending.shutdown.exit_code();
        self.log.notice(&format!("Terminating with exit code {code}"));
    }
}
