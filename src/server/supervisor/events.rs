//! What happens to the supervisor: signals, reports of workers, their standard error, their end.

use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::worker_entry::Life;
use super::{Phase, Supervisor};
use crate::glue;
use crate::server::ipc::channel::{Parcel, Received};
use crate::server::ipc::message::Report;
use crate::server::ipc::ticket::Ticket;
use crate::server::operator::log::Level;
use crate::sys::os::usage::{self, ProcessEnd, Usage};

/// Messages taken from one worker at once: one worker must not keep the others waiting.
const MESSAGES_AT_ONCE: usize = 64;

/// Messages of an ended worker that are still taken: more than fit into its channel.
const LAST_WORDS: usize = 4096;

impl Supervisor {
    pub(super) fn signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match Signal::try_from(signal.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => self.reap(),
                Ok(Signal::SIGTERM | Signal::SIGQUIT) => self.drain(),
                Ok(Signal::SIGINT | Signal::SIGHUP) => self.kill_all(),
                Ok(Signal::SIGUSR1) => {
                    if let Err(error) = self.log.reopen() {
                        let reason = glue::reason(&error);
                        self.log.notice(&format!("Could not reopen the log file: {reason}"));
                    }
                }
                Ok(Signal::SIGUSR2) => self.log_status(),
                _ => {}
            }
        }
        // One SIGCHLD may stand for several children.
        self.reap();
    }

    pub(super) fn control(&mut self, pid: i32) {
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(worker) = self.workers.get_mut(&pid) else { return };
            match worker.channel.receive::<Report>(&mut self.inbox) {
                Ok(Received::Message(report, parcel)) => {
                    if self.log.logs(Level::Debug) {
                        self.log.line(
                            Level::Debug,
                            &worker.prefix(),
                            &format!("reported: {report:?}"),
                        );
                    }
                    self.handle(pid, report, parcel);
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

    fn handle(&mut self, pid: i32, report: Report, parcel: Option<Parcel>) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        let Some(state) = self.pools.get_mut(worker.pool) else { return };
        match report {
            Report::Ready => {
                worker.ready();
                state.sizing.succeeded();
            }
            // The flag is down; it is raised again when nothing more can be done about it.
            Report::Scarce => {}
            Report::Leaving => {
                worker.leaving();
                self.revoke_leases(pid, usize::MAX);
            }
            Report::Offer => self.answer_offer(pid),
            Report::Ran(_) => {
                if let Some(listener) = worker.ran(&mut state.timers, Instant::now()) {
                    let pool = worker.pool;
                    self.main_ended(pool, listener, true);
                }
            }
            Report::Arrived(number, ticket) => self.arrived(pid, number, ticket),
            Report::Declined(number, wakeup, state) => {
                self.declined(pid, number, wakeup, state);
            }
            Report::Leased(ticket) => self.lease(pid, ticket, parcel),
            Report::Released(ticket) => drop(worker.leases.remove(&Ticket::of(ticket))),
            Report::HandedOver(ticket, state) => self.take_over(pid, ticket, parcel, state),
        }
    }

    pub(super) fn stderr(&mut self, pid: i32) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        let ended = worker.copy_stderr(&mut self.log);
        if ended {
            let _ = self.epoll.delete(worker.stderr.reader());
        }
    }

    /// Takes note of every process that has ended, known or not.
    fn reap(&mut self) {
        loop {
            match usage::reap() {
                Ok(Some((pid, end, usage))) => self.buried(pid, end, &usage),
                Err(Errno::EINTR) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Takes what a worker has sent before its end: connections it gave up among it.
    fn last_words(&mut self, pid: i32) {
        // Bounded: a process that it forked may hold the other end.
        for _ in 0..LAST_WORDS {
            let Some(worker) = self.workers.get_mut(&pid) else { return };
            match worker.channel.receive::<Report>(&mut self.inbox) {
                // It cannot take what it would be given.
                Ok(Received::Message(Report::Offer, _)) => {}
                Ok(Received::Message(report, parcel)) => self.handle(pid, report, parcel),
                _ => return,
            }
        }
    }

    fn buried(&mut self, pid: Pid, end: ProcessEnd, usage: &Usage) {
        self.last_words(pid.as_raw());
        let Some(mut worker) = self.workers.remove(&pid.as_raw()) else { return };
        worker.drain_stderr(&mut self.log);
        let _ = self.epoll.delete(&worker.channel);
        let _ = self.epoll.delete(worker.stderr.reader());
        self.inherit(&mut worker);
        let over = self.pools.get(worker.pool).is_some_and(|state| state.is_over(worker.cell));
        let (level, text) = worker.obituary(end, over, self.phase == Phase::Killing);
        self.log.line(level, "", &text);
        if self.log.logs(Level::Stats) {
            let text = format!("Child process with PID {} has used {usage}", worker.pid);
            self.log.stats(&text);
        }
        let now = Instant::now();
        let Some(state) = self.pools.get_mut(worker.pool) else { return };
        state.give_back_cell(worker.cell);
        if let Some(listener) = worker.ran(&mut state.timers, now) {
            return self.main_ended(worker.pool, listener, end == ProcessEnd::Exited(0));
        }
        match worker.life {
            _ if !worker.has_served => state.sizing.failed(&state.pool.config, now),
            Life::Superfluous | Life::Lost => {}
            _ => state.sizing.ended(),
        }
    }
}
