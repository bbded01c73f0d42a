//! Where frames begin and end that pass by.

use super::close::Failure;
use super::frame::{HeaderProgress, Opcode, parse};

/// A position in a sequence of frames.
#[derive(Default)]
pub struct FrameCursor {
    /// The beginning of a header.
    header: Vec<u8>,
    /// How many bytes of the payload follow.
    left: u64,
}

impl FrameCursor {
    /// Whether the last frame is complete.
    pub fn is_between(&self) -> bool {
        self.left == 0 && self.header.is_empty()
    }

    /// These bytes pass by. Whether a ping begins in them.
    ///
    /// # Errors
    /// They are no frames.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Result<bool, Failure> {
        let mut has_ping = false;
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= length as u64;
                bytes = &bytes[length..];
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            if let HeaderProgress::Complete(header) = parse(&self.header)? {
                has_ping |= header.opcode == Opcode::Ping;
                self.left = header.length;
                self.header.clear();
            }
        }
        Ok(has_ping)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::append;
    use super::*;

    #[test]
    fn frames_end_where_they_do_however_they_are_split() {
        let mut frames = Vec::new();
        let mut ends = vec![0];
        for (opcode, length) in [(Opcode::Text, 0), (Opcode::Binary, 70_000), (Opcode::Ping, 0)] {
            append(&mut frames, opcode, false, &vec![b'x'; length], None);
            ends.push(frames.len());
        }
        for size in [1, 2, 3, 1000, frames.len()] {
            let (mut cursor, mut at, mut pings) = (FrameCursor::default(), 0, 0);
            assert!(cursor.is_between());
            for piece in frames.chunks(size) {
                pings += usize::from(cursor.pass(piece).unwrap());
                at += piece.len();
                assert_eq!(cursor.is_between(), ends.contains(&at), "{at} of {size}");
            }
            assert_eq!(pings, 1);
        }
        assert!(FrameCursor::default().pass(b"\xff\xff").is_err());
    }
}
