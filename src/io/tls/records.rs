//! Records that wait to be sent (pure). Their memory is not cleared between two of them.

/// Sealed records: a queue, appended at its end and sent from its front.
#[derive(Debug, Default)]
pub struct Records {
    /// All of it initialised; what waits is from `start` to `end`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Records {
    /// What waits.
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where to write the next `size` bytes.
    pub fn room(&mut self, size: usize) -> &mut [u8] {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
        if self.bytes.len() < self.end + size {
            self.bytes.resize(self.end + size, 0);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// `n` bytes of the room were written.
    pub fn written(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    /// Appends bytes that are sealed already.
    pub fn put(&mut self, bytes: &[u8]) {
        let room = self.room(bytes.len());
        room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.written(bytes.len());
    }

    /// The first `n` bytes were sent.
    pub fn sent(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Gives back the memory if nothing waits.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Records::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_sent_in_order_and_memory_is_used_again() {
        let mut records = Records::default();
        records.room(4)[..4].copy_from_slice(b"abcd");
        records.written(3);
        records.room(2)[..2].copy_from_slice(b"de");
        records.written(2);
        assert_eq!(records.waiting(), b"abcde");
        records.sent(2);
        assert_eq!(records.waiting(), b"cde");
        records.sent(9);
        assert!(records.is_empty());
        assert_eq!(records.room(5).len(), 5);
        records.release();
        assert_eq!(records.bytes.capacity(), 0);
    }
}
