//! How a connection is parked: what of it other processes can have, and whether it is woken at once.

use super::connection::Stay;
use crate::io::{Stream, Wakeup};
use crate::server::ipc::message::MAX_PAYLOAD;
use crate::sys::os::monotonic::MonotonicTime;

/// What decides how a connection is parked.
pub struct ParkingTerms {
    /// A handler can use its input.
    pub has_input: bool,
    /// How much this process has received of its input.
    received: usize,
    /// It stays in this process, whatever happens.
    pub is_bound: bool,
    /// The handler has told the client that the connection ends.
    is_last: bool,
}

impl ParkingTerms {
    /// Those of a connection as it is now.
    pub fn of(stream: &mut Stream) -> Self {
        ParkingTerms {
            is_bound: !stream.is_movable(),
            is_last: stream.handler.last,
            has_input: stream.has_input(),
            received: stream.duplex.unread(),
        }
    }

    /// Its input is no complete request. The rest may come at once.
    fn lacks_input(&self) -> bool {
        !self.has_input && self.received > 0
    }

    /// Whether the supervisor is to have it, or a lease of it: not while the rest of its input may come at once.
    pub fn are_shared(&self) -> bool {
        !self.lacks_input() && !self.is_bound
    }

    /// How it is parked until the deadline, and why it is woken at once. `drains`: the server shuts down.
    pub fn stay(
        &self,
        since: MonotonicTime,
        deadline: Option<MonotonicTime>,
        drains: bool,
    ) -> (Stay, Option<Wakeup>) {
        let lacks_input = self.lacks_input();
        let incomplete = lacks_input && self.received < MAX_PAYLOAD && !self.is_bound;
        // A client that is never quiet must not keep the server from ending.
        let over = drains && self.is_last && !incomplete;
        let stay = Stay {
            since,
            deadline: if over { Some(since) } else { deadline },
            // A duplicate of the descriptor does not have the input that was received.
            movable: self.received == 0 && !self.is_bound,
            incomplete,
            holds: if lacks_input && !incomplete { self.received } else { 0 },
        };
        let wakeup = match over {
            true => Some(Wakeup::Shutdown),
            false => self.has_input.then_some(Wakeup::Input),
        };
        (stay, wakeup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: ParkingTerms =
        ParkingTerms { has_input: false, received: 0, is_bound: false, is_last: false };

    /// Movable, incomplete, bytes held, over, and why it is woken.
    fn parked(terms: &ParkingTerms, drains: bool) -> (bool, bool, usize, bool, Option<Wakeup>) {
        let now = MonotonicTime::now();
        let (stay, wakeup) = terms.stay(now, None, drains);
        (stay.movable, stay.incomplete, stay.holds, stay.deadline == Some(now), wakeup)
    }

    #[test]
    fn an_idle_connection_is_shared_and_can_be_taken() {
        assert!(IDLE.are_shared());
        assert_eq!(parked(&IDLE, false), (true, false, 0, false, None));
    }

    #[test]
    fn a_request_that_is_there_wakes_it_and_keeps_it_here() {
        let terms = ParkingTerms { has_input: true, received: 20, ..IDLE };
        assert!(terms.are_shared());
        assert_eq!(parked(&terms, false), (false, false, 0, false, Some(Wakeup::Input)));
    }

    #[test]
    fn half_a_request_waits_here_for_the_rest() {
        let terms = ParkingTerms { received: 20, ..IDLE };
        assert!(!terms.are_shared());
        assert_eq!(parked(&terms, false), (false, true, 0, false, None));
    }

    #[test]
    fn input_that_no_other_process_can_have_counts_as_held() {
        let large = ParkingTerms { received: MAX_PAYLOAD, ..IDLE };
        assert_eq!(parked(&large, false), (false, false, MAX_PAYLOAD, false, None));
        let bound = ParkingTerms { received: 20, is_bound: true, ..IDLE };
        assert!(!bound.are_shared());
        assert_eq!(parked(&bound, false), (false, false, 20, false, None));
    }

    #[test]
    fn at_a_shutdown_a_connection_ends_whose_client_knows_that_it_does() {
        let last = ParkingTerms { is_last: true, ..IDLE };
        assert_eq!(parked(&last, false), (true, false, 0, false, None));
        assert_eq!(parked(&last, true), (true, false, 0, true, Some(Wakeup::Shutdown)));
        assert_eq!(parked(&IDLE, true), (true, false, 0, false, None));
        let half = ParkingTerms { received: 20, ..last };
        assert_eq!(parked(&half, true), (false, true, 0, false, None), "its rest may come");
    }
}
