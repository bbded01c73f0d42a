//! How much incomplete input the parked connections of a worker may hold that no other process can hold.

use std::time::Instant;

use super::control::complain;
use super::ownership::Ownership;
use super::parking::ParkingLot;
use crate::server::log_text;
use crate::server::log_throttle::LogThrottle;

/// The limit, and the connections that it has cost.
pub struct InputLimit {
    /// In bytes.
    limit: usize,
    closed: LogThrottle,
}

impl InputLimit {
    /// So many bytes in all.
    pub fn new(limit: usize) -> Self {
        InputLimit { limit, closed: LogThrottle::default() }
    }

    /// Closes the connections that have waited longest, as long as all hold more than they may.
    pub fn enforce(&mut self, parking: &mut ParkingLot, owned: &mut Ownership) {
        let (mut closed, limit) = (0, self.limit);
        while let Some((ticket, parked)) = parking.take_holder(&mut owned.places, limit) {
            owned.close(&parked.connection, Some(ticket));
            closed += 1;
        }
        if closed > 0
            && let Some(closed) = self.closed.count(closed, Instant::now())
        {
            let closed = closed as u64;
            let (connections, were) =
                (log_text::counted(closed, "waiting connection"), log_text::were(closed));
            complain(&format!(
                "{connections} {were} closed: together they held more than {limit} bytes of input"
            ));
        }
    }
}
