//! What workers and supervisor see of each other without a system call: one cell for each worker of
//! a pool and a few flags, in shared memory.
//!
//! The supervisor uses what it reads here only for decisions about load: a worker that
//! scribbles over its cell can only be misjudged.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use nix::errno::Errno;

use super::pool_losses::{COUNT, LossCount, PoolLoss};
use super::request_note::{NOTE, RequestNote, SENDING};
use crate::sys::os::shared::SharedWords;

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Activity {
    /// Forked; `prepare` has not returned yet.
    Starting = 0,
    /// Waiting for work.
    Idle = 1,
    /// Working.
    Busy = 2,
    /// Chosen by the supervisor for an order that is on its way.
    Claimed = 3,
    /// Waiting for the supervisor's answer to its offer.
    Offering = 4,
    /// Ending: it takes nothing more.
    Finishing = 5,
    /// It has done all that it had to: what is left is the end of the process.
    Ended = 6,
}

/// What is counted for each worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Connections accepted.
    Accepted = 2,
    /// Handler calls that returned.
    Handled = 3,
    /// Handler calls that threw, and connections that could not be accepted.
    Errors = 4,
    /// Connections that wait in the worker and that the supervisor does not know of.
    Parked = 5,
    /// Connections whose handler has returned and whose client has not taken all output yet.
    Sending = 7,
}

/// Set by the supervisor when it has revoked leases of the worker.
const REVOCATION: usize = 6;

const ACTIVITY: usize = 0;
const IDLE_SINCE: usize = 1;

/// Words of a cell: one cache line, so that workers do not slow each other down.
const CELL: usize = 8;

/// How many responses that a worker is sending are noted at most.
const NOTED: usize = 16;

/// Words before the first cell.
const SCARCITY: usize = 0;
const OFFERS: usize = 1;
const NO_RESULT: usize = 2;
/// The first of them; what the supervisor says is before it.
const LOSSES: usize = 3 * CELL;
const HEADER: usize = 5 * CELL;

/// What the supervisor says of the whole pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Total {
    /// Workers that exist.
    Workers = CELL,
    /// Connections between two runs of the handler.
    Parked,
    /// Connections that ended workers had accepted.
    Accepted,
    /// Handler calls that returned in ended workers.
    Handled,
    /// Errors that ended workers had counted.
    Errors,
    /// Workers forked in the place of ended ones.
    Respawns,
    /// Parked connections closed for lack of descriptors.
    Shed,
    /// Parked connections taken from workers: slow or ended ones, or to spread or sort connections.
    Reclaimed,
    /// Connections that broke off because their worker died or no descriptor was left for them.
    Lost,
    /// Connections that no worker has: they wait for input, or for a worker.
    Waiting,
    /// Those that wait for a worker.
    Queued,
}

/// One worker's part of the scoreboard.
#[derive(Clone, Copy)]
pub struct Cell<'a>(&'a [AtomicU64]);

