//! The parts of the supervisor, and how they handle each event: what one part asks for, others do.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::access_log::AccessLog;
use super::end::SupervisorEnd;
use super::ending::Ending;
use super::losses;
use super::push_process::PushProcess;
use super::reload::{Reload, ReloadAction};
use super::service::{Next, Service, WorkerRequest};
use super::shutdown::ServerPhase;
use super::status_process::StatusProcess;
use super::watching::Watching;
use crate::server::ipc::message::Report;
use crate::server::log_throttle::Occasion;
use crate::server::metrics::server::ServerMetrics;
use crate::server::metrics::totals::ServerTotal;
use crate::server::operator::log::Log;
use crate::server::operator::notifier::Notifier;
use crate::server::operator::options::Hangup;
use crate::server::push::PushStart;
use crate::sys::os::usage::{ProcessEnd, Usage};

/// Messages taken from one worker at once: one worker must not keep the others waiting.
const MESSAGES_AT_ONCE: usize = 64;

/// Messages of an ended worker that are still taken: more than fit into its channel.
const LAST_MESSAGES: usize = 4096;

/// The exit code of a generation that does not become ready.
const ERROR_AT_START: i32 = 3;

/// The parts.
pub struct SupervisorParts {
    /// What serves.
    pub service: Service,
    /// The process that answers health checks and serves the metrics.
    pub status: StatusProcess,
    /// The process that holds connections.
    pub push: PushProcess,
    /// What is known of other generations.
    pub reload: Reload,
    /// The end of the server.
    pub ending: Ending,
    /// In development: the files of the application.
    pub watching: Watching,
    /// The log.
    pub log: Log,
    /// The service manager.
    pub notifier: Notifier,
    /// What is counted for the whole server.
    pub metrics: ServerMetrics,
    /// What SIGHUP does.
    pub hangup: Hangup,
}

impl SupervisorParts {
    /// Lets all parts do what is due. Returns when something will be, or how the supervisor ends.
    pub fn advance(&mut self, now: Instant) -> ControlFlow<SupervisorEnd, Option<Instant>> {
        let files = self.watch_files(now);
        let actions = self.reload.advance(&self.service, &self.status, &mut self.log, now);
        self.carry_out(actions);
        let is_candidate = self.reload.is_candidate();
        if !is_candidate && let Some(start) = self.status.run_due(&mut self.log, now) {
            return ControlFlow::Break(SupervisorEnd::Status(start));
        }
        if let Some(start) = self.start_push(now) {
            return ControlFlow::Break(SupervisorEnd::Push(start));
        }
        let served = match self.advance_service(now) {
            Next::Wait(wake) => wake,
            Next::Worker(start) => return ControlFlow::Break(SupervisorEnd::Worker(start)),
        };
        if self.reload.has_failed() {
            return ControlFlow::Break(SupervisorEnd::Ended(ERROR_AT_START));
        }
        let ends = self.ending.conclude(&self.reload, &mut self.service, &mut self.push, now);
        let ends = ends.map_break(SupervisorEnd::Ended)?;
        let lost = self.publish(Occasion::at(now));
        // A candidate has no ports to check yet.
        let serves = self.ending.shutdown.serves() && !is_candidate;
        let check = self.service.next_check(serves, now);
        let status = self.status.next().filter(|_| !is_candidate);
        // A candidate's standard error is not the server's yet.
        let mut restart = None;
        if let Some(access_log) = self.service.access_log.as_mut().filter(|_| !is_candidate) {
            if let Some(start) = access_log.start(&mut self.log, now) {
                return ControlFlow::Break(SupervisorEnd::AccessLog(start));
            }
            restart = access_log.next();
        }
        let passed = self.reload.flush(&mut self.service, now);
        let told = [lost, self.notify(now), self.log.retry_waiting(now)];
        let due = [files, served, ends, check, status, restart, passed];
        let due = due.into_iter().chain(told).chain([self.reload.due(), self.push.next()]);
        ControlFlow::Continue(due.flatten().min())
    }

    /// Serves, prepares to serve, or ends, as is due. Returns when something will be.
    fn advance_service(&mut self, now: Instant) -> Next {
        let SupervisorParts { reload, service, ending, log, .. } = self;
        let wake = [service.run_due(log, now), ending.run_due(reload, service, log, now)];
        let next = if !ending.shutdown.serves() {
            ending.advance(reload, service, log, now)
        } else if reload.is_candidate() {
            service.prepare(log, now)
        } else {
            service.serve(log, now)
        };
        match next {
            Next::Wait(at) => Next::Wait(wake.into_iter().chain([at]).flatten().min()),
            worker => worker,
        }
    }

