//! The memory and the descriptors that clients make the supervisor use: they are bounded, and where they
//! are short, waiting connections are closed and the server goes on.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use super::connection::{Held, Key, Reserved};
use super::held_input::{HeldInput, InputBudget};
use super::store::Store;
use crate::server::ipc::connection_state::ConnectionState;
use crate::server::log_text;
use crate::server::log_throttle::{LogThrottle, Occasion};
use crate::sys::os::fallback_allocator;
use crate::sys::os::freed_memory::FreedMemory;

/// Freed memory goes back to the kernel in pieces of this size, in bytes, at the least.
const GIVEN_BACK: usize = 1024 * 1024;

/// What waiting connections may take, and take.
pub struct Bounds {
    /// Descriptors of connections and workers.
    descriptors: usize,
    input: Rc<InputBudget>,
    /// Counted in bytes of input.
    freed_memory: FreedMemory,
    /// Connections that were closed, as far as the log is to tell, and why the last ones were.
    closed: LogThrottle,
    why: String,
}

impl Bounds {
    /// So many bytes of input, so many descriptors of connections and workers.
    pub fn new(input: usize, descriptors: usize) -> Self {
        let input = InputBudget::new(input);
        Bounds {
            descriptors,
            input,
            freed_memory: FreedMemory::new(GIVEN_BACK),
            closed: LogThrottle::default(),
            why: String::new(),
        }
    }

    /// A connection in the state that a worker has told, or was told. The memory of its input is counted.
    pub fn hold(&self, mut state: ConnectionState, overflow: Option<OwnedFd>) -> Held {
        let input = HeldInput::new(std::mem::take(&mut state.data), state.awaits, &self.input);
        Held { state, input, overflow, reserved: Reserved::No }
    }

    /// Closes the connections that have waited longest as long as too many descriptors are in use, with
    /// `more` of them. False if that did not suffice.
    pub fn bound_descriptors(&self, store: &mut Store, more: usize) -> bool {
        // Both ends of a worker's channel, its standard error and its processor clock.
        let held = store.count() + 4 * store.workers() + more;
        let surplus = held.saturating_sub(self.descriptors);
        shed(store, surplus, |store| store.lobby().oldest()) == surplus
    }

    /// Closes connections as long as the input of all takes more memory than it may.
    pub fn bound_input(&mut self, store: &mut Store) {
        let limit = self.input.limit();
        if self.input.held() > limit {
            let closed = self.shed_input(store, limit);
            let why = format!("together they held more than {limit} bytes of input");
            self.note_closed(closed, &why);
        }
    }

    /// Closes the connections that have waited longest with input until the rest holds `most` bytes.
    fn shed_input(&self, store: &mut Store, most: usize) -> usize {
        let holder =
            |store: &mut Store| store.lobby().oldest_holder().or(store.last_queued_holder());
        let mut closed = 0;
        while self.input.held() > most && shed(store, 1, holder) > 0 {
            closed += 1;
        }
        closed
    }

    /// Looks after the memory between two batches of events.
    pub fn run_due(&mut self, store: &mut Store) {
        if fallback_allocator::take_failure() {
            let some = store.lobby().waiting().div_ceil(8);
            let closed = match self.input.held() {
                0 => shed(store, some, |store| store.lobby().oldest()),
                held => self.shed_input(store, held / 2),
            };
            fallback_allocator::give_back();
            self.note_closed(closed, "there was no memory left");
        }
        self.freed_memory.note(self.input.held());
    }

    /// What the log is to tell of connections that were closed, if it is time, and when it will be.
    pub fn report_closed(&mut self, occasion: Occasion) -> (Option<String>, Option<Instant>) {
        let closed = self.closed.take(occasion).map(|closed| {
            let closed = closed as u64;
            let connections = log_text::counted(closed, "waiting connection");
            format!("{connections} {} closed: {}", log_text::were(closed), self.why)
        });
        (closed, self.closed.due())
    }

    /// So many connections were closed.
    pub fn note_closed(&mut self, count: usize, why: &str) {
        self.closed.note(count);
        self.why = why.to_owned();
    }
}

/// Closes up to that many connections, in the order that `next` gives. Returns how many.
fn shed(store: &mut Store, most: usize, next: impl Fn(&mut Store) -> Option<Key>) -> usize {
    let mut closed = 0;
    while closed < most
        && let Some(connection) = next(store).and_then(|key| store.leave(key))
    {
        store.counts(connection.pool).shed += 1;
        connection.close();
        closed += 1;
    }
    closed
}
