//! What is counted for the whole server, in a [`Block`].

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use super::area::{Area, Block};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum ServerTotal {
    /// Reloads after which the new code serves.
    Reloads,
    /// Reloads that have failed.
    FailedReloads,
    /// Lines that the log has lost.
    LostLines,
    /// Lines that the access log has lost.
    LostAccessLines,
}

const WORDS: usize = 4;

/// The counters of the server.
#[derive(Clone)]
pub struct ServerCounters(Block);

impl ServerCounters {
    /// The counters. None if there is no room.
    pub fn new(area: &Rc<Area>) -> Option<Self> {
        area.block(b"server", WORDS).map(ServerCounters)
    }

    /// Adds to one.
    pub fn add(&self, what: ServerTotal, amount: u64) {
        self.0.words()[what as usize].fetch_add(amount, Relaxed);
    }

    /// Its value.
    pub fn get(&self, what: ServerTotal) -> u64 {
        self.0.words()[what as usize].load(Relaxed)
    }
}
