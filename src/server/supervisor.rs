//! The supervisor: forks workers, watches them, ends when it is told to.
//!
//! It runs no user code and parses nothing that a client sends. It is put together from parts, each of
//! which has its own state and is told what happens. The supervisor itself is the event loop: it passes
//! events to the parts.
//!
//! | module | what it is |
//! |---|---|
//! | [`parts`] | all of them together: what one part wants, others do |
//! | [`children`], [`child`] | the workers: processes, control channels, standard error |
//! | [`handover`] | connections that wait, or that workers have on lease |
//! | [`service`] | the pools with their workers and connections: what serves |
//! | [`pool`], [`sizing`], [`timers`], [`ports`], [`saturation`] | a pool: its size, jobs, ports, and whether it is full |
//! | [`dispatch`] | what waits goes to workers that have time |
//! | [`balance`] | which workers have which connections |
//! | [`load`] | how busy workers are, and whether they leave processors for others |
//! | [`liveness`], [`delivery`], [`progress`] | workers that do not get on |
//! | [`reload`] | the script is run anew, and another process takes over |
//! | [`watching`] | in development: files that have changed are a reason to reload |
//! | [`shutdown`], [`ending`], [`closing`] | how far the end of the server has come, and what is to be done about it |
//! | [`attendant`] | a process beside the workers: when it starts, and how it ends |
//! | [`status_process`] | the process that answers health checks and serves the metrics |
//! | [`push_process`] | the process that holds connections and passes messages on |
//! | [`access_log`] | the queues of the access log, and the process that writes it |
//! | [`losses`] | what was lost, for the log |
//! | [`signals`], [`descriptors`] | what the supervisor needs of the kernel |

mod access_log;
mod activity;
mod attendant;
pub mod balance;
pub mod child;
pub mod children;
mod closing;
pub mod delivery;
pub mod descriptors;
mod dispatch;
mod end;
mod ending;
pub mod handover;
pub mod liveness;
pub mod load;
mod losses;
mod parts;
pub mod pool;
pub mod ports;
pub mod progress;
pub mod push_process;
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

use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;

use super::development::watcher::Watcher;
use super::ipc::clock;
use super::listen::pool::{Pool, StatusListeners};
use super::metrics::server::ServerMetrics;
use super::operator::access_log::AccessLogSettings;
use super::operator::log::Log;
use super::operator::notifier::Notifier;
use super::operator::options::SupervisorLimits;
use crate::sys::os::error_text;
use crate::sys::os::usage;
use crate::sys::os::worker_signals;
use descriptors::RaisedLimit;
use ending::Ending;
use parts::SupervisorParts;
use push_process::{PushProcess, PushSettings};
use reload::Reload;
use reload::later::GenerationOrigin;
use service::Service;
use shutdown::Shutdown;
use signals::Signals;
use slow_requests::SlowRequests;
use source::EventSource;
use status_process::StatusProcess;
use watching::Watching;

pub use end::SupervisorEnd;

/// The supervisor: its parts, and the event loop around them.
pub struct Supervisor {
    epoll: Rc<Epoll>,
    signals: Signals,
    parts: SupervisorParts,
    /// Held raised while this process supervises.
    _limit: RaisedLimit,
}

impl Supervisor {
    /// Takes over the signals and announces the pools.
    pub fn new(
        (pools, status): (Vec<Rc<Pool>>, StatusListeners),
        (metrics, push): (ServerMetrics, PushSettings),
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
        let mut push = PushProcess::new(epoll.clone(), push);
        if !is_candidate {
            push.watch()?;
        }
        let settings = (signals.previous_mask(), limit.previous());
        let reload = Reload::new(&epoll, origin, settings, limits.reload_timeout)?;
        if let Some(watcher) = &watcher {
            epoll.add(watcher, EpollEvent::new(EpollFlags::EPOLLIN, EventSource::Files.token()))?;
        }
        let parts = SupervisorParts {
            service,
            status,
            push,
            reload,
            ending: Ending::new(Shutdown::new(limits.drain_delay, limits.shutdown_timeout)),
            watching: Watching::new(watcher),
            log,
            notifier: Notifier::from_environment(now),
            metrics,
            hangup: limits.hangup,
        };
        Ok(Supervisor { epoll, signals, parts, _limit: limit })
    }

    /// Serves until everything is shut down, or returns in a new worker.
    pub fn serve(&mut self) -> SupervisorEnd {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let now = Instant::now();
            let due = match self.parts.advance(now) {
                ControlFlow::Continue(due) => due,
                ControlFlow::Break(outcome) => return outcome,
            };
            let timeout = due.map(|due| due.saturating_duration_since(now));
            let count = match self.epoll.wait(&mut events, clock::timeout(timeout)) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                // No signal is heard any more. Without a supervisor, workers end by themselves.
                Err(errno) => {
                    let SupervisorParts { log, ending, .. } = &mut self.parts;
                    let reason = error_text::describe(errno as i32);
                    log.notice(&format!("Waiting for events failed: {reason}"));
                    ending.shutdown.fail();
                    return SupervisorEnd::Ended(ending.shutdown.exit_code());
                }
            };
            for event in &events[..count] {
                self.pass(EventSource::of(event.data()));
            }
        }
    }

    /// Passes an event to the parts.
    fn pass(&mut self, source: EventSource) {
        let parts = &mut self.parts;
        match source {
            EventSource::Signals => self.take_signals(),
            EventSource::Control(pid) => parts.take_reports(pid),
            EventSource::Stderr(pid) => parts.service.children.copy_stderr(pid, &mut parts.log),
            EventSource::Connection(number) => parts.service.handover.reception.event(number),
            EventSource::Predecessor => parts.hear_predecessor(),
            // What it takes is sent before the next wait.
            EventSource::Successor => {}
            EventSource::First => parts.hear_first(),
            EventSource::Generation(pid) => parts.hear_generation(pid),
            EventSource::CandidateStderr => parts.reload.copy_candidate(&mut parts.log),
            EventSource::AccessLogStderr => {
                if let Some(access_log) = &mut parts.service.access_log {
                    access_log.copy_stderr(&mut parts.log);
                }
            }
            EventSource::Files => parts.watching.hear(),
            EventSource::PushLine => parts.push.want(),
            EventSource::Push => parts.hear_push(),
        }
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            if signal != Signal::SIGCHLD {
                self.parts.hear_signal(signal);
            }
        }
        // One SIGCHLD may stand for several children.
        loop {
            match usage::reap() {
                Ok(Some((pid, end, usage))) => self.parts.child_ended(pid.as_raw(), end, &usage),
                Err(Errno::EINTR) => {}
                Ok(None) | Err(_) => break,
            }
        }
        while let Some(pid) = usage::stopped() {
            self.parts.service.children.stopped(pid.as_raw());
        }
    }

    /// What stays to be done when all workers are gone.
    pub fn close(&mut self) {
        self.parts.close();
    }
}
