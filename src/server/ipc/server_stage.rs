//! Whether the server takes part in serving, as the supervisor tells the status process: a word in shared
//! memory.

use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;

use crate::sys::os::shared::SharedWords;

/// What the server is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum ServingStage {
    /// It serves.
    Serving = 0,
    /// It still serves, and will shut down soon.
    Leaving = 1,
    /// It shuts down.
    Ending = 2,
    /// The next generation serves in its place.
    Replaced = 3,
}

/// The word.
pub struct ServerStage(SharedWords);

impl ServerStage {
    /// The server serves.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> Result<Self, Errno> {
        SharedWords::new(1).map(ServerStage)
    }

    /// The supervisor's side.
    pub fn publish(&self, stage: ServingStage) {
        self.0[0].store(stage as u64, Relaxed);
    }

    /// What the supervisor said last.
    pub fn get(&self) -> ServingStage {
        match self.0[0].load(Relaxed) {
            0 => ServingStage::Serving,
            1 => ServingStage::Leaving,
            3 => ServingStage::Replaced,
            _ => ServingStage::Ending,
        }
    }
}
