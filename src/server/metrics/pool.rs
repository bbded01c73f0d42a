//! What is counted for each pool, in a [`Block`]. Its workers write to different cache lines as far as there are
//! enough, each with single additions, so that nothing is lost when one dies. The supervisor adds what it knows.

use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::area::{Area, Block, LINE};
use super::buckets::LogLinear;

/// Parts of the block that workers share out among themselves.
const STRIPES: usize = 16;

/// Statuses of refusals; all others count as the last one, 0.
pub const REFUSALS: [u16; 12] = [400, 408, 413, 414, 415, 417, 421, 431, 500, 501, 505, 0];

/// Why a worker had to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// It ended gracefully: its handler has not returned true, it was recycled, or idle for too long.
    Ended,
    /// Its handler has thrown, or `prepare` has failed: exit code 1.
    Error,
    /// It has called `os.exit`.
    Exit,
    /// The time of `timeout` was up.
    Timeout,
    /// It did not react, and was killed.
    Unresponsive,
    /// Another signal has killed it.
    Signal,
}

/// All reasons and their names.
pub const REASONS: [(Reason, &str); 6] = [
    (Reason::Ended, "ended"),
    (Reason::Error, "error"),
    (Reason::Exit, "exit"),
    (Reason::Timeout, "timeout"),
    (Reason::Unresponsive, "unresponsive"),
    (Reason::Signal, "signal"),
];

/// What only the supervisor counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Supervised {
    /// Connections that it has accepted itself, at a shutdown.
    Accepted = ACCEPTED,
    /// Parked connections that were closed for lack of descriptors or memory.
    Shed = SHED,
    /// Parked connections that moved to another worker.
    Reclaimed,
    /// Connections that broke off with their worker.
    Lost,
    /// Connections without a valid PROXY header.
    ProxyErrors,
    /// Processor time of ended workers in user mode, in microseconds.
    User,
    /// The same in the kernel.
    System,
    /// Workers that have ended: tells readers that the times have changed.
    Reaped,
}

// The words of a stripe.
const ACCEPTED: usize = 0;
const SILENT: usize = 1;
const ERRORS: usize = 2;
const REFUSED: usize = 3;
const QUEUED: usize = REFUSED + REFUSALS.len();
const RUN: usize = QUEUED + TIME_WORDS;
const SENT: usize = RUN + TIME_WORDS;
const SHED: usize = SENT + SIZE_WORDS;
const RESPAWNS: usize = SHED + 7;
const STRIPE: usize = (RESPAWNS + REASONS.len()).next_multiple_of(LINE);

/// Bounds of times in nanoseconds, from 10 µs to 75 s, and of sizes in bytes, from 100 to 750 million.
const TIMES: usize = 28;
const SIZES: usize = 28;
static TIME_BOUNDS: LogLinear<TIMES> = LogLinear::from(10_000);
static SIZE_BOUNDS: LogLinear<SIZES> = LogLinear::from(100);
const NANOSECONDS: f64 = 1e9;

/// A sum, and one bucket more than bounds.
const TIME_WORDS: usize = TIMES + 2;
const SIZE_WORDS: usize = SIZES + 2;

/// The counters of a pool.
#[derive(Clone)]
pub struct PoolCounters(Block);

/// A worker's part of them.
#[derive(Clone)]
pub struct Meter(Block);

/// A histogram as read.
pub struct Histogram {
    /// The bounds, in seconds or bytes.
    pub bounds: Vec<f64>,
    /// One count more than bounds.
    pub counts: Vec<u64>,
    /// The sum of what was observed.
    pub sum: f64,
}

impl PoolCounters {
    /// The counters of the pool with that number. None if there is no room.
    pub fn new(area: &Rc<Area>, number: usize) -> Option<Self> {
        area.block(format!("pool {number}").as_bytes(), STRIPE * STRIPES).map(PoolCounters)
    }

    /// The part of the worker with that cell of the scoreboard.
    pub fn meter(&self, cell: usize) -> Meter {
        Meter(self.0.part(STRIPE * (cell % STRIPES), STRIPE))
    }

    /// The supervisor's side: adds to what it counts.
    pub fn add(&self, what: Supervised, amount: u64) {
        self.word(what as usize).fetch_add(amount, Relaxed);
    }

    /// The supervisor's side: a worker was forked in the place of one that has ended.
    pub fn note_respawn(&self, reason: Reason) {
        self.word(RESPAWNS + reason as usize).fetch_add(1, Relaxed);
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.0.words()[index]
    }

    fn total(&self, index: usize) -> u64 {
        let stripes = self.0.words().chunks_exact(STRIPE);
        stripes.fold(0, |sum, stripe| sum.wrapping_add(stripe[index].load(Relaxed)))
    }

    /// What the supervisor has counted.
    pub fn supervised(&self, what: Supervised) -> u64 {
        self.total(what as usize)
    }

    /// Handler calls that are over, returned or thrown: those that have sent something, and the others.
    pub fn handled(&self) -> u64 {
        let sent = self.response_size().counts;
        sent.iter().fold(self.total(SILENT), |sum, count| sum.wrapping_add(*count))
    }

