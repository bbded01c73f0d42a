//! What is counted of held connections, in a [`Block`]. The push process counts, but for [`PushTotal::Wanted`] and what
//! publishers add to [`PushTotal::Unread`].

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use super::area::{Area, Block};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum PushTotal {
    /// Connections that are held now.
    Held,
    /// Not 0 once a connection was to be held, or a topic has a history: without, nobody hears anything.
    Wanted,
    /// Messages that were published.
    Published,
    /// Messages that were passed on, one for each client.
    Delivered,
    /// Messages that were dropped since their client was too slow.
    Dropped,
    /// Clients that were dropped since they were too slow.
    Slow,
    /// Connections that could not be held for lack of descriptors or memory, or because of a limit.
    Refused,
    /// The cost of what is published and not read yet. A publisher adds it once it has sent it, so that none who dies
    /// leaves something that nobody subtracts: for a moment it may be less than 0.
    Unread,
    /// The cost of what the process has read and not done yet.
    Undone,
}

const WORDS: usize = 9;

/// The counters.
#[derive(Clone)]
pub struct PushCounters(Block);

impl PushCounters {
    /// The counters. None if there is no room.
    pub fn new(area: &Rc<Area>) -> Option<Self> {
        area.block(b"push", WORDS).map(PushCounters)
    }

    /// Adds to one.
    pub fn add(&self, what: PushTotal, amount: u64) {
        self.0.words()[what as usize].fetch_add(amount, Relaxed);
    }

    /// Subtracts from one.
    pub fn subtract(&self, what: PushTotal, amount: u64) {
        self.0.words()[what as usize].fetch_sub(amount, Relaxed);
    }

    /// Sets one.
    pub fn set(&self, what: PushTotal, value: u64) {
        self.0.words()[what as usize].store(value, Relaxed);
    }

    /// Its value.
    pub fn get(&self, what: PushTotal) -> u64 {
        self.0.words()[what as usize].load(Relaxed)
    }

    /// How much of what was published waits for the process.
    pub fn waiting(&self) -> u64 {
        let unread = self.get(PushTotal::Unread).cast_signed().max(0).cast_unsigned();
        unread.saturating_add(self.get(PushTotal::Undone))
    }
}
