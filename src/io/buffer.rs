//! Byte queues of a connection: input that waits to be read, output that waits to be sent.
//!
//! Memory is allocated on use. A drained queue keeps what a busy connection needs again at once
//! and gives back the memory that a burst needed. What was given back last is kept for the next queue:
//! to allocate and to free it would cost a new connection more than its parts together.

use std::cell::Cell;
use std::mem;

/// A drained queue larger than this gives its memory back.
pub const KEEP: usize = 64 * 1024;

/// Memory of fewer bytes is not worth keeping.
const SMALLEST: usize = 8 * 1024;

thread_local! {
    /// What was given back last.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A queue of bytes: appended at the end, consumed from the front, both O(1) amortised.
#[derive(Debug, Default)]
pub struct Queue {
    /// Consumed bytes, then the live ones.
    bytes: Vec<u8>,
    /// Where the live bytes begin.
    start: usize,
}

impl Queue {
    /// An empty queue without memory.
    pub const fn new() -> Self {
        Queue { bytes: Vec::new(), start: 0 }
    }

    /// The live bytes.
    pub fn live(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// The live bytes, to be changed in place.
    #[cfg(feature = "tls")]
    pub fn live_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).unwrap_or_default()
    }

    /// The number of live bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether no byte is live.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory held, in bytes.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Drops the first `n` live bytes (all of them if there are fewer).
    pub fn consume(&mut self, n: usize) {
        self.start += n.min(self.len());
        if self.start == self.bytes.len() {
            self.clear();
        }
    }

    /// Drops the first `n` live bytes and keeps them in memory until the queue is used again.
    pub fn skip(&mut self, n: usize) {
        self.start += n.min(self.len());
    }

    /// Drops all bytes; memory above [`KEEP`] is given back.
    pub fn clear(&mut self) {
        self.start = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }

    /// Gives all memory back if the queue is empty.
    pub fn release(&mut self) {
        if self.is_empty() && self.bytes.capacity() > 0 {
            self.free();
        }
    }

    /// Drops all bytes and gives all memory back.
    pub fn free(&mut self) {
        let mut bytes = mem::take(self).bytes;
        if (SMALLEST..=KEEP).contains(&bytes.capacity()) {
            bytes.clear();
            // At the end of a thread it may be gone.
            let _ = SPARE.try_with(|spare| spare.set(bytes));
        }
    }

    /// Takes all bytes, with where the live ones begin among them.
    pub fn take(&mut self) -> (Vec<u8>, usize) {
        let Queue { bytes, start } = mem::take(self);
        (bytes, start)
    }

    /// Puts back what was [taken](Queue::take), perhaps with fewer live bytes.
    pub fn put_back(&mut self, (bytes, start): (Vec<u8>, usize)) {
        *self = Queue { start: start.min(bytes.len()), bytes };
    }

    /// Appends `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// The underlying vector, with room for about `room` more bytes (at least half of it); only
    /// appending is allowed.
    pub fn tail(&mut self, room: usize) -> &mut Vec<u8> {
        self.make_room(room);
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE.try_with(Cell::take).unwrap_or_default();
        }
        if self.bytes.capacity() - self.bytes.len() < room.div_ceil(2) {
            self.bytes.reserve(room);
        }
        &mut self.bytes
    }

    /// Reclaims the consumed front if the new bytes would not fit otherwise. Live bytes are moved
    /// only when they are no more than the consumed ones, so each byte is moved O(1) times.
    fn make_room(&mut self, room: usize) {
        if self.is_empty() {
            self.clear();
        }
        let spare = self.bytes.capacity() - self.bytes.len();
        if room > spare && self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_over_pushes_and_consumes() {
        let mut queue = Queue::new();
        let mut expected: Vec<u8> = Vec::new();
        for round in 0..2000usize {
            let piece: Vec<u8> = (0..round % 97).map(|i| (round + i) as u8).collect();
            queue.push(&piece);
            expected.extend_from_slice(&piece);
            let n = round % 61;
            queue.consume(n);
            expected.drain(..n.min(expected.len()));
            assert_eq!(queue.live(), &expected[..]);
        }
    }

    #[test]
    fn consuming_more_than_there_is_empties_the_queue() {
        let mut queue = Queue::new();
        queue.push(b"abc");
        queue.consume(9);
        assert!(queue.is_empty());
        assert_eq!(queue.live(), b"");
    }

    #[test]
    fn skipped_bytes_are_gone_and_their_memory_is_used_again() {
        let mut queue = Queue::new();
        queue.push(b"abc");
        queue.skip(9);
        assert!(queue.is_empty());
        queue.push(b"def");
        assert_eq!(queue.live(), b"def");
        assert_eq!(queue.bytes.len(), 3);
    }

    #[test]
    fn holds_no_memory_before_use_and_returns_that_of_a_burst() {
        let mut queue = Queue::new();
        assert_eq!(queue.capacity(), 0);
        queue.push(&vec![0; 4 * KEEP]);
        queue.consume(4 * KEEP);
        assert_eq!(queue.capacity(), 0);
        queue.push(b"x");
        queue.consume(1);
        assert!(queue.capacity() > 0);
        queue.release();
        assert_eq!(queue.capacity(), 0);
    }

    #[test]
    fn memory_that_is_given_back_is_used_by_the_next_queue() {
        let mut queue = Queue::new();
        queue.tail(2 * SMALLEST).extend_from_slice(b"abc");
        let memory = queue.live().as_ptr();
        queue.release();
        assert_eq!(queue.live(), b"abc", "it is in use");
        queue.free();
        assert_eq!((queue.live(), queue.capacity()), (&b""[..], 0));
        let mut next = Queue::new();
        let tail = next.tail(2 * SMALLEST);
        assert_eq!((tail.as_ptr(), tail.len()), (memory, 0));
        assert_ne!(queue.tail(2 * SMALLEST).as_ptr(), memory);
    }

    #[test]
    fn memory_stays_bounded_while_a_stream_passes_through() {
        let mut queue = Queue::new();
        for _ in 0..10_000 {
            queue.push(&[7; 1000]);
            queue.consume(999);
            if queue.len() > 500 {
                queue.consume(400);
            }
        }
        assert!(queue.capacity() <= KEEP);
    }
}
