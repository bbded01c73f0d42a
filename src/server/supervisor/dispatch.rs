//! What waits for a worker goes to workers that have time: ticks first, then connections.

use std::time::Instant;

use super::balance;
use super::child::Child;
use super::children::Children;
use super::handover::connection::Reserved;
use super::handover::{Given, Handover, WorkerId};
use super::pool::PoolState;
use crate::server::ipc::message::Order;
use crate::server::ipc::scoreboard::Counter;

/// Hands what waits in a pool to its idle workers. Returns when to try again.
pub fn assign(
    state: &mut PoolState,
    children: &mut Children,
    handover: &mut Handover,
    now: Instant,
) -> Option<Instant> {
    let next_tick = state.timers.advance(now);
    while has_work(state, handover) {
        let Some(child) = claim_idle(state, children, handover, now) else { break };
        if !give_work(state, child, handover, now) {
            child.cell().release();
        }
    }
    // The flag is raised before the second check, so that no worker that becomes idle in between is
    // missed.
    let waits = has_work(state, handover);
    state.pool.scoreboard.want_offers(waits);
    if waits && !idle(state, children, handover, now).is_empty() {
        return Some(now);
    }
    next_tick.into_iter().chain(handover.store().released(state.index, now)).min()
}

/// A worker has time: it gets what waits for one, or leave to go on.
pub fn answer_offer(
    state: &mut PoolState,
    child: &mut Child,
    handover: &mut Handover,
    serves: bool,
) {
    if !serves {
        state.timers.give_up();
    } else if !child.is_serving() {
        // It was told to end before it had made its offer, and would drop what it gets.
        return child.order(&Order::Nothing);
    }
    give_work(state, child, handover, Instant::now());
}

/// Gives other workers, if there are any, up to that many of the connections that a worker has parked.
pub fn revoke(worker: WorkerId, most: usize, children: &Children, handover: &mut Handover) {
    let until = Instant::now() + balance::INTERVAL;
    let has_peers =
        children.of_pool(worker.pool).any(|other| other.pid() != worker.pid && other.is_serving());
    let reserved = if has_peers { Reserved::Against(worker.pid, until) } else { Reserved::No };
    handover.revoke(worker, most, reserved);
}

/// Takes back the connections and ticks that a worker was given and has not taken. Returns its other orders,
/// which it has not taken either.
pub fn take_back(
    worker: WorkerId,
    state: &mut PoolState,
    children: &mut Children,
    handover: &mut Handover,
) -> Vec<Order> {
    let mut rest = Vec::new();
    for order in children.take_back(worker.pid) {
        match order {
            Order::Run(listener) => {
                state.timers.take_back(listener);
                if let Some(child) = children.get_mut(worker.pid) {
                    child.running = None;
                }
            }
            Order::Resume(number, wakeup, connection) => {
                handover.left_unread(worker, number, wakeup, *connection);
            }
            Order::Terminate | Order::Drain | Order::Serve => rest.push(order),
            Order::Nothing | Order::CheckPorts => {}
        }
    }
    rest
}

fn has_work(state: &PoolState, handover: &Handover) -> bool {
    state.timers.due().is_some() || handover.store().queued(state.index) > 0
}

/// The idle workers of a pool that may have something that waits: those with the fewest connections
/// first, so that connections spread.
fn idle(state: &PoolState, children: &Children, handover: &Handover, now: Instant) -> Vec<i32> {
    let is_tick = state.timers.due().is_some();
    let mut idle: Vec<&Child> = children
        .of_pool(state.index)
        .filter(|child| child.is_idle() && child.delivery.is_open(now))
        .filter(|child| is_tick || handover.has_for(child.worker, now))
        .collect();
    idle.sort_by_cached_key(|child| {
        child.cell().get(Counter::Parked) + handover.store().lease_count(child.pid()) as u64
    });
    idle.into_iter().map(Child::pid).collect()
}

/// Reserves one of them.
fn claim_idle<'a>(
    state: &PoolState,
    children: &'a mut Children,
    handover: &Handover,
    now: Instant,
) -> Option<&'a mut Child> {
    let idle = idle(state, children, handover, now);
    let claim = |pid: &i32| children.get(*pid).is_some_and(|child| child.cell().claim());
    let pid = idle.into_iter().find(claim)?;
    children.get_mut(pid)
}

/// Gives a worker that has time a tick, or else a connection. If nothing waits that it may have, it gets
/// leave to go on. False if nothing could be sent: the worker goes on waiting then.
fn give_work(
    state: &mut PoolState,
    child: &mut Child,
    handover: &mut Handover,
    now: Instant,
) -> bool {
    if let Some(listener) = state.timers.due() {
        let sent = child.run(listener);
        if sent {
            state.timers.started(listener);
        }
        return sent;
    }
    match handover.give(child.worker, now, |order, descriptors| child.send(order, descriptors)) {
        Given::Sent => true,
        Given::Failed => false,
        Given::Nothing => {
            child.order(&Order::Nothing);
            true
        }
    }
}
