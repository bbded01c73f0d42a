//! Whether it is worth to look for an answer for a moment before going to sleep.
//!
//! Who sleeps has to be woken: tens of microseconds on a processor that has nothing else to do, more
//! than a server on the same machine needs for an answer. Looking again and again costs as much
//! processor time as it takes, so it must be likely to succeed: only a connection whose last answers
//! came quickly is looked at, and only for as long as sleeping would cost.

use std::time::Duration;

/// For how long an answer is looked for.
pub const LOOK: Duration = Duration::from_micros(50);

/// An answer that was slept for came quickly if it came within this time, waking up included.
const QUICK: Duration = Duration::from_micros(100);

/// So much credit makes an answer be looked for; more than `MOST` is not collected.
const ENOUGH: i8 = 2;
const MOST: i8 = 8;
/// What an answer costs that was looked for in vain; and where it leads if not enough is left.
const LOSS: i8 = 6;
const DESPAIR: i8 = -16;

/// What the last answers of a connection say about the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    credit: i8,
}

impl Patience {
    /// Whether the next answer is to be looked for.
    pub fn looks(self) -> bool {
        self.credit >= ENOUGH
    }

    /// Learns how long an answer took; `looked`: it was looked for.
    ///
    /// An answer that was found late is one that others have delayed who want the processor: then it
    /// is better to sleep, too.
    #[must_use]
    pub fn after(self, took: Duration, looked: bool) -> Patience {
        let in_time = took <= if looked { LOOK } else { QUICK };
        let credit = match (in_time, looked) {
            (true, _) => self.credit.saturating_add(1).min(MOST),
            (false, true) if self.credit - LOSS < ENOUGH => DESPAIR,
            (false, true) => self.credit - LOSS,
            // Slow answers end what quick ones have begun.
            (false, false) => self.credit.min(0),
        };
        Patience { credit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` answers, each after `micros`, are looked for.
    fn looked_for(count: usize, micros: impl Fn(usize) -> u64) -> usize {
        let mut patience = Patience::default();
        let looked = (0..count).filter(|&index| {
            let looks = patience.looks();
            patience = patience.after(Duration::from_micros(micros(index)), looks);
            looks
        });
        looked.count()
    }

    #[test]
    fn quick_answers_are_looked_for_after_the_first_ones() {
        assert_eq!(looked_for(100, |_| 20), 98);
    }

    #[test]
    fn slow_answers_are_never_looked_for() {
        assert_eq!(looked_for(100, |_| 200), 0);
    }

    #[test]
    fn a_server_that_has_become_slow_costs_two_attempts() {
        let before = looked_for(50, |_| 20);
        assert_eq!(looked_for(100, |index| if index < 50 { 20 } else { 500 }), before + 2);
    }

    #[test]
    fn answers_that_come_a_little_too_late_are_seldom_looked_for() {
        assert_eq!(looked_for(100, |_| 80), 6);
    }

    #[test]
    fn a_late_answer_among_quick_ones_changes_nothing() {
        assert_eq!(looked_for(100, |index| if index % 10 == 9 { 5000 } else { 20 }), 98);
    }
}
