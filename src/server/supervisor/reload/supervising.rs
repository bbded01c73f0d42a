//! Reloading in the first process: what the supervisor does with what [`First`](super::first::First) remembers.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::super::{MESSAGES_AT_ONCE, Supervisor};
use super::Role;
use super::candidate::Asker;
use super::first::{Failure, SHUTTING_DOWN};
use crate::server::ipc::generation::{FromFirst, ToFirst};
use crate::server::metrics::totals::ServerTotal;
use crate::sys::os::error_text;
use crate::sys::os::usage::ProcessEnd;

impl Supervisor {
    /// A reload is asked for, by a signal or by a worker.
    pub(in super::super) fn ask_for_reload(&mut self, socket: Option<OwnedFd>) {
        let refusal = match () {
            () if self.is_candidate() => Some("this generation does not serve yet"),
            () if self.ending.shutdown.is_announced() && !self.replaced => Some(SHUTTING_DOWN),
            () => None,
        };
        if let Some(text) = refusal {
            self.log.notice(&format!("Reload refused: {text}"));
            return socket.into_iter().for_each(|socket| Asker::from(socket).answer(Err(text)));
        }
        let timeout = self.reload_timeout;
        match &mut self.role {
            Role::First(first) => {
                if !first.ask(socket.map(Asker::from), timeout) {
                    self.log.notice(&format!("Reload refused: {SHUTTING_DOWN}"));
                }
            }
            Role::Later(later) => {
                let time = timeout.map(|timeout| timeout.as_millis() as u64);
                let descriptors: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
                later.tell(&ToFirst::Reload(time), &descriptors);
            }
        }
    }

    /// Lets reloads go on. Gives when to do so again.
    pub(in super::super) fn advance_reload(&mut self, now: Instant) -> Option<Instant> {
        let Role::First(first) = &mut self.role else {
            self.report_readiness();
            return None;
        };
        if let Some(candidate) = first.candidate().filter(|candidate| candidate.is_overdue(now)) {
            let text = format!("the new generation is not ready after {} s", candidate.time());
            self.fail_reload(&text);
        }
        if let Role::First(first) = &mut self.role {
            first.check_takeover(now);
        }
        if matches!(&self.role, Role::First(first) if first.is_to_begin()) {
            self.begin_reload(now);
        }
        match &mut self.role {
            Role::First(first) => first.due(),
            Role::Later(_) => None,
        }
    }

    /// In the first process: the candidate has written something.
    pub(in super::super) fn copy_candidate(&mut self) {
        let Role::First(first) = &mut self.role else { return };
        let Some(candidate) = first.candidate() else { return };
        if candidate.copy_stderr(&mut self.log) {
            let _ = self.epoll.delete(candidate.stderr());
        }
    }

    fn begin_reload(&mut self, now: Instant) {
        let settings = (self.signals.previous_mask(), self.limit.previous());
        let Role::First(first) = &mut self.role else { return };
        self.log.notice("Reload: the script is run anew");
        self.notifier.reloading();
        match first.begin(settings, now) {
            Ok(Some(channel)) => self.introduce(channel),
            Ok(None) => {}
            Err((error, askers)) => {
                let reason = error_text::reason(&error);
                let text = format!("the new generation could not be started: {reason}");
                self.log.notice(&format!("Reload failed, the server goes on as it was: {text}"));
                self.metrics.count(ServerTotal::FailedReloads);
                self.notifier.reloaded("Serving; the last reload has failed");
                askers.into_iter().for_each(|asker| asker.answer(Err(&text)));
            }
        }
    }

    fn fail_reload(&mut self, text: &str) {
        let Role::First(first) = &mut self.role else { return };
        let Some(Failure { said, askers }) = first.fail(&mut self.log) else { return };
        self.log.notice(&format!("Reload failed, the server goes on as it was: {text}"));
        self.metrics.count(ServerTotal::FailedReloads);
        self.notifier.reloaded("Serving; the last reload has failed");
        let text = if said.is_empty() { text.to_owned() } else { format!("{text}: {said}") };
        askers.into_iter().for_each(|asker| asker.answer(Err(&text)));
    }

    /// In the first process: what a later generation, or the candidate, says.
    pub(in super::super) fn hear_generation(&mut self, pid: i32) {
        for _ in 0..MESSAGES_AT_ONCE {
            let Role::First(first) = &mut self.role else { return };
            let Some((message, socket)) = first.receive(pid) else { return };
            match message {
                ToFirst::Ready(claims) if first.is_candidate(pid) => self.replace_with(claims),
                ToFirst::Ready(_) => {}
                ToFirst::Serving(is_alone) => self.complete_reload(pid, is_alone),
                ToFirst::Reload(time) => {
                    let timeout = time.map(Duration::from_millis);
                    if !first.ask(socket.map(Asker::from), timeout) {
                        self.log.notice(&format!("Reload refused: {SHUTTING_DOWN}"));
                    }
                }
                ToFirst::Stopping(at_once) if first.is_current(pid) => self.stop_others(at_once),
                ToFirst::Stopping(_) => {}
                ToFirst::Alive => self.notifier.feed(),
            }
        }
    }