    /// Carries out the actions of the part that deals with other generations.
    fn carry_out(&mut self, actions: Vec<ReloadAction>) {
        for action in actions {
            let now = Instant::now();
            let SupervisorParts { reload, push, service, status, log, notifier, metrics, .. } =
                self;
            match action {
                ReloadAction::Tell(news) => news.tell(log, notifier, metrics),
                ReloadAction::Answer(askers, outcome) => {
                    let outcome = outcome.as_ref().map_err(String::as_str).copied();
                    askers.into_iter().for_each(|asker| asker.answer(outcome));
                }
                ReloadAction::Introduce(channel) => {
                    // The candidate loads the files as they are now.
                    self.watching.forget();
                    let shared = [push.sender(), metrics.file()];
                    reload.introduce(channel, service, status, shared);
                }
                ReloadAction::HandOver(claims) => {
                    if reload.hand_over(&claims, service, status, push, now) {
                        self.ending.shutdown.drain(now);
                    }
                }
                ReloadAction::Serve(begin) => {
                    metrics.count(ServerTotal::Reloads);
                    push.begin();
                    reload.begin(begin, service, status, log, now);
                }
                ReloadAction::Completed if push.is_running() => reload.announce_push(),
                ReloadAction::Completed => {}
                ReloadAction::PushRuns if reload.is_replaced() => {}
                ReloadAction::PushRuns => push.serve(),
                ReloadAction::Signal(signal) => self.take_signal(signal),
                ReloadAction::ReopenLogs => self.reopen_logs(),
                ReloadAction::Kill => self.kill_all(),
                ReloadAction::Ended(Some(code)) => self.ending.shutdown.set_exit_code(code),
                ReloadAction::Ended(None) => self.ending.shutdown.fail(),
            }
        }
    }

    /// In the first process: starts the push process if it is wanted. Returns what it starts with in the new process.
    fn start_push(&mut self, now: Instant) -> Option<PushStart> {
        let SupervisorParts { push, reload, ending, log, .. } = self;
        let is_replaced = reload.is_replaced();
        if !ending.shutdown.serves() && !is_replaced {
            push.drain();
        }
        let ran = push.is_running();
        let start = push.run_due(log, now);
        if !ran && push.is_running() {
            if is_replaced {
                reload.announce_push();
            } else {
                push.serve();
            }
        }
        start
    }

    /// A message of the push process.
    pub fn hear_push(&mut self) {
        let Service { handover, access_log, .. } = &mut self.service;
        self.push.hear(&mut handover.reception, access_log.as_ref(), MESSAGES_AT_ONCE);
    }

    /// A message of the first process.
    pub fn hear_first(&mut self) {
        while let Some(actions) = self.reload.hear_first() {
            self.carry_out(actions);
        }
    }

    /// The predecessor has handed something over.
    pub fn hear_predecessor(&mut self) {
        for _ in 0..MESSAGES_AT_ONCE {
            let SupervisorParts { reload, service, log, .. } = self;
            let Some(actions) = reload.hear_predecessor(service, log, Instant::now()) else {
                return;
            };
            self.carry_out(actions);
        }
    }

    /// A message of a later generation or a candidate.
    pub fn hear_generation(&mut self, pid: i32) {
        for _ in 0..MESSAGES_AT_ONCE {
            let heard = self.reload.hear_generation(pid, &mut self.log, Instant::now());
            let Some(actions) = heard else { return };
            self.carry_out(actions);
        }
    }

    /// A reload is asked for, by a signal or by a worker.
    fn ask_for_reload(&mut self, socket: Option<OwnedFd>) {
        let actions = self.reload.ask(socket, self.ending.shutdown.is_announced());
        self.carry_out(actions);
    }

    /// A signal has come. It may be for the generation that serves.
    pub fn hear_signal(&mut self, signal: Signal) {
        match self.reload.signal(signal, &mut self.log) {
            Some(actions) => self.carry_out(actions),
            None => self.take_signal(signal),
        }
    }

