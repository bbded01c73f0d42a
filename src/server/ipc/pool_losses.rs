//! Connections that the workers of a pool could not keep, counted in shared memory. The worker that closes one tells
//! the log why; of others within a minute, the supervisor tells the number.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use crate::server::log_throttle::INTERVAL;

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum PoolLoss {
    /// It had no valid PROXY header.
    ProxyHeader,
    /// Its TLS handshake has failed.
    Handshake,
    /// Parked connections held too much input.
    Input,
}

impl PoolLoss {
    /// All of them.
    pub const ALL: [PoolLoss; 3] = [PoolLoss::ProxyHeader, PoolLoss::Handshake, PoolLoss::Input];
}

/// Words of a count.
pub const COUNT: usize = 3;

/// How many there were, how many of them the log has told of, and when it last did; 0: long ago.
const TOTAL: usize = 0;
const TOLD: usize = 1;
const TOLD_AT: usize = 2;

/// A count. Times are milliseconds of the shared clock.
#[derive(Clone, Copy)]
pub struct LossCount<'a>(&'a [AtomicU64]);

impl<'a> LossCount<'a> {
    /// The count in this memory of [`COUNT`] words.
    pub fn over(words: &'a [AtomicU64]) -> Self {
        LossCount(words)
    }

    /// The worker's side: so many more. Returns the number that the log is to mention now, if it is time.
    pub fn note(&self, more: u64, now: u64) -> Option<u64> {
        self.0[TOTAL].fetch_add(more, SeqCst);
        let told_at = self.0[TOLD_AT].load(SeqCst);
        if told_at != 0 && now < due(told_at) {
            return None;
        }
        // Of several workers one tells.
        self.0[TOLD_AT].compare_exchange(told_at, now.max(1), SeqCst, SeqCst).ok()?;
        self.untold()
    }

    /// The supervisor's side: the number that the log is to mention now, if it is time, or if this is the last
    /// occasion.
    pub fn rest(&self, now: u64, is_last: bool) -> Option<u64> {
        let told_at = self.0[TOLD_AT].load(SeqCst);
        if told_at == 0 || (now < due(told_at) && !is_last) {
            return None;
        }
        // A worker that counts from now on tells by itself, so the count is read after that.
        self.0[TOLD_AT].compare_exchange(told_at, 0, SeqCst, SeqCst).ok()?;
        let rest = self.untold()?;
        let _ = self.0[TOLD_AT].compare_exchange(0, now.max(1), SeqCst, SeqCst);
        Some(rest)
    }

    /// The supervisor's side: when to ask again.
    pub fn next(&self, now: u64) -> Option<u64> {
        let told_at = self.0[TOLD_AT].load(SeqCst);
        // A worker may have scribbled over it.
        (told_at != 0).then(|| due(told_at).clamp(now, due(now)))
    }

    /// How many there were so far.
    pub fn total(&self) -> u64 {
        self.0[TOTAL].load(SeqCst)
    }

    fn untold(&self) -> Option<u64> {
        let total = self.total();
        let told = self.0[TOLD].fetch_max(total, SeqCst);
        Some(total.saturating_sub(told)).filter(|untold| *untold > 0)
    }
}

fn due(told_at: u64) -> u64 {
    told_at.saturating_add(INTERVAL.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> [AtomicU64; COUNT] {
        Default::default()
    }

    #[test]
    fn losses_are_told_once_a_minute() {
        let words = words();
        let count = LossCount::over(&words);
        assert_eq!((count.rest(0, true), count.next(0)), (None, None));
        assert_eq!(count.note(1, 0), Some(1));
        assert_eq!((count.note(2, 59_999), count.rest(59_999, false)), (None, None));
        assert_eq!(count.note(1, 60_001), Some(3));
        assert_eq!((count.total(), count.next(60_002)), (4, Some(120_001)));
    }

    #[test]
    fn what_no_worker_tells_of_the_supervisor_does() {
        let words = words();
        let count = LossCount::over(&words);
        assert_eq!((count.note(1, 1), count.note(5, 2)), (Some(1), None));
        assert_eq!((count.rest(60_000, false), count.rest(60_001, false)), (None, Some(5)));
        assert_eq!((count.note(2, 60_002), count.next(60_002)), (None, Some(120_001)));
        assert_eq!((count.rest(60_003, true), count.rest(60_003, true)), (Some(2), None));
    }

    #[test]
    fn after_a_minute_without_losses_the_next_one_is_told_at_once() {
        let words = words();
        let count = LossCount::over(&words);
        assert_eq!(count.note(1, 1), Some(1));
        assert_eq!((count.rest(60_001, false), count.next(60_001)), (None, None));
        assert_eq!(count.note(1, 60_002), Some(1));
    }

    #[test]
    fn a_worker_that_scribbles_does_not_keep_the_supervisor_busy() {
        let words = words();
        let count = LossCount::over(&words);
        for scribbled in [u64::MAX, 1 << 40] {
            words[TOLD_AT].store(scribbled, SeqCst);
            assert_eq!((count.rest(5, false), count.next(5)), (None, Some(60_005)));
        }
    }
}
