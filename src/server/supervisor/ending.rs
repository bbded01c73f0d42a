//! The end of the server: what has to be done until nothing is left of the service. It acts on the service
//! that it is given.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::activity;
use super::closing::{close_left_ports, close_ports};
use super::push_process::PushProcess;
use super::reload::Reload;
use super::service::{Next, Service};
use super::shutdown::{ServerPhase, Shutdown};
use super::sizing::Advice;
use crate::server::operator::log::{Level, Log};

/// If descriptors are short, connections that wait at the ports are asked for again after this.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The end of the server, or of a generation that is replaced.
pub struct Ending {
    /// How far it has come.
    pub shutdown: Shutdown,
}

impl Ending {
    /// The end has not begun.
    pub fn new(shutdown: Shutdown) -> Self {
        Ending { shutdown }
    }

    /// The server is told to end: it does so at once, or serves on for `drain_delay`. Told again, it does not
    /// wait any longer.
    pub fn leave(&mut self, reload: &mut Reload, service: &mut Service, log: &mut Log) {
        match self.shutdown.leave(Instant::now()) {
            Some(delay) if !reload.is_replaced() => {
                reload.announce_end(false, log);
                let seconds = delay.as_secs_f64();
                log.notice(&format!("Shutdown in {seconds} s: the server is not ready any more"));
            }
            _ => self.drain(reload, service, log),
        }
    }

    /// Graceful shutdown: no new connections, running handlers complete.
    pub fn drain(&mut self, reload: &mut Reload, service: &mut Service, log: &mut Log) {
        let now = Instant::now();
        if reload.is_replaced() || !self.shutdown.drain(now) {
            return log.notice("Shutdown already in progress");
        }
        reload.announce_end(false, log);
        close_left_ports(service, now);
        log.notice("Initiate shutdown");
        service.handover.reception.shut_down();
        for child in service.children.iter_mut() {
            child.note_turns(now);
            child.drain();
        }
    }

    /// Fast shutdown: workers are killed.
    pub fn kill(&mut self, reload: &mut Reload, service: &mut Service, log: &mut Log) {
        reload.announce_end(true, log);
        self.shutdown.kill(Instant::now());
        service.close_ports();
        service.children.iter().for_each(|child| child.kill(Signal::SIGKILL));
    }

    /// A main listener's handler has returned, or its worker has ended without that: the server ends,
    /// unless it was about to.
    pub fn main_ended(
        &mut self,
        (pool, listener): (usize, u32),
        well: bool,
        reload: &mut Reload,
        service: &mut Service,
        log: &mut Log,
    ) {
        if self.shutdown.phase() == ServerPhase::Killing {
            return;
        }
        let (name, how) =
            (service.main_name(pool, listener), if well { "ended" } else { "failed" });
        if !well {
            self.shutdown.fail();
        }
        log.notice(&format!("The main listener{name} has {how}, and with it the server"));
        if self.shutdown.serves() {
            self.drain(reload, service, log);
        }
    }

    /// Begins the shutdown when the delay is over. Returns when it will be.
    pub fn run_due(
        &mut self,
        reload: &mut Reload,
        service: &mut Service,
        log: &mut Log,
        now: Instant,
    ) -> Option<Instant> {
        if self.shutdown.phase() != ServerPhase::Leaving {
            return None;
        }
        if self.shutdown.is_overdue(now) {
            self.drain(reload, service, log);
        }
        self.shutdown.due()
    }

