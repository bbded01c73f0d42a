//! Records that were received and not processed, and how much to receive at once.

use crate::io::buffer::Queue;

/// The size of one receive: a record of the largest size (RFC 8446, 5.2).
const RECEIVE_SIZE: usize = 5 + 16 * 1024 + 256;

/// The largest size of one receive, for large transfers.
const LARGEST_RECEIVE: usize = 4 * RECEIVE_SIZE;

/// How much may be received that cannot be processed: the messages of a handshake, in records of
/// any size.
const INCOMPLETE_LIMIT: usize = 256 * 1024;

/// The length of the longest method of HTTP that is recognised, in bytes.
const LONGEST_METHOD: usize = 32;

/// Records that were received and not processed.
pub struct ReceivedRecords {
    /// Their bytes.
    pub queue: Queue,
    /// The size of the next receive.
    receive_size: usize,
}

impl ReceivedRecords {
    /// None yet.
    pub const fn new() -> Self {
        ReceivedRecords { queue: Queue::new(), receive_size: RECEIVE_SIZE }
    }

    /// Where to receive.
    pub fn room(&mut self) -> &mut Vec<u8> {
        self.grow(self.queue.len());
        self.queue.tail(self.receive_size)
    }

    /// There were `before` bytes before the records that are complete were processed.
    pub fn note_processed(&mut self, before: usize) {
        self.grow(before.saturating_sub(self.queue.len()));
    }

    /// A receive that came to so many bytes may have been too small.
    fn grow(&mut self, received: usize) {
        if received >= self.receive_size {
            self.receive_size = (self.receive_size * 2).min(LARGEST_RECEIVE);
        }
    }

    /// Whether there is too much that cannot be processed.
    pub fn is_oversized(&self) -> bool {
        self.queue.len() > INCOMPLETE_LIMIT
    }

    /// Whether it is a request of HTTP, or the beginning of one, instead of a handshake: a method in capital letters,
    /// possibly after empty lines (RFC 9112, 2.2). Records begin with a byte that is no letter.
    pub fn is_plain_http(&self) -> bool {
        let begun = self.queue.live();
        let line = begun.trim_ascii_start();
        let method = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let is_part = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
        !begun.is_empty() && method.len() <= LONGEST_METHOD && method.iter().all(is_part)
    }

    /// Gives back memory that an idle connection does not need.
    pub fn release(&mut self) {
        self.queue.release();
        self.receive_size = RECEIVE_SIZE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receives_grow_with_full_ones_up_to_a_limit_and_shrink_when_idle() {
        let mut records = ReceivedRecords::new();
        for size in [1, 2, 4, 4] {
            assert_eq!(records.receive_size, size * RECEIVE_SIZE);
            let received = vec![23; records.receive_size];
            records.room().extend_from_slice(&received);
            records.queue.clear();
            records.note_processed(received.len());
        }
        records.release();
        records.room().push(23);
        records.note_processed(1);
        assert_eq!(records.receive_size, RECEIVE_SIZE);
    }

    #[test]
    fn an_incomplete_record_that_fills_a_receive_makes_the_next_one_larger() {
        let mut records = ReceivedRecords::new();
        records.queue.push(&[23; RECEIVE_SIZE]);
        assert!(records.room().capacity() >= RECEIVE_SIZE + RECEIVE_SIZE);
        assert_eq!(records.receive_size, 2 * RECEIVE_SIZE);
    }

    #[test]
    fn more_than_256_kib_are_oversized() {
        let mut records = ReceivedRecords::new();
        records.queue.push(&vec![22; INCOMPLETE_LIMIT]);
        assert!(!records.is_oversized());
        records.queue.push(b"x");
        assert!(records.is_oversized());
    }

    #[test]
    fn requests_without_tls_are_recognised() {
        for (bytes, is_http) in [
            (&b"GET / HTTP/1.1\r\n"[..], true),
            (b"OPTIONS * HTTP/1.1", true),
            (b"P", true),
            (b"\r\nPROPFIND /", true),
            (b"PRI * HTTP/2.0", true),
            (b"\r\n", true),
            (b"get /", false),
            (b"P\0", false),
            (&[b'P'; 33], false),
            (b"", false),
        ] {
            let mut records = ReceivedRecords::new();
            records.queue.push(bytes);
            assert_eq!(records.is_plain_http(), is_http);
        }
        let mut hello = ReceivedRecords::new();
        hello.queue.push(b"\x16\x03\x01\x02\x00\x01");
        assert!(!hello.is_plain_http());
    }
}
