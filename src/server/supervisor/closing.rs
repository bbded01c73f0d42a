//! The ports of all pools at a shutdown: what waits there is taken over, then they are closed.

use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};

use super::handover::Handover;
use super::pool::PoolState;
use super::ports::Taken;
use super::service::Service;

/// At a shutdown, connections whose handshake has begun, or whose client is about to send the first
/// byte, may still arrive for this time.
const LAST_ARRIVALS: Duration = Duration::from_millis(10);

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
pub fn close_ports(Service { pools, handover, .. }: &mut Service, until: Instant) -> bool {
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
    while handover.reception.make_room() {
        match state.ports.take() {
            Taken::Connection(connection, attributes) => {
                state.note_accepted();
                handover.reception.accepted(state.index, connection, *attributes);
            }
            Taken::Nothing => return true,
            Taken::Exhausted => return false,
        }
    }
    false
}