    /// What is to be done while the server shuts down: ports are closed, and workers forked for what waits. What
    /// takes too long is killed.
    pub fn advance(
        &mut self,
        reload: &mut Reload,
        service: &mut Service,
        log: &mut Log,
        now: Instant,
    ) -> Next {
        let whose = if reload.is_replaced() { "of the old generation " } else { "" };
        if self.is_to_kill(service, whose, log, now) {
            self.kill(reload, service, log);
        }
        let mut wake = self.shutdown.due();
        if self.shutdown.phase() == ServerPhase::Killing {
            return Next::Wait(wake);
        }
        if service.has_closing_ports() && !close_ports(service, now) {
            if service.children.is_empty() && !service.has_waiting() {
                // No descriptor will become free by waiting.
                service.close_ports();
            }
            wake = wake.into_iter().chain([now + ASK_AGAIN]).min();
        }
        for index in 0..service.pools.len() {
            let state = &service.pools[index];
            let queued = service.handover.store().queued(index);
            match state.advise_shutdown(&service.children, queued, now) {
                Advice::Fork if state.sizing.fails_persistently() => {
                    if service.children.of_pool(index).next().is_none() {
                        service.handover.reception.close_queued(index);
                    }
                }
                Advice::Fork => {
                    if let Some(start) = service.fork(index, false, log, now) {
                        return Next::Worker(start);
                    }
                    wake = Some(now);
                }
                Advice::Wait(at) => wake = wake.into_iter().chain([at]).min(),
                Advice::Rest | Advice::Shrink => {}
            }
        }
        Next::Wait(wake)
    }

    /// Whether the shutdown has lasted too long. Names what still runs, and whose it is. What cannot even be
    /// killed is left behind; true if the rest is to be killed.
    fn is_to_kill(
        &mut self,
        service: &mut Service,
        whose: &str,
        log: &mut Log,
        now: Instant,
    ) -> bool {
        if !self.shutdown.is_overdue(now) {
            return false;
        }
        let killed = self.shutdown.phase() == ServerPhase::Killing;
        let what = if killed { "Left behind" } else { "Killed" };
        if !killed {
            log.notice(&format!("Shutdown timeout: what still runs {whose}is killed"));
        }
        let mut children: Vec<_> = service.children.iter().collect();
        children.sort_by_key(|child| (child.worker.pool, child.pid()));
        for child in children {
            let listeners = &service.pools[child.worker.pool].pool.listeners;
            let activity = activity::describe(child, listeners, now);
            log.line(Level::Notice, &child.prefix(), &format!("{what}: {activity}"));
        }
        if killed {
            service.children.clear();
        }
        !killed
    }

    /// Whether this process is at its end: gives the exit code then, or when to look again.
    pub fn conclude(
        &mut self,
        reload: &Reload,
        service: &mut Service,
        push: &mut PushProcess,
        now: Instant,
    ) -> ControlFlow<i32, Option<Instant>> {
        let is_kept = self.shutdown.phase() != ServerPhase::Killing && reload.keeps(service);
        if is_kept || !self.is_over(service) {
            return ControlFlow::Continue(None);
        }
        if self.shutdown.phase() != ServerPhase::Killing && push.outlasts(reload.is_replaced()) {
            return ControlFlow::Continue(None);
        }
        if let Some(end) = self.wait_for_lingering(service, now) {
            return ControlFlow::Continue(Some(end));
        }
        // A candidate has never written anything.
        if self.shutdown.phase() != ServerPhase::Killing
            && !reload.is_candidate()
            && service.access_log.as_mut().is_some_and(|log| !log.finish())
        {
            return ControlFlow::Continue(None);
        }
        if !reload.outlives() {
            return ControlFlow::Break(self.shutdown.exit_code());
        }
        self.shutdown.rest();
        push.close();
        service.handover.reception.forget_successor();
        // With them go their ports.
        service.pools.clear();
        ControlFlow::Continue(None)
    }

    /// Whether the server shuts down, no worker is left, and none is to be forked for what waits.
    fn is_over(&self, service: &Service) -> bool {
        let owes_service = self.shutdown.phase() == ServerPhase::Draining
            && (service.has_waiting() || service.has_closing_ports());
        !self.shutdown.serves() && service.children.is_empty() && !owes_service
    }

    /// All workers are gone: until when lingering connections still keep the server. None if there is
    /// nothing to wait for.
    fn wait_for_lingering(&mut self, service: &mut Service, now: Instant) -> Option<Instant> {
        (0..service.pools.len()).for_each(|index| service.handover.reception.close_queued(index));
        let end =
            self.shutdown.lingers_until(now).filter(|_| service.handover.reception.has_lingering());
        if end.is_none() && self.shutdown.phase() == ServerPhase::Draining {
            service.handover.reception.end_lingering();
        }
        end
    }
}