    fn take_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGTERM | Signal::SIGQUIT | Signal::SIGINT if self.reload.is_candidate() => {
                self.reload.fail_candidate();
            }
            Signal::SIGTERM | Signal::SIGQUIT => {
                self.ending.leave(&mut self.reload, &mut self.service, &mut self.log);
            }
            Signal::SIGHUP if self.hangup == Hangup::Reload => self.ask_for_reload(None),
            Signal::SIGINT | Signal::SIGHUP => {
                if self.ending.shutdown.phase() != ServerPhase::Killing {
                    self.log.notice("Fast shutdown requested");
                }
                self.kill_all();
            }
            Signal::SIGUSR1 => self.reopen_logs(),
            Signal::SIGUSR2 => self.service.log_status(&mut self.log),
            _ => {}
        }
    }

    fn reopen_logs(&mut self) {
        self.log.reopen();
        if let Some(access_log) = &mut self.service.access_log {
            access_log.reopen(&mut self.log);
        }
    }

    /// A worker says something.
    pub fn take_reports(&mut self, pid: i32) {
        for _ in 0..MESSAGES_AT_ONCE {
            let received = self.service.children.receive(pid, &mut self.log);
            let Some((worker, report, parcel)) = received else { return };
            let (serves, now) = (self.ending.shutdown.serves(), Instant::now());
            let request = self.service.take_report(worker, report, parcel, serves, now);
            self.grant(request, now);
        }
    }

    /// A worker wants something of the server as a whole.
    fn grant(&mut self, request: Option<WorkerRequest>, now: Instant) {
        match request {
            Some(WorkerRequest::JobEnded(pool, listener)) => {
                self.job_ended(pool, listener, true, now);
            }
            Some(WorkerRequest::Watch(path)) => self.watching.add(path),
            Some(WorkerRequest::Reload(socket)) => self.ask_for_reload(socket),
            None => {}
        }
    }

    /// A child has ended: a worker or another process.
    pub fn child_ended(&mut self, pid: i32, end: ProcessEnd, usage: &Usage) {
        let now = Instant::now();
        // Connections that it gave up are among its last messages. Bounded: a process that it forked may
        // have the other end.
        for _ in 0..LAST_MESSAGES {
            match self.service.children.receive_rest(pid) {
                // It cannot take any more work.
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
        let child = self.service.child_ended(pid, (end, usage), was_killed, &mut self.log);
        let Some(mut child) = child else {
            let access_log = self.service.access_log.as_mut();
            if !access_log.is_some_and(|access_log| access_log.ended(pid, &mut self.log))
                && !self.status.child_ended(pid, end, &mut self.log)
                && !self.push.child_ended(pid, end, &mut self.log)
            {
                // What it has said last.
                self.hear_generation(pid);
                let actions = self.reload.ended(pid, end, &mut self.log);
                self.carry_out(actions.unwrap_or_default());
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
        self.reload.fail_candidate();
    }

    /// A job's handler has ended. False if the server ends with it.
    fn job_ended(&mut self, pool: usize, listener: u32, well: bool, now: Instant) -> bool {
        let was_main = self.service.pools[pool].timers.ended(listener, now);
        if self.reload.is_replaced() {
            self.reload.job_ended(&mut self.service, pool, listener);
            return true;
        }
        if was_main {
            let SupervisorParts { ending, reload, service, log, .. } = self;
            ending.main_ended((pool, listener), well, reload, service, log);
        }
        !was_main
    }

    /// Fast shutdown.
    fn kill_all(&mut self) {
        self.ending.kill(&mut self.reload, &mut self.service, &mut self.log);
    }

    /// Asks for a reload if files have changed. Returns when to look again.
    fn watch_files(&mut self, now: Instant) -> Option<Instant> {
        if self.reload.is_replaced() {
            // Its successor watches them.
            self.watching = Watching::new(None);
        }
        let serves = self.ending.shutdown.serves() && !self.reload.is_candidate();
        if serves && self.watching.has_changed(&mut self.log, now) {
            self.ask_for_reload(None);
        }
        self.watching.due().filter(|_| serves)
    }

    /// Puts into shared memory and into the log what only the supervisor knows. Returns when it will know more.
    fn publish(&mut self, occasion: Occasion) -> Option<Instant> {
        if !self.reload.is_replaced() && !self.reload.is_candidate() {
            self.push.count_losses();
        }
        self.status.publish(self.ending.shutdown.phase().stage());
        let lost = self.service.access_log.as_ref().map_or(0, AccessLog::lost);
        self.metrics.note_lost_lines([self.log.lost(), lost]);
        self.service.publish(&mut self.log);
        losses::tell(&mut self.service, &mut self.push, &mut self.log, occasion)
    }

    /// Tells the service manager how far the server is. Returns when to do so again.
    fn notify(&mut self, now: Instant) -> Option<Instant> {
        if self.ending.shutdown.is_announced() && !self.reload.is_replaced() {
            self.notifier.stopping();
        } else if self.notifier.awaits_readiness() && self.service.is_ready() {
            self.notifier.ready();
        }
        if self.notifier.is_due(now) && self.reload.feeds_watchdog() {
            self.notifier.feed();
        }
        self.notifier.next()
    }

    /// What is left to do when all workers are gone.
    pub fn close(&mut self) {
        self.notifier.stopping();
        self.service.access_log.iter_mut().for_each(|access_log| access_log.close(&mut self.log));
        self.publish(Occasion::last());
        self.log.settle();
        if self.reload.is_candidate() {
            // The ports are those of the generation that serves.
            return;
        }
        if self.reload.is_replaced() {
            return self.service.close_ports();
        }
        self.status.end();
        self.push.end();
        if self.ending.shutdown.phase() == ServerPhase::Draining {
            self.log.notice("All worker threads have terminated");
        }
        self.service.close_ports();
        let code = self.ending.shutdown.exit_code();
        self.log.notice(&format!("Terminating with exit code {code}"));
    }
}
