//! Received bytes that wait to be read, and what the reader waits for (pure).

use std::io;

use super::error::StickyError;
use crate::io::awaits::Awaits;
use crate::io::buffer::{KEEP, Queue};

/// The initial size of one receive: a request, or a packet of a bulk transfer.
const RECEIVE_SIZE: usize = 16 * 1024;

/// The outcome of one non-blocking read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// So many bytes were appended to the input, at least one.
    Data(usize),
    /// The peer will send no more.
    Eof,
    /// Nothing is there now.
    Block,
}

/// The input of a stream.
#[derive(Debug)]
pub struct Input {
    queue: Queue,
    /// The size of the next receive; grows while a bulk transfer fills it.
    receive_size: usize,
    /// How many bytes were consumed so far.
    consumed: u64,
    /// Leading bytes that a suspended read has seen and cannot use: they do not count as ready.
    held: usize,
    /// What the suspended read waits for.
    awaits: Awaits,
    /// How many bytes to discard before input counts.
    skip: u32,
    /// See [`Input::is_preloaded`].
    preloaded: bool,
    /// The peer has sent all it will send.
    eof: bool,
    error: StickyError,
}

impl Input {
    /// No input yet.
    pub(super) fn new() -> Input {
        Input {
            queue: Queue::new(),
            receive_size: RECEIVE_SIZE,
            consumed: 0,
            held: 0,
            awaits: Awaits::More,
            skip: 0,
            preloaded: false,
            eof: false,
            error: StickyError::None,
        }
    }

    /// The bytes that were not consumed.
    pub fn live(&self) -> &[u8] {
        self.queue.live()
    }

    /// Appends what another process has received.
    pub fn preload(&mut self, bytes: &[u8]) {
        self.queue.push(bytes);
        self.preloaded = !bytes.is_empty();
    }

    /// Whether the first input was received by another process and is still unused.
    pub fn is_preloaded(&self) -> bool {
        self.preloaded && self.consumed == 0
    }

    /// Where to receive about `size` bytes, or the usual number if that is larger.
    pub(super) fn room(&mut self, size: usize) -> &mut Vec<u8> {
        self.queue.tail(size.max(self.receive_size))
    }

    /// `received` bytes were appended to the room; `filled`: which was all of it. Returns how many of
    /// them count.
    pub(super) fn received(&mut self, received: usize, filled: bool) -> usize {
        if filled {
            self.receive_size = (self.receive_size * 2).min(KEEP);
        }
        let dropped = received.min(self.skip as usize);
        self.skip -= dropped as u32;
        self.queue.consume(dropped);
        received - dropped
    }

    /// Drops the first `n` bytes, O(1) amortised.
    pub fn consume(&mut self, n: usize) {
        let n = self.note_consumed(n);
        self.queue.consume(n);
    }

    /// As [`Input::consume`], but the bytes stay in memory, unchanged, until the next call.
    pub fn consume_lazily(&mut self, n: usize) {
        let n = self.note_consumed(n);
        self.queue.skip(n);
    }

    fn note_consumed(&mut self, n: usize) -> usize {
        let n = n.min(self.queue.len());
        self.held = 0;
        self.consumed += n as u64;
        n
    }

    /// How many bytes were consumed so far: the position of `live()[0]`.
    pub fn position(&self) -> u64 {
        self.consumed
    }

    /// Marks all present bytes as seen by a suspended read that needs more.
    pub fn hold(&mut self, awaits: Awaits) {
        (self.held, self.awaits) = (self.queue.len(), awaits);
    }

    /// What the read waits for that was suspended last.
    pub fn awaits(&self) -> Awaits {
        self.awaits
    }

    /// Whether the suspended read has what it waits for; it has seen the first `seen` bytes.
    pub(super) fn suffices(&self, seen: usize) -> bool {
        self.awaits.is_met(self.queue.live(), seen)
    }

    /// Whether there are bytes that no suspended read has seen. A hold counts once: the next to ask is
    /// not the read that was suspended.
    pub(super) fn has_unseen(&mut self) -> bool {
        self.queue.len() > std::mem::take(&mut self.held)
    }

    /// How many bytes to discard before input counts.
    pub fn skip(&self) -> u32 {
        self.skip
    }

    /// Discards the next `skip` bytes that are received; none may be buffered.
    pub fn set_skip(&mut self, skip: u32) {
        self.skip = skip;
    }

    /// Whether the peer will send no more.
    pub(super) fn is_eof(&self) -> bool {
        self.eof
    }

    /// The peer will send no more.
    pub(super) fn set_eof(&mut self) {
        self.eof = true;
    }

    /// Whether a read may be tried.
    ///
    /// # Errors
    /// "Previous read error", or an error that was not reported yet.
    pub fn check(&mut self) -> io::Result<()> {
        self.error.report("Previous read error")
    }

    /// A read has failed and reports the error: what was received is dropped.
    pub(super) fn fail(&mut self) {
        self.error = StickyError::Reported;
        self.queue.clear();
    }

    /// The next read reports `error`.
    pub(super) fn keep_error(&mut self, error: &io::Error) {
        self.error.keep(error);
    }

    /// Gives back the memory of a receive that received nothing.
    pub(super) fn release(&mut self) {
        self.queue.release();
    }

    /// Drops all bytes and their memory.
    pub(super) fn drop_all(&mut self) {
        self.queue.free();
    }

    /// The memory of the buffer, in bytes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.queue.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(input: &mut Input, bytes: &[u8]) -> usize {
        input.room(0).extend_from_slice(bytes);
        input.received(bytes.len(), false)
    }

    #[test]
    fn input_is_consumed_in_order_and_counted() {
        let mut input = Input::new();
        assert_eq!(receive(&mut input, b"abcd"), 4);
        input.consume(1);
        input.consume_lazily(2);
        assert_eq!((input.live(), input.position()), (&b"d"[..], 3));
        input.consume(9);
        assert_eq!((input.live(), input.position()), (&b""[..], 4));
    }

    #[test]
    fn bytes_to_skip_do_not_count() {
        let mut input = Input::new();
        input.set_skip(5);
        assert_eq!(receive(&mut input, b"abc"), 0);
        assert_eq!((receive(&mut input, b"defg"), input.skip()), (2, 0));
        assert_eq!((input.live(), input.position()), (&b"fg"[..], 0));
    }

    #[test]
    fn held_input_is_unseen_again_once_more_comes_or_somebody_else_asks() {
        let mut input = Input::new();
        receive(&mut input, b"GET /");
        input.hold(Awaits::EmptyLine(100));
        assert!(!input.has_unseen());
        assert!(input.has_unseen());
        input.hold(Awaits::EmptyLine(100));
        receive(&mut input, b"\r\n\r\n");
        assert!(input.suffices(5) && input.has_unseen());
    }

    #[test]
    fn a_transfer_that_fills_its_room_gets_more() {
        let mut input = Input::new();
        input.received(0, true);
        input.received(0, true);
        assert!(input.room(0).capacity() >= 4 * RECEIVE_SIZE);
        input.release();
        assert_eq!(input.memory(), 0);
    }

    #[test]
    fn an_error_drops_what_was_received() {
        let mut input = Input::new();
        receive(&mut input, b"abc");
        input.fail();
        assert_eq!(input.live(), b"");
        assert_eq!(input.check().unwrap_err().to_string(), "Previous read error");
    }
}
