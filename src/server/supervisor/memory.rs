//! The supervisor's memory that clients fill: it is bounded, and should an allocation fail all the
//! same, waiting connections are closed and the server goes on.

use std::rc::Rc;
use std::time::Instant;

use super::super::tally::Tally;
use super::Supervisor;
use super::held_input::InputBudget;
use super::pool_state::PoolState;
use crate::sys::os::emergency;

/// Memory that is freed goes back to the system in pieces of this size, in bytes, at the least.
const GIVEN_BACK: usize = 1024 * 1024;

/// What the supervisor knows about its memory.
pub struct Memory {
    /// Of the input that waiting connections hold.
    pub budget: Rc<InputBudget>,
    /// How much was held at most since memory was given back.
    peak: usize,
    /// Connections that were closed.
    closed: Tally,
}

impl Memory {
    /// Of a supervisor that holds nothing yet and may hold so much input.
    pub fn new(limit: usize) -> Self {
        Memory { budget: InputBudget::new(limit), peak: 0, closed: Tally::default() }
    }

    /// Gives memory back to the system when much less is held than was before.
    fn give_back(&mut self) {
        let held = self.budget.held();
        self.peak = self.peak.max(held);
        if self.peak - held >= GIVEN_BACK && held <= self.peak / 2 {
            emergency::give_back();
            self.peak = held;
        }
    }
}

impl Supervisor {
    /// Closes the connections that have waited longest with input as long as all hold more than they may.
    pub(super) fn bound_input(&mut self) {
        let limit = self.memory.budget.limit();
        if self.memory.budget.held() > limit {
            let closed = self.shed_input(limit);
            self.tell_shed(closed, &format!("together they held more than {limit} bytes of input"));
        }
    }

    /// Looks after the memory between two batches of events.
    pub(super) fn tend_memory(&mut self) {
        if emergency::take_failure() {
            let held = self.memory.budget.held();
            let closed = if held > 0 { self.shed_input(held / 2) } else { self.shed_some() };
            emergency::give_back();
            self.tell_shed(closed, "there was no memory left");
        }
        self.memory.give_back();
    }

    /// Closes connections until the rest holds `most` bytes of input. Gives how many.
    fn shed_input(&mut self, most: usize) -> usize {
        let mut closed = 0;
        while self.memory.budget.held() > most {
            // Those that came last among those that only wait for a worker: it is their turn last.
            let last = |pools: &mut [PoolState]| pools.iter_mut().find_map(PoolState::last_holder);
            let guest = self.lobby.oldest_holder().or_else(|| last(&mut self.pools));
            let Some(guest) = guest else { break };
            self.pools[guest.pool].totals.shed += 1;
            guest.close();
            closed += 1;
        }
        closed
    }

    /// Closes some of the connections that have waited longest. Gives how many.
    fn shed_some(&mut self) -> usize {
        let most = self.lobby.waiting().div_ceil(8);
        let mut closed = 0;
        while closed < most
            && let Some(guest) = self.lobby.oldest()
        {
            self.pools[guest.pool].totals.shed += 1;
            guest.close();
            closed += 1;
        }
        closed
    }

    /// Tells the log, now or with those that follow.
    pub(super) fn tell_shed(&mut self, closed: usize, why: &str) {
        if let Some(closed) = self.memory.closed.tell(closed, Instant::now()) {
            self.log.notice(&format!("{closed} waiting connections were closed: {why}"));
        }
    }
}
