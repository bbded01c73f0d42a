//! Whether a worker takes its orders.
//!
//! | what happens | what follows |
//! |---|---|
//! | an order cannot be sent | if it is one to end or to serve, it is sent again after [`AGAIN`] |
//! | an order is unread although the worker could have got on (it is frozen, or runs a handler for long) | it is taken back |
//! | the worker runs no handler and still takes nothing | it is given up |

use std::time::{Duration, Instant};

use super::progress::{Clock, Progress};
use crate::server::ipc::message::Order;

/// The first two checks for unread orders come after this time.
const SOON: Duration = Duration::from_millis(20);

/// The interval of later checks.
const LATER: Duration = Duration::from_millis(200);

/// With so much time of its own, a worker could have taken the order.
const ENOUGH: Duration = Duration::from_millis(14);

/// A worker that runs no handler and takes no order within this time is given up.
const SILENCE: Duration = Duration::from_secs(3);

/// How long to wait after an order could not be sent.
const AGAIN: Duration = Duration::from_millis(10);

/// What to do about an unread order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryAction {
    /// Nothing yet.
    Wait,
    /// Take it back.
    TakeBack,
    /// Give the worker up.
    GiveUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// An order was sent.
    Sent,
    /// It was unread at the first check.
    Unread,
    /// It was taken back, and another one shows when the worker gets on.
    TakenBack,
}

/// The orders of one worker.
#[derive(Default)]
pub struct Delivery {
    /// If an order may be unread: when to check.
    check: Option<(Instant, Check)>,
    progress: Progress,
    /// When orders may be sent again, after one could not be.
    again: Option<Instant>,
    /// The order to end, or to serve, which could not be sent yet.
    owed: Option<Order>,
}

impl Delivery {
    /// An order was sent.
    pub fn sent(&mut self, now: Instant) {
        self.check.get_or_insert((now + SOON, Check::Sent));
    }

    /// An order could not be sent. If it is one to end or to serve, it is owed.
    pub fn failed(&mut self, order: &Order, now: Instant) {
        self.again = Some(now + AGAIN);
        if matches!(order, Order::Terminate | Order::Drain | Order::Serve) {
            self.owed = Some(order.clone());
        }
    }

    /// Whether orders can be sent now, as far as is known.
    pub fn is_open(&self, now: Instant) -> bool {
        self.again.is_none_or(|again| again <= now)
    }

    /// The order to end or to serve that is to be sent now.
    pub fn owed(&mut self, now: Instant) -> Option<Order> {
        if !self.is_open(now) {
            return None;
        }
        self.again = None;
        self.owed.take()
    }

    /// Whether to check for unread orders.
    pub fn is_due(&self, now: Instant) -> bool {
        self.check.is_some_and(|(at, _)| at <= now)
    }

    /// No order is unread.
    pub fn taken(&mut self) {
        self.check = None;
    }

    /// An order is unread. `free`: the worker runs no handler that it would have to complete first.
    pub fn unread(&mut self, clock: &mut Clock, free: bool, now: Instant) -> DeliveryAction {
        let Some((_, phase)) = self.check else { return DeliveryAction::Wait };
        let begins = phase == Check::Sent || (phase == Check::TakenBack && !free);
        let had = if begins {
            self.progress.begin(clock, now);
            Duration::ZERO
        } else {
            self.progress.sample(clock, now)
        };
        let (phase, wait, advice) = match phase {
            Check::TakenBack if had >= SILENCE => {
                self.progress.begin(clock, now);
                (phase, LATER, DeliveryAction::GiveUp)
            }
            Check::TakenBack => (phase, LATER, DeliveryAction::Wait),
            _ if had >= ENOUGH => (Check::TakenBack, LATER, DeliveryAction::TakeBack),
            _ => (Check::Unread, SOON, DeliveryAction::Wait),
        };
        self.check = Some((now + wait, phase));
        advice
    }

    /// When something is due.
    pub fn next(&self) -> Option<Instant> {
        self.check.map(|(at, _)| at).into_iter().chain(self.again).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unread_order_is_taken_back_and_its_worker_given_up() {
        // A process that does not exist: all time counts.
        let clock = &mut Clock::new(nix::unistd::Pid::from_raw(i32::MAX));
        let start = Instant::now();
        let at = |time| start + Duration::from_millis(time);
        let mut delivery = Delivery::default();
        assert_eq!(delivery.next(), None);
        delivery.sent(start);
        assert!(!delivery.is_due(at(10)) && delivery.is_due(at(20)));
        assert_eq!(delivery.unread(clock, true, at(20)), DeliveryAction::Wait);
        assert_eq!(delivery.unread(clock, true, at(40)), DeliveryAction::TakeBack);
        let mut time = 40;
        let end = loop {
            time += 200;
            match delivery.unread(clock, time > 1000, at(time)) {
                DeliveryAction::Wait => {}
                advice => break (advice, time),
            }
        };
        assert_eq!(end, (DeliveryAction::GiveUp, 3840));
        delivery.taken();
        assert_eq!(delivery.next(), None);
    }

    #[test]
    fn an_order_to_end_that_could_not_be_sent_is_owed() {
        let start = Instant::now();
        let mut delivery = Delivery::default();
        delivery.failed(&Order::Nothing, start);
        assert!(!delivery.is_open(start) && delivery.is_open(start + AGAIN));
        assert_eq!(delivery.owed(start + AGAIN), None);
        delivery.failed(&Order::Drain, start);
        assert_eq!((delivery.owed(start), delivery.next()), (None, Some(start + AGAIN)));
        assert_eq!(delivery.owed(start + AGAIN), Some(Order::Drain));
        assert_eq!((delivery.owed(start + AGAIN), delivery.next()), (None, None));
    }
}
