//! What waits for a client that is slow (pure).

use std::collections::VecDeque;
use std::rc::Rc;

/// Bytes that a client has not taken.
#[derive(Default)]
pub struct StreamQueue {
    pieces: VecDeque<Piece>,
    /// How many bytes of the first piece are sent.
    sent: usize,
    size: usize,
    /// When the client last took something, in milliseconds of the shared clock.
    pub progress: u64,
    /// When that was last looked at in the kernel.
    pub looked_at: u64,
    /// How many bytes it had not taken then, here and in the kernel.
    pub untaken: usize,
}

struct Piece {
    bytes: Rc<[u8]>,
    /// It may be dropped.
    is_message: bool,
}

impl StreamQueue {
    /// How many bytes wait after the piece that is being sent.
    pub fn waiting(&self) -> u64 {
        let first = self.pieces.front().map_or(0, |piece| piece.bytes.len());
        self.size.saturating_sub(first) as u64
    }

    /// How many bytes are not sent.
    pub fn left(&self) -> usize {
        self.size - self.sent
    }

    /// Adds a piece. Of it, `sent` bytes are sent already: 0 if anything waits.
    pub fn add(&mut self, bytes: Rc<[u8]>, sent: usize, is_message: bool) {
        if self.pieces.is_empty() {
            self.sent = sent;
        }
        self.size += bytes.len();
        self.pieces.push_back(Piece { bytes, is_message });
    }

    /// All pieces, of which nothing was sent, and whether they may be dropped.
    pub fn into_pieces(self) -> impl Iterator<Item = (Rc<[u8]>, bool)> {
        self.pieces.into_iter().map(|piece| (piece.bytes, piece.is_message))
    }

    /// The next bytes.
    pub fn next(&self) -> Option<&[u8]> {
        self.pieces.front().and_then(|piece| piece.bytes.get(self.sent..))
    }

    /// The next `count` bytes are sent.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.pieces.front().is_some_and(|piece| piece.bytes.len() <= self.sent)
            && let Some(piece) = self.pieces.pop_front()
        {
            self.sent = 0;
            self.size -= piece.bytes.len();
        }
    }

    /// Drops the oldest message that is not being sent. False if there is none.
    pub fn drop_oldest(&mut self) -> bool {
        let behind_first = self.pieces.iter().enumerate().skip(1);
        let Some(place) = behind_first.filter(|(_, it)| it.is_message).map(|(at, _)| at).next()
        else {
            return false;
        };
        if let Some(piece) = self.pieces.remove(place) {
            self.size -= piece.bytes.len();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_leave_in_order_and_the_oldest_whole_message_is_dropped() {
        let mut queue = StreamQueue::default();
        queue.add(Rc::from(&b"first"[..]), 2, true);
        queue.add(Rc::from(&b"beat"[..]), 0, false);
        queue.add(Rc::from(&b"second"[..]), 0, true);
        queue.add(Rc::from(&b"third"[..]), 0, true);
        assert_eq!((queue.waiting(), queue.left()), (15, 18));
        assert!(queue.drop_oldest());
        let mut seen = Vec::new();
        while let Some(bytes) = queue.next() {
            seen.push(bytes[0]);
            queue.advance(1);
        }
        assert_eq!(seen, b"rstbeatthird");
        assert_eq!((queue.waiting(), queue.left(), queue.drop_oldest()), (0, 0, false));
    }
}