impl Cell<'_> {
    /// What the worker is doing. An impossible value counts as busy.
    pub fn activity(&self) -> Activity {
        match self.0[ACTIVITY].load(SeqCst) {
            0 => Activity::Starting,
            1 => Activity::Idle,
            3 => Activity::Claimed,
            4 => Activity::Offering,
            5 => Activity::Finishing,
            6 => Activity::Ended,
            _ => Activity::Busy,
        }
    }

    /// The worker's side: says what it is doing.
    pub fn set(&self, activity: Activity) {
        self.0[ACTIVITY].store(activity as u64, SeqCst);
    }

    /// The worker's side: waits for work from now on.
    pub fn rest(&self, now_ms: u64) {
        self.0[IDLE_SINCE].store(now_ms, Relaxed);
        self.set(Activity::Idle);
    }

    /// The worker's side: from idle to busy; false if the supervisor has claimed it meanwhile.
    pub fn wake(&self) -> bool {
        self.exchange(Activity::Idle, Activity::Busy)
    }

    /// The supervisor's side: reserves an idle worker for an order; false if it is not idle.
    pub fn claim(&self) -> bool {
        self.exchange(Activity::Idle, Activity::Claimed)
    }

    /// The supervisor's side: the order could not be sent; nothing if the worker has noticed already.
    pub fn release(&self) {
        let _ = self.exchange(Activity::Claimed, Activity::Idle);
    }

    /// When the worker became idle, in milliseconds of the supervisor's clock.
    pub fn idle_since(&self) -> u64 {
        self.0[IDLE_SINCE].load(Relaxed)
    }

    /// The worker's side: adds to a counter that only this worker writes.
    pub fn add(&self, counter: Counter, amount: u64) {
        let word = &self.0[counter as usize];
        word.store(word.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// The worker's side: sets a counter that only this worker writes.
    pub fn put(&self, counter: Counter, value: u64) {
        self.0[counter as usize].store(value, Relaxed);
    }

    /// The value of a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Relaxed)
    }

    /// How often the worker has settled what a handler left: stands still while a handler runs.
    pub fn turns(&self) -> u64 {
        self.get(Counter::Handled)
    }

    /// The supervisor's side: the worker is to forget connections whose leases were revoked.
    pub fn note_revocation(&self) {
        self.0[REVOCATION].store(1, SeqCst);
    }

    /// The worker's side: whether leases were revoked since it last asked.
    pub fn take_revocation(&self) -> bool {
        self.0[REVOCATION].load(Relaxed) != 0 && self.0[REVOCATION].swap(0, SeqCst) != 0
    }

    /// The supervisor's side: makes the cell ready for another worker.
    pub fn reset(&self) {
        for word in self.0 {
            word.store(0, SeqCst);
        }
    }

    fn exchange(&self, from: Activity, to: Activity) -> bool {
        self.0[ACTIVITY].compare_exchange(from as u64, to as u64, SeqCst, SeqCst).is_ok()
    }
}

/// The shared memory of one pool.
pub struct Scoreboard {
    words: SharedWords,
    notes: SharedWords,
    /// Notes of responses that the workers' clients have not taken yet.
    sending: SharedWords,
    /// The process id of each worker, and [`PREPARED`]; 0: the cell is free.
    pids: SharedWords,
}

/// Set beside the process id of a worker whose `prepare` is done.
const PREPARED: u64 = 1 << 32;

/// A worker, as all processes see it.
#[derive(Clone, Copy)]
pub struct WorkerView<'a> {
    /// Its process.
    pub pid: i32,
    /// Its `prepare` is done.
    pub is_prepared: bool,
    /// Its cell.
    pub cell: Cell<'a>,
}

impl WorkerView<'_> {
    /// Whether it takes connections, now or after what it has.
    pub fn serves(&self) -> bool {
        match self.cell.activity() {
            // A previous generation may still serve.
            Activity::Starting => self.is_prepared,
            Activity::Finishing | Activity::Ended => false,
            Activity::Idle | Activity::Busy | Activity::Claimed | Activity::Offering => true,
        }
    }
}

impl Scoreboard {
    /// Shared memory for a pool of at most `workers`.
    pub fn new(workers: usize) -> Result<Self, Errno> {
        let workers = workers.max(1);
        Ok(Scoreboard {
            words: SharedWords::new(HEADER + CELL * workers)?,
            notes: SharedWords::new(NOTE * workers)?,
            sending: SharedWords::new(NOTED * SENDING * workers)?,
            pids: SharedWords::new(workers)?,
        })
    }

    /// The supervisor's side: says something of the whole pool.
    pub fn publish(&self, total: Total, value: u64) {
        self.words[total as usize].store(value, Relaxed);
    }

    /// What the supervisor said last.
    pub fn total(&self, total: Total) -> u64 {
        self.words[total as usize].load(Relaxed)
    }

