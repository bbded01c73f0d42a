//! The state of a connection between its messages, which every process that holds it needs (pure).

use crate::io::Stream;

/// Moves with a waiting connection from process to process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The client has sent a message that was handled: nothing unsolicited may follow.
    pub asked: bool,
    /// How many bytes of input to discard before input counts: the rest of an unread message.
    pub skip: u32,
}

const ASKED: u64 = 1 << 32;

impl Standing {
    /// That of a connection.
    pub fn of_stream(stream: &Stream) -> Self {
        Standing { asked: stream.handler.asked, skip: stream.duplex.input.skip() }
    }

    /// Sets it. If input is to be skipped, none may be buffered.
    pub fn apply(self, stream: &mut Stream) {
        stream.handler.asked = self.asked;
        stream.duplex.input.set_skip(self.skip);
    }

    /// Encodes it as a number, for messages and shared memory.
    pub fn word(self) -> u64 {
        u64::from(self.skip) | if self.asked { ASKED } else { 0 }
    }

    /// Decodes the number.
    pub fn of(word: u64) -> Self {
        Standing { asked: word & ASKED != 0, skip: word as u32 }
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
