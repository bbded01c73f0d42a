//! What a worker is doing, for the log.

use std::time::Instant;

use super::pool_state::PoolState;
use super::worker_entry::{Life, WorkerEntry};
use crate::server::ipc::scoreboard::{Activity, Counter};
use crate::server::listen::listener::Listener;

/// What a worker is doing, and for how long as far as the supervisor has seen.
pub fn doing(state: &PoolState, worker: &WorkerEntry, now: Instant) -> String {
    let cell = state.pool.scoreboard.cell(worker.cell);
    let sending = cell.get(Counter::Sending);
    let what = match (worker.running(), cell.activity()) {
        (Some(listener), _) => match state.pool.listeners.get(listener as usize) {
            Some(Listener::Interval { name, .. }) => format!("runs interval \"{name}\""),
            Some(Listener::Main { name }) => format!("runs main \"{name}\""),
            _ => "runs its handler".to_owned(),
        },
        (None, Activity::Starting) => {
            let time = now.saturating_duration_since(worker.forked).as_secs();
            return format!("runs prepare for {time} s");
        }
        (None, Activity::Finishing) => "runs finish".to_owned(),
        (None, Activity::Ended) => "runs finalizers".to_owned(),
        (None, Activity::Busy) if worker.life != Life::Serving && sending > 0 => {
            let clients = if sending == 1 { "client" } else { "clients" };
            format!("sends output to {sending} slow {clients}")
        }
        (None, Activity::Busy) => match state.pool.scoreboard.note(worker.cell).read() {
            request if request.is_empty() => "runs its handler".to_owned(),
            request => format!("serves {request}"),
        },
        (None, Activity::Idle | Activity::Claimed | Activity::Offering) => {
            "has nothing to do, or does not answer".to_owned()
        }
    };
    match worker.same_turn_for(cell.turns(), now) {
        Some(time) => format!("{what} for at least {} s", time.as_secs()),
        None => what,
    }
}