    /// All cells, those without a worker included: these are all zero.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        self.words[HEADER..].chunks_exact(CELL).map(Cell)
    }

    /// The cell of the worker at `index`, below the number given to `new`.
    pub fn cell(&self, index: usize) -> Cell<'_> {
        let from = HEADER + CELL * index;
        Cell(&self.words[from..from + CELL])
    }

    /// What the worker at `index` is doing.
    pub fn note(&self, index: usize) -> RequestNote<'_> {
        let from = NOTE * index;
        RequestNote::over(&self.notes[from..from + NOTE])
    }

    /// Notes of responses that the worker at `index` is sending, though it has handled their requests.
    pub fn sending(&self, index: usize) -> impl Iterator<Item = RequestNote<'_>> {
        let from = NOTED * SENDING * index;
        let words = &self.sending[from..from + NOTED * SENDING];
        words.chunks_exact(SENDING).map(RequestNote::over)
    }

    /// The supervisor's side: that process has the cell at `index`; `None`: it is free.
    pub fn assign(&self, index: usize, pid: Option<i32>) {
        let pid = pid.map_or(0, |pid| u64::from(pid.unsigned_abs()));
        self.pids[index].store(pid, SeqCst);
    }

    /// The supervisor's side: the worker with the cell at `index` is prepared.
    pub fn note_prepared(&self, index: usize) {
        self.pids[index].fetch_or(PREPARED, SeqCst);
    }

    /// The workers there are.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.pids.iter().zip(self.cells()).filter_map(|(word, cell)| {
            let word = word.load(SeqCst);
            let pid = i32::try_from(word & !PREPARED).ok().filter(|pid| *pid != 0)?;
            Some(WorkerView { pid, is_prepared: word & PREPARED != 0, cell })
        })
    }

    /// Whether at least `wanted` workers are idle.
    pub fn has_idle(&self, wanted: usize) -> bool {
        wanted == 0
            || self.cells().filter(|c| c.activity() == Activity::Idle).nth(wanted - 1).is_some()
    }

    /// The supervisor's side: asks for a report when few workers are idle.
    pub fn watch_scarcity(&self, watch: bool) {
        self.words[SCARCITY].store(u64::from(watch), SeqCst);
    }

    /// The worker's side, after it became busy: whether it is to report that few are idle.
    pub fn report_scarcity(&self, wanted: usize) -> bool {
        let flag = &self.words[SCARCITY];
        flag.load(SeqCst) != 0 && !self.has_idle(wanted) && flag.swap(0, SeqCst) != 0
    }

    /// The worker's side: whether it is to tell that a handler has returned nothing. Only once.
    pub fn tell_no_result(&self) -> bool {
        let flag = &self.words[NO_RESULT];
        flag.load(Relaxed) == 0 && flag.swap(1, SeqCst) == 0
    }

    /// How many connections workers have closed for that reason.
    pub fn losses(&self, loss: PoolLoss) -> LossCount<'_> {
        let from = LOSSES + COUNT * loss as usize;
        LossCount::over(&self.words[from..from + COUNT])
    }

    /// The supervisor's side: asks workers that have time to offer themselves.
    pub fn want_offers(&self, want: bool) {
        self.words[OFFERS].store(u64::from(want), SeqCst);
    }

    /// The worker's side: whether the supervisor has work that waits for a worker.
    pub fn wants_offers(&self) -> bool {
        self.words[OFFERS].load(SeqCst) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_worker_does_not_wake_by_itself() {
        let board = Scoreboard::new(2).unwrap();
        let cell = board.cell(1);
        assert_eq!(cell.activity(), Activity::Starting);
        assert!(!cell.claim());
        cell.rest(5);
        assert_eq!(cell.idle_since(), 5);
        assert!(cell.claim());
        assert!(!cell.wake());
        cell.rest(6);
        assert!(cell.wake());
        assert!(!cell.claim());
    }

    #[test]
    fn each_reason_for_a_loss_has_a_count_of_its_own() {
        let board = Scoreboard::new(1).unwrap();
        board.publish(Total::Queued, 7);
        for (times, loss) in (1..).zip(PoolLoss::ALL) {
            board.losses(loss).note(times, 0);
        }
        board.cell(0).rest(5);
        assert_eq!(PoolLoss::ALL.map(|loss| board.losses(loss).total()), [1, 2, 3]);
        assert_eq!((board.total(Total::Queued), board.cell(0).idle_since()), (7, 5));
    }

    #[test]
    fn scarcity_is_reported_once() {
        let board = Scoreboard::new(2).unwrap();
        board.cell(0).rest(1);
        board.watch_scarcity(true);
        assert!(!board.report_scarcity(1));
        board.cell(0).wake();
        assert!(board.report_scarcity(1));
        assert!(!board.report_scarcity(1));
    }
}
