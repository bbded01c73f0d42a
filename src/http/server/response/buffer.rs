//! The bytes of a response that are to be sent, and where its head stands among them (pure).

use crate::sys::os::output_slot::{Completion, DeferredOutput};

/// How much of a response waits for its end, in bytes: a body of 64 KiB, its head and its framing.
pub const MOST_WAITING: usize = 80 * 1024;

/// Bytes that are to be sent. A body is appended directly.
#[derive(Debug, Default)]
pub struct ResponseBuffer {
    pub bytes: Vec<u8>,
    /// Where the head of the response, or of an informational one, begins.
    head_start: usize,
    /// Where a further line of the finished head would stand, until that has left.
    head_end: usize,
    /// Whether a part of the final response was sent.
    has_left: bool,
    /// The bytes wait elsewhere, see [`ResponseBuffer::defer`].
    is_deferred: bool,
    /// They have waited before, see [`DeferredOutput::is_old`].
    is_old: bool,
}

impl ResponseBuffer {
    /// Empties it for the next response; memory is kept.
    pub fn begin(&mut self) {
        self.bytes.clear();
        (self.head_start, self.head_end) = (0, 0);
        (self.has_left, self.is_deferred, self.is_old) = (false, false, false);
    }

    /// Whether a part of the final response was sent.
    pub fn has_left(&self) -> bool {
        self.has_left || self.is_deferred
    }

    /// A head begins here.
    pub fn begin_head(&mut self) {
        self.head_start = self.bytes.len();
    }

    /// Where the head begins.
    pub fn head_start(&self) -> usize {
        self.head_start
    }

    /// The head has all its lines.
    pub fn finish_head(&mut self) {
        self.head_end = self.bytes.len();
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Takes the head, and all after it.
    pub fn take_head(&mut self) -> Vec<u8> {
        self.bytes.split_off(self.head_start.min(self.bytes.len()))
    }

    /// Drops the head, and all after it.
    pub fn drop_head(&mut self) {
        self.bytes.truncate(self.head_start);
    }

    /// Adds a line to the finished head.
    pub fn insert_line(&mut self, line: &[u8]) {
        self.bytes.splice(self.head_end..self.head_end, line.iter().copied());
    }

    /// Inserts an informational response before the head.
    pub fn insert_before_head(&mut self, response: &[u8]) {
        self.bytes.splice(self.head_start..self.head_start, response.iter().copied());
        self.head_start += response.len();
        self.head_end += response.len();
    }

    /// Takes the bytes, for the flusher to send if the handler does nothing more for a while.
    #[inline(always)]
    pub fn defer(&mut self, completion: Option<Completion>) -> DeferredOutput {
        self.is_deferred = true;
        let bytes = std::mem::take(&mut self.bytes);
        DeferredOutput { bytes, completion, is_old: self.is_old, extras: None }
    }

    /// Whether [`ResponseBuffer::restore`] is due.
    pub fn is_deferred(&self) -> bool {
        self.is_deferred
    }

    /// Takes back the deferred bytes, unless some have left. Returns whether it has.
    pub fn restore(&mut self, waiting: Option<DeferredOutput>) -> bool {
        self.is_deferred = false;
        self.is_old = waiting.as_ref().is_some_and(|waiting| waiting.is_old);
        match waiting {
            Some(waiting) => {
                self.bytes = waiting.bytes;
                true
            }
            None => {
                self.has_left = true;
                false
            }
        }
    }

    /// All bytes are sent.
    pub fn sent(&mut self) {
        self.bytes.clear();
        (self.has_left, self.is_old) = (true, false);
    }

    /// Those before the head, which is not finished, are sent.
    pub fn sent_before_head(&mut self) {
        self.is_old = false;
        self.bytes.drain(..self.head_start);
        self.head_start = 0;
    }

    /// The first bytes are sent, with a part of the final response if `has_status`.
    pub fn sent_some(&mut self, count: usize, has_status: bool) {
        self.is_old = false;
        self.has_left |= has_status;
        self.bytes.drain(..count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_completed_replaced_and_preceded_until_it_has_left() {
        let mut buffer = ResponseBuffer::default();
        buffer.bytes.extend_from_slice(b"before");
        buffer.begin_head();
        buffer.bytes.extend_from_slice(b"status\r\n");
        buffer.sent_before_head();
        assert_eq!((&buffer.bytes[..], buffer.head_start()), (&b"status\r\n"[..], 0));
        buffer.finish_head();
        buffer.bytes.extend_from_slice(b"body");
        buffer.insert_before_head(b"100\r\n\r\n");
        buffer.insert_line(b"line\r\n");
        assert_eq!(buffer.bytes, b"100\r\n\r\nstatus\r\nline\r\n\r\nbody");
        buffer.sent_some(7, false);
        assert!(!buffer.has_left());
        buffer.sent();
        assert!(buffer.has_left() && buffer.bytes.is_empty());
        buffer.begin();
        assert!(!buffer.has_left());
    }

    #[test]
    fn deferred_bytes_come_back_unless_some_have_left() {
        let mut buffer = ResponseBuffer::default();
        buffer.bytes.extend_from_slice(b"waits");
        let waiting = buffer.defer(None);
        assert!(buffer.is_deferred() && buffer.has_left() && buffer.bytes.is_empty());
        assert!(buffer.restore(Some(waiting)));
        assert!(!buffer.has_left() && buffer.bytes == b"waits");
        buffer.defer(None);
        assert!(!buffer.restore(None) && buffer.has_left());
    }
}