    /// Handler calls that threw, and connections that could not be accepted.
    pub fn errors(&self) -> u64 {
        self.total(ERRORS)
    }

    /// Refusals by status, as [`REFUSALS`] has them.
    pub fn refused(&self) -> [u64; REFUSALS.len()] {
        std::array::from_fn(|index| self.total(REFUSED + index))
    }

    /// Respawns by reason, as [`REASONS`] has them.
    pub fn respawns(&self) -> [u64; REASONS.len()] {
        std::array::from_fn(|index| self.total(RESPAWNS + index))
    }

    /// How long connections have waited for a worker.
    pub fn queue_time(&self) -> Histogram {
        self.histogram(QUEUED, TIME_BOUNDS.scaled(NANOSECONDS), NANOSECONDS)
    }

    /// How long handlers have run.
    pub fn handler_time(&self) -> Histogram {
        self.histogram(RUN, TIME_BOUNDS.scaled(NANOSECONDS), NANOSECONDS)
    }

    /// How much handlers have sent.
    pub fn response_size(&self) -> Histogram {
        self.histogram(SENT, SIZE_BOUNDS.scaled(1.0), 1.0)
    }

    fn histogram(&self, at: usize, bounds: Vec<f64>, unit: f64) -> Histogram {
        let counts = (0..=bounds.len()).map(|bucket| self.total(at + 1 + bucket)).collect();
        Histogram { bounds, counts, sum: self.total(at) as f64 / unit }
    }
}

impl Meter {
    /// The worker's words: an array, so that the compiler need not check indexes.
    #[inline]
    fn words(&self) -> Option<&[AtomicU64; STRIPE]> {
        self.0.words().first_chunk()
    }

    fn add(&self, index: usize, amount: u64) {
        if let Some(words) = self.words() {
            words[index].fetch_add(amount, Relaxed);
        }
    }

    /// A connection was accepted.
    pub fn accepted(&self) {
        self.add(ACCEPTED, 1);
    }

    /// A handler has returned that has sent nothing.
    pub fn silent(&self) {
        self.add(SILENT, 1);
    }

    /// A handler has thrown, or a connection could not be accepted.
    pub fn failed(&self) {
        self.add(ERRORS, 1);
    }

    /// A request was refused.
    pub fn refused(&self, status: u16) {
        let known = REFUSALS.iter().position(|other| *other == status);
        self.add(REFUSED + known.unwrap_or(REFUSALS.len() - 1), 1);
    }

    /// A handler has sent `size` bytes: it was wanted at `ready`, and ran from `start` to `end`, in nanoseconds.
    #[inline]
    pub fn answered(&self, (ready, start, end): (u64, u64, u64), size: u64) {
        let Some(words) = self.words() else { return };
        // Most need not wait.
        if ready == start {
            words[QUEUED + 1].fetch_add(1, Relaxed);
        } else {
            add_time(words, QUEUED, start.saturating_sub(ready));
        }
        add_time(words, RUN, end.saturating_sub(start));
        words[SENT].fetch_add(size, Relaxed);
        words[SENT + 1 + SIZE_BOUNDS.bucket(size)].fetch_add(1, Relaxed);
    }
}

#[inline]
fn add_time(words: &[AtomicU64; STRIPE], at: usize, nanoseconds: u64) {
    words[at].fetch_add(nanoseconds, Relaxed);
    words[at + 1 + TIME_BOUNDS.bucket(nanoseconds)].fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_all_workers_are_added_up() {
        let area = Rc::new(Area::new(None).unwrap());
        let pool = PoolCounters::new(&area, 1).unwrap();
        let at = |milliseconds: u64| 77 + milliseconds * 1_000_000;
        for cell in 0..2 * STRIPES {
            let meter = pool.meter(cell);
            meter.accepted();
            meter.silent();
            meter.failed();
            meter.refused(408);
            meter.refused(599);
            meter.answered((at(0), at(1), at(3)), 100);
        }
        pool.add(Supervised::Accepted, 1);
        pool.add(Supervised::Lost, 5);
        pool.note_respawn(Reason::Signal);
        let all = 2 * STRIPES as u64;
        assert_eq!(pool.supervised(Supervised::Accepted), all + 1);
        assert_eq!((pool.handled(), pool.errors()), (2 * all, all));
        assert_eq!((pool.refused()[1], pool.refused()[REFUSALS.len() - 1]), (all, all));
        assert_eq!((pool.supervised(Supervised::Lost), pool.respawns()[5]), (5, 1));
        assert_eq!(PoolCounters::new(&area, 2).unwrap().handled(), 0);
        for (histogram, value, sum) in [
            (pool.queue_time(), 0.001, 0.001),
            (pool.handler_time(), 0.0025, 0.002),
            (pool.response_size(), 100.0, 100.0),
        ] {
            let bucket = histogram.bounds.iter().position(|bound| *bound == value).unwrap();
            assert_eq!(histogram.counts[bucket], all);
            assert_eq!(histogram.counts.len(), histogram.bounds.len() + 1);
            assert!((histogram.sum - sum * all as f64).abs() < 1e-9);
        }
    }
}