    /// The candidate is ready: the generation that has served until now hands over to it.
    fn replace_with(&mut self, claims: Vec<Option<u64>>) {
        let Role::First(first) = &mut self.role else { return };
        if !first.promote(&mut self.log, Instant::now()) {
            return;
        }
        if !first.tell_previous(&FromFirst::Succeed(claims.clone())) {
            self.succeed(&claims);
        }
    }

    /// The generation with that supervisor serves.
    fn complete_reload(&mut self, pid: i32, is_alone: bool) {
        let Role::First(first) = &mut self.role else { return };
        let Some(askers) = first.serves(pid) else { return };
        if let Some(previous) = is_alone.then(|| first.kill_previous()).flatten() {
            self.log.notice(&format!(
                "The old generation (PID {previous}) does not hand over in time: it is killed, with the \
                 connections that it holds"
            ));
        }
        self.log.notice(&format!("Reload complete: the new generation serves (PID {pid})"));
        self.notifier.reloaded("Serving");
        askers.into_iter().for_each(|asker| asker.answer(Ok(())));
    }

    /// The generation that serves shuts down: so do the others.
    fn stop_others(&mut self, at_once: bool) {
        let Role::First(first) = &mut self.role else { return };
        self.notifier.stopping();
        first.refuse(&mut self.log);
        if at_once {
            first.tell_all(Signal::SIGINT);
            self.kill_all(Instant::now());
        }
    }

    /// In the first process: a child has ended. True if it was a candidate or a generation.
    pub(in super::super) fn bury_generation(&mut self, pid: i32, end: ProcessEnd) -> bool {
        let how = match end {
            ProcessEnd::Exited(code) => format!("with exit code {code}"),
            ProcessEnd::Killed(signal) => format!("by signal {signal}"),
        };
        // What it has said last.
        self.hear_generation(pid);
        let Role::First(first) = &mut self.role else { return false };
        if first.is_candidate(pid) {
            self.fail_reload(&match end {
                ProcessEnd::Exited(0) => "the new script has ended without serving".to_owned(),
                _ => format!("the new generation has ended {how}"),
            });
            return true;
        }
        let was_current = first.is_current(pid);
        if !first.remove(pid) {
            return false;
        }
        if !was_current {
            self.log.stats(&format!("A previous generation (PID {pid}) has ended {how}"));
            return true;
        }
        // What is left ends by itself. Nothing can be loaded any more.
        first.refuse(&mut self.log);
        match end {
            ProcessEnd::Exited(code) => self.ending.shutdown.set_exit_code(code),
            ProcessEnd::Killed(_) => {
                self.log.notice(&format!("The generation that served (PID {pid}) has ended {how}"));
                self.ending.shutdown.fail();
            }
        }
        true
    }

    /// In the first process: a signal for the generation that serves now. False if that is this one.
    pub(in super::super) fn pass_signal(&mut self, signal: Signal) -> bool {
        let Role::First(first) = &mut self.role else { return false };
        if !first.has_generations() {
            return false;
        }
        match signal {
            Signal::SIGTERM | Signal::SIGQUIT => first.refuse(&mut self.log),
            Signal::SIGINT => {
                first.refuse(&mut self.log);
                first.tell_all(signal);
                self.kill_all(Instant::now());
                return true;
            }
            Signal::SIGUSR1 => {
                first.tell_all(signal);
                self.reopen_log();
                return true;
            }
            _ => {}
        }
        let Role::First(first) = &self.role else { return true };
        first.tell(&FromFirst::Signal(signal as u64));
        true
    }

    /// A shutdown begins in this generation: there is no reload any more, and the others are told.
    pub(in super::super) fn announce_end(&mut self, at_once: bool) {
        if self.replaced {
            return;
        }
        match &mut self.role {
            Role::First(first) => first.refuse(&mut self.log),
            Role::Later(later) => later.tell(&ToFirst::Stopping(at_once), &[]),
        }
    }

    /// This generation is over. In the first process the server goes on as long as others live: gives
    /// whether that is so.
    pub(in super::super) fn outlives(&mut self) -> bool {
        let Role::First(first) = &self.role else { return false };
        if !first.has_generations() {
            return false;
        }
        self.ending.shutdown.rest();
        self.service.handover.forget_successor();
        // With them go their ports.
        self.service.pools.clear();
        true
    }

    /// Feeds the watchdog of the service manager, if the generation that serves is alive.
    pub(in super::super) fn feed_watchdog(&mut self, now: Instant) -> Option<Instant> {
        if self.notifier.is_hungry(now) {
            let passed = match &self.role {
                Role::First(first) => first.tell(&FromFirst::Ping),
                Role::Later(_) => true,
            };
            if !passed && !self.replaced {
                self.notifier.feed();
            }
        }
        self.notifier.next()
    }
}
