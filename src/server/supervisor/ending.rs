//! The end of the server: what has to be done until nothing is left of the service. It acts on the service
//! that it is given.

use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use nix::sys::signal::Signal;

use super::activity;
use super::handover::Handover;
use super::pool::PoolState;
use super::ports::Taken;
use super::service::{Next, Service};
use super::shutdown::{ServerPhase, Shutdown};
use super::sizing::Advice;
use crate::server::operator::log::{Level, Log};

/// At a shutdown, connections whose handshake has begun, or whose client is about to send the first
/// byte, may still arrive for so long.
const LAST_ARRIVALS: Duration = Duration::from_millis(10);

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

    /// Graceful shutdown: no new connections, running handlers complete.
    pub fn drain(&mut self, service: &mut Service, log: &mut Log, now: Instant) {
        close_left_ports(service, now);
        log.notice("Initiate shutdown");
        service.handover.shut_down();
        for child in service.children.iter_mut() {
            child.note_turns(now);
            child.drain();
        }
    }

    /// Fast shutdown: workers are killed.
    pub fn kill(&mut self, service: &mut Service, now: Instant) {
        self.shutdown.kill(now);
        service.close_ports();
        service.children.iter().for_each(|child| child.kill(Signal::SIGKILL));
    }

    /// What is to be done while the server shuts down: ports are closed, and workers forked for what waits.
    pub fn advance(&mut self, service: &mut Service, log: &mut Log, now: Instant) -> Next {
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
                Advice::Fork if state.sizing.is_hopeless() => {
                    if service.children.of_pool(index).next().is_none() {
                        service.handover.close_queued(index);
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
    pub fn is_to_kill(
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

    /// Whether the server shuts down, no worker is left, and none is to be forked for what waits.
    pub fn is_over(&self, service: &Service) -> bool {
        let owes_service = self.shutdown.phase() == ServerPhase::Draining
            && (service.has_waiting() || service.has_closing_ports());
        !self.shutdown.serves() && service.children.is_empty() && !owes_service
    }

    /// All workers are gone: until when lingering connections still keep the server. None if there is
    /// nothing to wait for.
    pub fn outlast_clients(&mut self, service: &mut Service, now: Instant) -> Option<Instant> {
        (0..service.pools.len()).for_each(|index| service.handover.close_queued(index));
        let end = self.shutdown.lingers_until(now).filter(|_| service.handover.has_lingering());
        if end.is_none() && self.shutdown.phase() == ServerPhase::Draining {
            service.handover.end_lingering();
        }
        end
    }
}

/// Closes the ports that no other generation has.
pub fn close_left_ports(service: &mut Service, now: Instant) {
    for state in &mut service.pools {
        state.sizing.shutdown(now);
        state.ports.refuse();
    }
    close_ports(service, now + LAST_ARRIVALS);
}

/// Takes over what waits at the ports of all pools, and what arrives there until the given time; then
/// closes them. They stay open only if there is no descriptor for what waits there: false then.
fn close_ports(Service { pools, handover, .. }: &mut Service, until: Instant) -> bool {
    loop {
        if !pools.iter_mut().all(|state| take_waiting(state, handover)) {
            return false;
        }
        let mut ports: Vec<_> = pools.iter().flat_map(|state| state.ports.watched()).collect();
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        if ports.is_empty() || left == PollTimeout::ZERO || poll(&mut ports, left) == Ok(0) {
            break;
        }
    }
    pools.iter_mut().for_each(|state| state.ports.close());
    true
}

/// Takes over what waits at the ports of a pool. False if there is no descriptor for all of it.
fn take_waiting(state: &mut PoolState, handover: &mut Handover) -> bool {
    while handover.make_room() {
        match state.ports.take() {
            Taken::Connection(connection, proxied) => {
                state.note_accepted();
                handover.accepted(state.index, connection, proxied);
            }
            Taken::Nothing => return true,
            Taken::Exhausted => return false,
        }
    }
    false
}
