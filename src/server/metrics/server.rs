//! What the supervisor does with the metrics of the whole server.

use std::os::fd::BorrowedFd;
use std::rc::Rc;

use super::registry::Metrics;
use super::totals::{ServerCounters, ServerTotal};

/// The supervisor's side of the metrics.
pub struct ServerMetrics {
    metrics: Rc<Metrics>,
    counters: ServerCounters,
    /// Lines that the log and the access log have lost, as far as they are counted.
    lost_lines: [u64; 2],
}

impl ServerMetrics {
    /// Over the metrics of a Lua state.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(metrics: Rc<Metrics>) -> Result<Self, String> {
        let counters = metrics.server()?;
        Ok(ServerMetrics { metrics, counters, lost_lines: [0; 2] })
    }

    /// Counts one more.
    pub fn count(&self, what: ServerTotal) {
        self.counters.add(what, 1);
    }

    /// So many lines have the log and the access log lost by now.
    pub fn note_lost_lines(&mut self, lost: [u64; 2]) {
        let logs = [ServerTotal::LostLines, ServerTotal::LostAccessLines];
        for (what, (now, before)) in logs.into_iter().zip(lost.into_iter().zip(self.lost_lines)) {
            if now != before {
                self.counters.add(what, now.saturating_sub(before));
            }
        }
        self.lost_lines = lost;
    }

    /// The file with all values, for the next generation.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.metrics.file()
    }
}
