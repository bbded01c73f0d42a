//! Leases: who may act on a connection that a worker has parked.
//!
//! The supervisor holds a duplicate of every parked connection's descriptor. As long as the worker
//! is quick, the connection is the worker's, and serving it costs the supervisor nothing. Should
//! the worker be stuck in a slow handler, or dead, the supervisor takes the connection back. One
//! shared word for each connection decides, by compare-and-exchange, which of the two has it.
//!
//! | state | who may act | how it ends |
//! |---|---|---|
//! | free | – | the worker parks a connection here |
//! | parked | nobody yet | the worker takes it (input, timeout) or leaves it, or the supervisor revokes it |
//! | taken | the worker | the worker parks it again or gives it up |
//! | left | nobody: the worker gives it up | the worker has said so, or has died: the supervisor goes on |
//! | revoked | the supervisor | the worker notices and forgets it |
//!
//! A parked connection with TLS has its records' numbers here. The process that has taken it may use them up; if that
//! dies, nobody goes on with the connection, so that no number is ever used twice.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use nix::errno::Errno;

use super::connection_state::ConnectionState;
use super::standing::Standing;
use crate::io::tls::progress::RecordProgress;
use crate::sys::os::shared::SharedWords;

/// Connections that one worker may have on lease. What it parks beyond goes to the supervisor.
pub const LEASES: usize = 8192;

/// Words of a lease: the state with the generation and the turn, the deadline, how often it was
/// parked, the connection's standing, and the numbers of the next records of TLS.
const WORDS: usize = 6;

const FREE: u64 = 0;
const PARKED: u64 = 1;
const TAKEN: u64 = 2;
const REVOKED: u64 = 3;
const LEFT: u64 = 4;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// One lease.
#[derive(Clone, Copy)]
pub struct Lease<'a>(&'a [AtomicU64]);

/// Generation (28 bits) and state; above them, in a parked lease, the last bits of the turn: the
/// deadline that belongs to one turn is never taken for another's.
const TURN: u32 = 36;

fn word(generation: u32, state: u64) -> u64 {
    (u64::from(generation) << 8) | state
}

fn parked(generation: u32, turn: u64) -> u64 {
    (turn << TURN) | word(generation, PARKED)
}

impl Lease<'_> {
    /// The worker's side: nobody acts on the connection before its input, or the deadline in
    /// milliseconds of the shared clock.
    pub fn park(
        &self,
        generation: u32,
        deadline: Option<u64>,
        standing: Standing,
        (receiving, sending): (u64, u64),
    ) {
        let turn = self.turns().wrapping_add(1);
        self.0[4].store(receiving, Relaxed);
        self.0[5].store(sending, Relaxed);
        self.0[3].store(standing.word(), Relaxed);
        self.0[1].store(deadline.unwrap_or(NEVER), Relaxed);
        self.0[2].store(turn, Relaxed);
        self.0[0].store(parked(generation, turn), SeqCst);
    }

    /// How often a connection was parked in this place, whatever its generation.
    pub fn turns(&self) -> u64 {
        self.0[2].load(Relaxed)
    }

    /// The worker's side: takes the parked connection; false if it was revoked.
    pub fn take(&self, generation: u32) -> bool {
        self.exchange(parked(generation, self.turns()), word(generation, TAKEN))
    }

    /// The worker's side: gives up the parked connection as it is; false if it was revoked.
    pub fn leave(&self, generation: u32) -> bool {
        self.exchange(parked(generation, self.turns()), word(generation, LEFT))
    }

    /// Whether the worker has given up the connection and not yet said so, or died before it could.
    pub fn is_left(&self, generation: u32) -> bool {
        self.0[0].load(Acquire) == word(generation, LEFT)
    }

    /// The worker's side: the connection is closed, or the supervisor has it.
    pub fn free(&self) {
        self.0[0].store(FREE, SeqCst);
    }

    /// The supervisor's side: takes the parked connection from the worker. Returns its state, with records even if it has
    /// no TLS, or nothing if the worker has it.
    pub fn revoke(&self, generation: u32) -> Option<ConnectionState> {
        self.seize(generation, self.parked(generation)?)
    }

    /// The supervisor's side: the same of a connection that a dead worker has left.
    pub fn inherit(&self, generation: u32) -> Option<ConnectionState> {
        self.seize(generation, word(generation, LEFT))
    }

    fn seize(&self, generation: u32, seen: u64) -> Option<ConnectionState> {
        let (deadline, standing) = (self.0[1].load(Relaxed), self.0[3].load(Relaxed));
        let (receiving, sending) = (self.0[4].load(Relaxed), self.0[5].load(Relaxed));
        // Only if it is the same turn's still.
        let revoked = self.exchange(seen, word(generation, REVOKED));
        let deadline = (deadline != NEVER).then_some(deadline);
        let standing = Standing::of(standing);
        let records = Some(RecordProgress { receiving, sending, ..RecordProgress::default() });
        revoked.then(|| ConnectionState {
            deadline,
            standing,
            records,
            ..ConnectionState::default()
        })
    }

    /// The supervisor's side: whether the connection is parked, so that it could be revoked.
    pub fn is_parked(&self, generation: u32) -> bool {
        self.parked(generation).is_some()
    }

    /// The supervisor's side: whether the worker acts on the connection, or did when it died.
    pub fn is_taken(&self, generation: u32) -> bool {
        self.0[0].load(Acquire) == word(generation, TAKEN)
    }

    /// The state, if the connection is parked.
    fn parked(&self, generation: u32) -> Option<u64> {
        let seen = self.0[0].load(Acquire);
        (seen & ((1 << TURN) - 1) == word(generation, PARKED)).then_some(seen)
    }

    /// The worker's side: whether the supervisor has taken the parked connection.
    pub fn is_revoked(&self, generation: u32) -> bool {
        self.0[0].load(SeqCst) == word(generation, REVOKED)
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        self.0[0].compare_exchange(from, to, SeqCst, SeqCst).is_ok()
    }
}

