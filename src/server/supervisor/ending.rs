//! What the supervisor does at the end of the server. It concerns all parts; how far the end has come is
//! kept by [`Shutdown`](super::shutdown::Shutdown).

use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use nix::sys::signal::Signal;

use super::handover::Handover;
use super::pool::PoolState;
use super::ports::Taken;
use super::shutdown::ServerPhase;
use super::sizing::Advice;
use super::{Next, Supervisor, activity};
use crate::server::listen::spec::ListenerSpec;
use crate::server::operator::log::Level;

/// At a shutdown, connections whose handshake has begun, or whose client is about to send the first
/// byte, may still arrive for so long.
const LAST_ARRIVALS: Duration = Duration::from_millis(10);

/// If descriptors are short, connections that wait at the ports are asked for again after this.
const ASK_AGAIN: Duration = Duration::from_millis(50);

impl Supervisor {
    /// A main listener's handler has returned, or its worker has ended without that: the server ends,
    /// unless it was about to.
    pub(super) fn main_ended(&mut self, pool: usize, listener: u32, well: bool) {
        if self.shutdown.phase() == ServerPhase::Killing {
            return;
        }
        let name = match self.pools[pool].pool.listeners.get(listener as usize).map(|it| &it.spec) {
            Some(ListenerSpec::Main { name }) if !name.is_empty() => format!(" \"{name}\""),
            _ => String::new(),
        };
        if well {
            self.log.notice(&format!("The main listener{name} has ended, and with it the server"));
        } else {
            self.shutdown.fail();
            self.log.notice(&format!("The main listener{name} has failed, and with it the server"));
        }
        if self.shutdown.serves() {
            self.drain();
        }
    }

    /// The server is told to end: it does so at once, or serves on for `drain_delay`. Told again, it does not
    /// wait any longer.
    pub(super) fn leave(&mut self) {
        match self.shutdown.leave(Instant::now()) {
            Some(delay) if !self.replaced => {
                self.announce_end(false);
                let seconds = delay.as_secs_f64();
                self.log
                    .notice(&format!("Shutdown in {seconds} s: the server is not ready any more"));
            }
            _ => self.drain(),
        }
    }

    /// Graceful shutdown: no new connections, running handlers complete.
    pub(super) fn drain(&mut self) {
        let now = Instant::now();
        if self.replaced || !self.shutdown.drain(now) {
            return self.log.notice("Shutdown already in progress");
        }
        self.announce_end(false);
        self.close_left_ports(now);
        self.log.notice("Initiate shutdown");
        self.handover.shut_down();
        for child in self.children.iter_mut() {
            child.note_turns(now);
            child.drain();
        }
    }

    /// Closes the ports that no other generation has.
    pub(super) fn close_left_ports(&mut self, now: Instant) {
        for state in &mut self.pools {
            state.sizing.shutdown(now);
            state.ports.refuse();
        }
        close_ports(&mut self.pools, &mut self.handover, now + LAST_ARRIVALS);
    }

    /// Fast shutdown: workers are killed.
    pub(super) fn kill_all(&mut self, now: Instant) {
        self.announce_end(true);
        self.shutdown.kill(now);
        self.pools.iter_mut().for_each(|state| state.ports.close());
        self.children.iter().for_each(|child| child.kill(Signal::SIGKILL));
    }

