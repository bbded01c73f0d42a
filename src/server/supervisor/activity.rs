//! What a worker is doing, for the log.

use std::time::Instant;

use super::child::Child;
use crate::server::ipc::request_record;
use crate::server::ipc::scoreboard::{Activity, Counter};
use crate::server::listen::listener::Listener;
use crate::server::listen::spec::ListenerSpec;
use crate::server::log_text;

/// What a worker is doing, and for how long as far as the supervisor has seen. `listeners`: those of its
/// pool.
pub fn describe(child: &Child, listeners: &[Listener], now: Instant) -> String {
    let sending = child.cell().get(Counter::Sending);
    let mut id = String::new();
    let what = match (child.running, child.activity()) {
        (Some(listener), _) => match listeners.get(listener as usize).map(|it| &it.spec) {
            Some(ListenerSpec::Interval { name, .. }) => format!("runs interval \"{name}\""),
            Some(ListenerSpec::Main { name }) => format!("runs main \"{name}\""),
            _ => "runs its handler".to_owned(),
        },
        (None, Activity::Starting) => {
            let time = now.saturating_duration_since(child.forked).as_secs();
            return format!("runs prepare for {time} s");
        }
        (None, Activity::Finishing) => "runs finish".to_owned(),
        (None, Activity::Ended) => "runs finalizers".to_owned(),
        (None, Activity::Busy | Activity::Idle) if !child.is_serving() && sending > 0 => {
            let clients = if sending == 1 { "client" } else { "clients" };
            format!("sends output to {sending} slow {clients}")
        }
        (None, Activity::Busy) => match request_record::decode_opening(&child.request()) {
            Ok((request, _)) => {
                id = log_text::id_of(&request);
                format!("serves {}", log_text::path_of(&request))
            }
            Err(_) => "runs its handler".to_owned(),
        },
        (None, Activity::Idle | Activity::Claimed | Activity::Offering) => {
            "has nothing to do, or does not answer".to_owned()
        }
    };
    match child.same_turn_for(now) {
        Some(time) => format!("{what} for at least {} s{id}", time.as_secs()),
        None => what + &id,
    }
}
