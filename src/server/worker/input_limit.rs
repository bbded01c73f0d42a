//! How much incomplete input the parked connections of a worker may hold that no other process can hold.

use std::rc::Rc;

use super::control::{Control, complain};
use super::ownership::Ownership;
use super::parking::ParkingLot;
use crate::server::ipc::pool_losses::PoolLoss;
use crate::server::log_text;

/// The limit.
pub struct InputLimit {
    /// In bytes.
    limit: usize,
    control: Rc<Control>,
}

impl InputLimit {
    /// So many bytes in all.
    pub fn new(limit: usize, control: Rc<Control>) -> Self {
        InputLimit { limit, control }
    }

    /// Closes the connections that have waited longest, as long as all hold more than they may.
    pub fn enforce(&self, parking: &mut ParkingLot, owned: &mut Ownership) {
        let (mut closed, limit) = (0, self.limit);
        while let Some((ticket, parked)) = parking.take_holder(&mut owned.places, limit) {
            owned.close(&parked.connection, Some(ticket));
            closed += 1;
        }
        if closed > 0
            && let Some(closed) = self.control.note_loss(PoolLoss::Input, closed)
        {
            let (connections, were) =
                (log_text::counted(closed, "waiting connection"), log_text::were(closed));
            complain(&format!(
                "{connections} {were} closed: together they held more than {limit} bytes of input"
            ));
        }
    }
}
