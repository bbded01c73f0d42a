//! Whether a worker takes its orders. An order that could not be sent is tried again; one that a worker
//! leaves unread though it could get on (it is frozen, or runs a handler for long) is taken back; a
//! worker that has nothing else to do and still leaves it unread does not answer any more.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::stretch::Stretch;
use crate::server::ipc::message::Order;

/// How soon it is looked at whether an order was taken.
const SOON: Duration = Duration::from_millis(20);

/// How often after that.
const LATER: Duration = Duration::from_millis(200);

/// With so much time of its own, a worker could have taken the order.
const ENOUGH: Duration = Duration::from_millis(14);

/// A worker that runs no handler and does not take an order for so long is given up.
const SILENCE: Duration = Duration::from_secs(3);

/// After this it is tried again to send an order.
const AGAIN: Duration = Duration::from_millis(10);

/// What is to be done about an unread order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Nothing yet.
    Wait,
    /// It is to be taken back.
    TakeBack,
    /// The worker is to be given up.
    GiveUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// An order was sent.
    Sent,
    /// It was unread at the first look.
    Unread,
    /// It was taken back, and another one shows when the worker gets on.
    TakenBack,
}

/// How a worker stands with its orders.
#[derive(Default)]
pub struct Attention {
    /// If an order may be unread, when to look.
    look: Option<(Instant, Phase)>,
    stretch: Stretch,
    /// When orders may be sent again, after one could not be.
    again: Option<Instant>,
    /// The order to end, which could not be sent yet.
    owed: Option<Order>,
}

impl Attention {
    /// An order was sent.
    pub fn sent(&mut self, now: Instant) {
        self.look.get_or_insert((now + SOON, Phase::Sent));
    }

    /// An order could not be sent. If it is one to end, it is owed.
    pub fn failed(&mut self, order: &Order, now: Instant) {
        self.again = Some(now + AGAIN);
        if matches!(order, Order::Terminate | Order::Drain) {
            self.owed = Some(order.clone());
        }
    }

    /// Whether orders can be sent now, as far as is known.
    pub fn can_be_told(&self, now: Instant) -> bool {
        self.again.is_none_or(|again| again <= now)
    }

    /// The order to end that is to be sent now.
    pub fn owed(&mut self, now: Instant) -> Option<Order> {
        if !self.can_be_told(now) {
            return None;
        }
        self.again = None;
        self.owed.take()
    }

    /// Whether to look if an order is unread.
    pub fn is_due(&self, now: Instant) -> bool {
        self.look.is_some_and(|(at, _)| at <= now)
    }

    /// No order is unread.
    pub fn taken(&mut self) {
        self.look = None;
    }

    /// An order is unread. `free`: the worker runs no handler that it would have to complete first.
    pub fn unread(&mut self, pid: Pid, free: bool, now: Instant) -> Advice {
        let Some((_, phase)) = self.look else { return Advice::Wait };
        let had = match phase {
            Phase::TakenBack if !free => {
                self.stretch.begin(pid, now);
                Duration::ZERO
            }
            Phase::Sent => {
                self.stretch.begin(pid, now);
                Duration::ZERO
            }
            Phase::Unread | Phase::TakenBack => self.stretch.look(pid, now),
        };
        let (phase, wait, advice) = match phase {
            Phase::TakenBack if had >= SILENCE => {
                self.stretch.begin(pid, now);
                (phase, LATER, Advice::GiveUp)
            }
            Phase::TakenBack => (phase, LATER, Advice::Wait),
            _ if had >= ENOUGH => (Phase::TakenBack, LATER, Advice::TakeBack),
            _ => (Phase::Unread, SOON, Advice::Wait),
        };
        self.look = Some((now + wait, phase));
        advice
    }

    /// When to look again.
    pub fn next(&self) -> Option<Instant> {
        self.look.map(|(at, _)| at).into_iter().chain(self.again).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unread_order_is_taken_back_and_its_worker_given_up() {
        // A process that does not exist: all time counts.
        let pid = Pid::from_raw(i32::MAX);
        let start = Instant::now();
        let at = |time| start + Duration::from_millis(time);
        let mut attention = Attention::default();
        assert_eq!(attention.next(), None);
        attention.sent(start);
        assert!(!attention.is_due(at(10)) && attention.is_due(at(20)));
        assert_eq!(attention.unread(pid, true, at(20)), Advice::Wait);
        assert_eq!(attention.unread(pid, true, at(40)), Advice::TakeBack);
        let mut time = 40;
        let end = loop {
            time += 200;
            match attention.unread(pid, time > 1000, at(time)) {
                Advice::Wait => {}
                advice => break (advice, time),
            }
        };
        assert_eq!(end, (Advice::GiveUp, 3840));
        attention.taken();
        assert_eq!(attention.next(), None);
    }

    #[test]
    fn an_order_to_end_that_could_not_be_sent_is_owed() {
        let start = Instant::now();
        let mut attention = Attention::default();
        attention.failed(&Order::Nothing, start);
        assert!(!attention.can_be_told(start) && attention.can_be_told(start + AGAIN));
        assert_eq!(attention.owed(start + AGAIN), None);
        attention.failed(&Order::Drain, start);
        assert_eq!((attention.owed(start), attention.next()), (None, Some(start + AGAIN)));
        assert_eq!(attention.owed(start + AGAIN), Some(Order::Drain));
        assert_eq!((attention.owed(start + AGAIN), attention.next()), (None, None));
    }
}
