//! Compression for all connections of a process: no connection has memory of its own for it.

use crate::http::wire::websocket::deflate::{Deflater, Inflater};
use crate::http::wire::websocket::frame::{self, Opcode};

/// Shorter messages are not compressed: that would save nothing.
const LEAST: usize = 64;

/// What compresses and decompresses.
pub struct Codec {
    /// Decompresses messages that refer to no earlier ones.
    pub inflater: Inflater,
    deflater: Option<Deflater>,
    packed: Vec<u8>,
}

impl Default for Codec {
    fn default() -> Self {
        Codec { inflater: Inflater::new(false), deflater: None, packed: Vec::new() }
    }
}

impl Codec {
    /// Appends a message as a frame, compressed for a window of that size if that makes it shorter. 0 bits: it is
    /// not compressed.
    pub fn append(
        &mut self,
        out: &mut Vec<u8>,
        opcode: Opcode,
        message: &[u8],
        bits: u8,
        key: Option<[u8; 4]>,
    ) {
        self.packed.clear();
        let packs = bits > 0 && message.len() >= LEAST && self.compress(message, bits);
        let payload = if packs { &self.packed } else { message };
        frame::append(out, opcode, packs, payload, key);
        self.packed.shrink_to(super::KEEP);
    }

    fn compress(&mut self, message: &[u8], bits: u8) -> bool {
        let deflater = match &mut self.deflater {
            Some(deflater) if deflater.bits() == bits => deflater,
            other => other.insert(Deflater::new(bits)),
        };
        deflater.compress(message, &mut self.packed) && self.packed.len() < message.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_compressed_if_that_makes_them_shorter() {
        let mut codec = Codec::default();
        let mut first = |message: &[u8], bits| {
            let mut out = Vec::new();
            codec.append(&mut out, Opcode::Binary, message, bits, None);
            (out[0], out.len())
        };
        let (long, short) = (vec![b'a'; 1000], vec![b'a'; LEAST - 1]);
        let noise: Vec<u8> =
            (0..200u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_eq!(first(&long, 0), (0x82, 1004));
        assert_eq!(first(&short, 15), (0x82, LEAST + 1));
        assert_eq!(first(&noise, 15), (0x82, 204));
        for bits in [15, 9, 15] {
            let (head, size) = first(&long, bits);
            assert!(head == 0xc2 && size < 50);
        }
    }
}
