//! What the supervisor does with the metrics of the whole server.

use std::os::fd::BorrowedFd;
use std::rc::Rc;

use super::registry::Metrics;
use super::totals::{ServerCounters, ServerTotal};

/// The supervisor's side of the metrics.
pub struct ServerMetrics {
    metrics: Rc<Metrics>,
    counters: ServerCounters,
    /// Lines that the log has lost, as far as they are counted.
    lost_lines: u64,
}

impl ServerMetrics {
    /// Over the metrics of a Lua state.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(metrics: Rc<Metrics>) -> Result<Self, String> {
        let counters = metrics.server()?;
        Ok(ServerMetrics { metrics, counters, lost_lines: 0 })
    }

    /// Counts one more.
    pub fn count(&self, what: ServerTotal) {
        self.counters.add(what, 1);
    }

    /// So many lines has the log lost by now.
    pub fn note_lost_lines(&mut self, lost: u64) {
        if lost != self.lost_lines {
            let more = lost.saturating_sub(self.lost_lines);
            self.counters.add(ServerTotal::LostLines, more);
            self.lost_lines = lost;
        }
    }

    /// The file with all values, for the next generation.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.metrics.file()
    }
}