/// The leases of all workers of a pool, in shared memory.
pub struct LeaseTable(SharedWords);

impl LeaseTable {
    /// Leases for a pool of at most `workers`. Memory is used as connections are parked.
    pub fn new(workers: usize) -> Result<Self, Errno> {
        Ok(LeaseTable(SharedWords::new(workers.max(1) * LEASES * WORDS)?))
    }

    /// A lease of the worker with the given cell; none beyond [`LEASES`].
    pub fn lease(&self, cell: usize, index: u32) -> Option<Lease<'_>> {
        let index = index as usize;
        if index >= LEASES {
            return None;
        }
        let from = (cell * LEASES + index) * WORDS;
        self.0.get(from..from + WORDS).map(Lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_one_owner_at_a_time() {
        let table = LeaseTable::new(2).unwrap();
        let lease = table.lease(1, 7).unwrap();
        assert_eq!(lease.revoke(0), None, "nothing is parked");
        lease.park(3, Some(99), Standing::default(), (0, 0));
        assert!(lease.take(3));
        assert_eq!(lease.revoke(3), None, "the worker has it");
        let standing = Standing { asked: true, skip: 5 };
        lease.park(3, None, standing, (7, 8));
        let state = lease.revoke(3).unwrap();
        assert_eq!((state.deadline, state.standing), (None, standing));
        let records = state.records.unwrap();
        assert_eq!((records.receiving, records.sending), (7, 8));
        assert!(!lease.take(3), "the supervisor has it");
    }

    #[test]
    fn what_a_worker_has_left_is_the_supervisors_once_the_worker_is_dead() {
        let table = LeaseTable::new(1).unwrap();
        let lease = table.lease(0, 0).unwrap();
        lease.park(3, Some(99), Standing::default(), (7, 8));
        assert_eq!(lease.inherit(3), None, "it is parked");
        assert!(lease.leave(3) && lease.is_left(3));
        assert_eq!(lease.revoke(3), None, "the worker is about to tell");
        let state = lease.inherit(3).unwrap();
        assert_eq!(state.deadline, Some(99));
        assert!(lease.inherit(3).is_none() && !lease.leave(3));
    }

    #[test]
    fn the_deadline_is_that_of_the_turn_that_is_revoked() {
        let table = LeaseTable::new(1).unwrap();
        for generation in 0..20 {
            let lease = table.lease(0, 0).unwrap();
            std::thread::scope(|scope| {
                let worker = scope.spawn(|| {
                    let mut deadline = 0;
                    loop {
                        lease.park(generation, Some(deadline), Standing::default(), (0, 0));
                        if !lease.take(generation) {
                            return deadline;
                        }
                        deadline += 1;
                    }
                });
                let deadline = loop {
                    if let Some(state) = lease.revoke(generation) {
                        break state.deadline;
                    }
                };
                assert_eq!(deadline, Some(worker.join().unwrap()));
            });
        }
    }

    #[test]
    fn a_lease_of_an_earlier_connection_is_void() {
        let table = LeaseTable::new(1).unwrap();
        let lease = table.lease(0, 0).unwrap();
        let standing = Standing::default();
        lease.park(1, Some(5), standing, (0, 0));
        lease.free();
        lease.park(2, Some(6), standing, (0, 0));
        assert_eq!(lease.revoke(1), None);
        assert_eq!(lease.revoke(2).unwrap().deadline, Some(6));
        assert!(table.lease(0, LEASES as u32).is_none());
    }
}
