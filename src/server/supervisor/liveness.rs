//! Workers that do not get on: the kernel holds or has frozen them while they have nothing to do, or a
//! signal has stopped them. What they were given goes to others; if that lasts, they are replaced.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::child::{Child, Life};
use super::children::Children;
use super::delivery::DeliveryAction;
use super::dispatch;
use super::handover::{Handover, WorkerId};
use super::pool::PoolState;
use crate::server::ipc::clock;
use crate::server::ipc::message::Order;
use crate::server::ipc::scoreboard::{Activity, Counter};
use crate::server::operator::log::{Level, Log};

/// The interval at which idle workers are checked for input that they ignore.
const LEASES: Duration = Duration::from_millis(100);

/// The interval at which ports are checked for connections that wait although workers are idle (the
/// kernel may have told one alone that does not get on), and at which workers are checked that nothing
/// else would tell of.
const PORTS: Duration = Duration::from_secs(1);

/// What to do about a worker that does not get on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LivenessAction {
    /// Take back what it was given.
    TakeBack(WorkerId),
    /// Give its connections to others.
    Revoke(WorkerId),
    /// Kill it.
    GiveUp(WorkerId),
}

/// When workers are checked.
pub struct Liveness {
    leases: Instant,
    ports: Instant,
}

impl Liveness {
    /// The first checks are due soon.
    pub fn new(now: Instant) -> Self {
        Liveness { leases: now, ports: now }
    }

    /// When the next check is due. Those of leases come with the samples of the load.
    pub fn next(&self, children: &Children, serves: bool, now: Instant) -> Option<Instant> {
        let orders = children.iter().filter_map(|child| child.delivery.next()).min();
        orders.into_iter().chain(serves.then_some(self.ports.max(now))).min()
    }

    /// Sends what workers are owed, and checks whether they take their orders.
    pub fn check_orders(&self, children: &mut Children, now: Instant) -> Vec<LivenessAction> {
        let mut actions = Vec::new();
        for child in children.iter_mut() {
            if let Some(order) = child.delivery.owed(now) {
                child.order(&order);
            }
            if child.delivery.is_due(now) {
                match child.check_orders(now) {
                    DeliveryAction::Wait => {}
                    DeliveryAction::TakeBack => {
                        actions.push(LivenessAction::TakeBack(child.worker))
                    }
                    DeliveryAction::GiveUp => actions.push(LivenessAction::GiveUp(child.worker)),
                }
            }
        }
        actions
    }

    /// Finds workers that are idle and ignore the input of their connections.
    pub fn check_leases(
        &mut self,
        children: &mut Children,
        handover: &Handover,
        now: Instant,
    ) -> Vec<LivenessAction> {
        if self.leases > now {
            return Vec::new();
        }
        self.leases = now + LEASES;
        let mut actions = Vec::new();
        for child in children.iter_mut() {
            let before = child.ignored.take();
            if handover.store().lease_count(child.pid()) == 0 || !is_idle_for(child, LEASES, now) {
                continue;
            }
            child.ignored = handover.with_unread_input(child.worker);
            let ignores = child.ignored.is_some() && child.ignored == before;
            if ignores && !child.clock.is_runnable() && child.prompt() {
                actions.push(LivenessAction::Revoke(child.worker));
            }
        }
        actions
    }

    /// Sends idle workers to the ports where connections wait all the same.
    pub fn check_ports(
        &mut self,
        children: &mut Children,
        handover: &Handover,
        pools: &mut [PoolState],
        now: Instant,
    ) {
        if self.ports > now {
            return;
        }
        self.ports = now + PORTS;
        test_workers(children, handover, now);
        for state in pools {
            let has_idle = children.of_pool(state.index).any(Child::is_idle);
            let neglected = has_idle && state.has_arrivals();
            let before = std::mem::replace(&mut state.neglected, neglected);
            if neglected && before {
                let idle = children.of_pool_mut(state.index).filter(|child| child.is_idle());
                for child in idle {
                    child.prompt();
                }
            } else if neglected {
                self.ports = now + LEASES;
            }
        }
    }
}

/// Gives an order, which shows whether they get on, to workers that a signal has stopped in a handler,
/// and to those that have long been idle though they have connections.
fn test_workers(children: &mut Children, handover: &Handover, now: Instant) {
    for child in children.iter_mut().filter(|child| child.is_serving()) {
        let cell = child.cell();
        let unknown = cell.get(Counter::Parked) + cell.get(Counter::Sending);
        let has_connections = unknown > 0 || handover.store().lease_count(child.pid()) > 0;
        if child.activity() == Activity::Busy && child.clock.is_stopped() {
            child.order(&Order::CheckPorts);
        } else if has_connections && is_idle_for(child, PORTS, now) {
            child.prompt();
        }
    }
}

fn is_idle_for(child: &Child, time: Duration, now: Instant) -> bool {
    child.activity() == Activity::Idle && clock::instant(child.cell().idle_since()) + time <= now
}

/// Deals with a worker that does not get on.
pub fn carry_out(
    action: LivenessAction,
    pools: &mut [PoolState],
    children: &mut Children,
    handover: &mut Handover,
    log: &mut Log,
) {
    let (LivenessAction::TakeBack(worker)
    | LivenessAction::Revoke(worker)
    | LivenessAction::GiveUp(worker)) = action;
    let state = &mut pools[worker.pool];
    let revokes = match action {
        LivenessAction::TakeBack(_) => take_back(worker, state, children, handover),
        LivenessAction::Revoke(_) => true,
        LivenessAction::GiveUp(_) => give_up(worker, state, children, log),
    };
    if revokes {
        dispatch::revoke(worker, usize::MAX, children, handover);
    }
}

/// A worker has left orders unread: others get what it was given. If it should react, another order shows
/// when it does: true.
fn take_back(
    worker: WorkerId,
    state: &mut PoolState,
    children: &mut Children,
    handover: &mut Handover,
) -> bool {
    let rest = dispatch::take_back(worker, state, children, handover);
    let Some(child) = children.get_mut(worker.pid) else { return false };
    rest.iter().for_each(|order| child.order(order));
    let should_react = child.should_react();
    match (rest.is_empty(), should_react) {
        (true, true) => child.order(&Order::CheckPorts),
        (true, false) => child.delivery.taken(),
        _ => {}
    }
    should_react
}

/// A worker that does not respond is killed. Should that have no effect, as the kernel holds the process,
/// it does not count any more.
fn give_up(
    worker: WorkerId,
    state: &mut PoolState,
    children: &mut Children,
    log: &mut Log,
) -> bool {
    let Some(child) = children.get_mut(worker.pid) else { return false };
    child.kill(Signal::SIGKILL);
    if std::mem::replace(&mut child.life, Life::Unresponsive) != Life::Unresponsive {
        state.sizing.ended();
        let text = "The worker does not react; it is killed";
        log.line(Level::Notice, &child.prefix(), text);
    }
    true
}