    /// What is to be done while the server shuts down: ports are closed, workers forked for what waits,
    /// and what takes too long is killed.
    pub(super) fn advance_shutdown(&mut self, now: Instant, wake: Option<Instant>) -> Next {
        if self.shutdown.is_overdue(now) {
            self.end_overdue(now);
        }
        let mut wake = wake.into_iter().chain(self.shutdown.due()).min();
        if self.shutdown.phase() == ServerPhase::Killing {
            return Next::Wait(wake);
        }
        if self.pools.iter().any(|state| state.ports.are_closing())
            && !close_ports(&mut self.pools, &mut self.handover, now)
        {
            if self.children.is_empty() && !self.has_waiting() {
                // No descriptor will become free by waiting.
                self.pools.iter_mut().for_each(|state| state.ports.close());
            }
            wake = wake.into_iter().chain([now + ASK_AGAIN]).min();
        }
        for index in 0..self.pools.len() {
            let state = &self.pools[index];
            match state.advise_shutdown(&self.children, self.handover.store().queued(index), now) {
                Advice::Fork if state.sizing.is_hopeless() => {
                    if self.children.of_pool(index).next().is_none() {
                        self.handover.close_queued(index);
                    }
                }
                Advice::Fork => {
                    if let Some(start) = self.fork(index, now) {
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

    /// The shutdown has lasted too long: what still runs is killed, and named. What cannot even be killed
    /// is left behind.
    fn end_overdue(&mut self, now: Instant) {
        let killed = self.shutdown.phase() == ServerPhase::Killing;
        let what = if killed { "Left behind" } else { "Killed" };
        if !killed {
            let whose = if self.is_replaced() { "of the old generation " } else { "" };
            self.log.notice(&format!("Shutdown timeout: what still runs {whose}is killed"));
        }
        let mut children: Vec<_> = self.children.iter().collect();
        children.sort_by_key(|child| (child.worker.pool, child.pid()));
        for child in children {
            let listeners = &self.pools[child.worker.pool].pool.listeners;
            let activity = activity::describe(child, listeners, now);
            self.log.line(Level::Notice, &child.prefix(), &format!("{what}: {activity}"));
        }
        if killed {
            self.children.clear();
        } else {
            self.kill_all(now);
        }
    }

    /// Whether connections wait for a worker, or for a last request.
    fn has_waiting(&self) -> bool {
        let store = self.handover.store();
        (0..self.pools.len()).any(|index| store.queued(index) > 0 || store.waiting(index) > 0)
    }

    /// Whether the server shuts down, no worker is left, and none is to be forked for what waits.
    pub(super) fn is_over(&mut self) -> bool {
        if self.awaits_generation() {
            return false;
        }
        let owes_service = self.shutdown.phase() == ServerPhase::Draining
            && (self.has_waiting() || self.pools.iter().any(|state| state.ports.are_closing()));
        !self.shutdown.serves() && self.children.is_empty() && !owes_service
    }

    /// All workers are gone: until when lingering connections still keep the server. None if there is
    /// nothing to wait for.
    pub(super) fn outlast_clients(&mut self, now: Instant) -> Option<Instant> {
        (0..self.pools.len()).for_each(|index| self.handover.close_queued(index));
        let end = self.shutdown.lingers_until(now).filter(|_| self.handover.has_lingering());
        if end.is_none() && self.shutdown.phase() == ServerPhase::Draining {
            self.handover.end_lingering();
        }
        end
    }

    /// What stays to be done in the supervisor when all workers are gone.
    pub fn close(&mut self) {
        self.notifier.stopping();
        if let Some(access_log) = self.access_log.take() {
            access_log.close();
        }
        self.log.settle();
        if self.is_candidate() {
            // The ports are those of the generation that serves.
            return;
        }
        if self.is_replaced() {
            return self.pools.iter_mut().for_each(|state| state.ports.close());
        }
        self.status.end();
        if self.shutdown.phase() == ServerPhase::Draining {
            self.log.notice("All worker threads have terminated");
        }
        self.pools.iter_mut().for_each(|state| state.ports.close());
        let code = self.shutdown.exit_code();
        self.log.notice(&format!("Terminating with exit code {code}"));
    }
}

/// Takes over what waits at the ports of all pools, and what arrives there until the given time; then
/// closes them. They stay open only if there is no descriptor for what waits there: false then.
fn close_ports(pools: &mut [PoolState], handover: &mut Handover, until: Instant) -> bool {
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
            Taken::Connection(connection) => {
                state.note_accepted();
                handover.accepted(state.index, connection);
            }
            Taken::Nothing => return true,
            Taken::Exhausted => return false,
        }
    }
    false
}
