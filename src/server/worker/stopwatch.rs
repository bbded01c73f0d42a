//! What a worker measures of the runs of its handler, with few readings of the clock: one after each wait for
//! events, and one when a handler has returned. A handler begins where the last of these was.

use super::connection::Running;
use crate::server::metrics::pool::Meter;
use crate::sys::os::monotonic::MonotonicTime;

/// The times of a worker.
pub struct Stopwatch {
    /// Where they are counted; none in a test.
    meter: Option<Meter>,
    /// The last look at the clock.
    now: MonotonicTime,
    /// When the kernel reported the event that is being handled.
    told: MonotonicTime,
    /// When the connection of the running handler began to wait.
    ready: MonotonicTime,
    /// When that handler was called.
    start: MonotonicTime,
    /// How much had been written to its connection before.
    written: u64,
}

impl Stopwatch {
    /// Nothing has run yet.
    pub fn new(now: MonotonicTime) -> Self {
        Stopwatch { meter: None, now, told: now, ready: now, start: now, written: 0 }
    }

    /// Where the times are counted.
    pub fn count(&mut self, meter: Meter) {
        self.meter = Some(meter);
    }

    /// The counters.
    pub fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    /// The last reading of the clock, when a handler returned or a wait ended.
    pub fn now(&self) -> MonotonicTime {
        self.now
    }

    /// A wait for events has ended.
    pub fn told(&mut self, now: MonotonicTime) {
        (self.now, self.told) = (now, now);
    }

    /// The handler is called for a connection: since when that has waited, and now.
    pub fn begin(
        &mut self,
        queued: Option<MonotonicTime>,
        written: u64,
    ) -> (MonotonicTime, MonotonicTime) {
        self.ready = queued.unwrap_or(self.told);
        self.start = self.now;
        self.written = written;
        (self.ready, self.start)
    }

    /// The handler has returned, or thrown.
    #[inline(always)]
    pub fn end(&mut self, running: Option<&Running>, now: MonotonicTime) {
        self.now = now;
        let Some(meter) = &self.meter else { return };
        let Some(running) = running else { return meter.silent() };
        let stream = running.connection.stream.borrow();
        let size = stream.duplex.written().saturating_sub(self.written);
        if stream.handler.refused.is_some() {
            drop(stream);
            self.note_refusal(running);
        }
        // A handler that has only waited for the rest of a request has answered nothing.
        if size > 0 {
            meter.answered(
                (self.ready.nanoseconds(), self.start.nanoseconds(), now.nanoseconds()),
                size,
            );
        } else {
            meter.silent();
        }
    }

    #[cold]
    fn note_refusal(&self, running: &Running) {
        let status = running.connection.stream.borrow_mut().handler.refused.take();
        if let (Some(meter), Some(status)) = (&self.meter, status) {
            meter.refused(status);
        }
    }
}
