//! How far a connection has got with its messages: what has to be known of it wherever it waits.

use std::io;

use super::{Fill, Stream};

/// What travels with a waiting connection from process to process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its client has sent a message that was taken: nothing that it did not ask for may follow.
    pub asked: bool,
    /// So many bytes of input are still to be discarded before input counts: the rest of a message
    /// that nobody wants.
    pub skip: u32,
}

const ASKED: u64 = 1 << 32;

impl Standing {
    /// It as a number, for messages and shared memory.
    pub fn word(self) -> u64 {
        u64::from(self.skip) | if self.asked { ASKED } else { 0 }
    }

    /// The standing with that number.
    pub fn of(word: u64) -> Self {
        Standing { asked: word & ASKED != 0, skip: word as u32 }
    }
}

impl Stream {
    /// How far the connection has got.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Sets how far the connection has got. Where input is to be skipped, none may be buffered.
    pub fn set_standing(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// Discards the input that is to be skipped, as far as it is there; true if nothing else is.
    ///
    /// # Errors
    /// As [`Stream::fill`].
    pub fn skips(&mut self) -> io::Result<bool> {
        Ok(self.standing.skip > 0 && self.fill()? == Fill::Block)
    }

    /// Drops what is to be skipped of `received` new bytes; how many are left of them.
    pub(super) fn skip(&mut self, received: usize) -> usize {
        let dropped = received.min(self.standing.skip as usize);
        self.standing.skip -= dropped as u32;
        self.input.consume(dropped);
        received - dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_survives_its_encoding() {
        for standing in [
            Standing::default(),
            Standing { asked: true, skip: 0 },
            Standing { asked: false, skip: u32::MAX },
            Standing { asked: true, skip: 7 },
        ] {
            assert_eq!(Standing::of(standing.word()), standing);
        }
    }
}
