//! Compression of messages (RFC 7692 7.2). Each message is compressed by itself.

use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress, Status};

use super::close::{Failure, INVALID_DATA, TOO_LONG};

/// What ends each message, and is not sent (RFC 7692 7.2.1): an empty block.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// How much room is made at once for what is decompressed.
const ROOM: usize = 16 * 1024;

/// How long the compressed form of a message of that length may be. What cannot be compressed becomes longer: by 9/8 in a
/// block with fixed codes (RFC 1951 3.2.6), by 5 bytes in each stored block (3.2.4), of which the peer may make many.
pub fn bound(length: usize) -> usize {
    length.saturating_add(length / 8).saturating_add(64)
}

/// Compresses messages. One serves any number of connections with the same window.
pub struct Deflater {
    state: Compress,
    bits: u8,
}

impl Deflater {
    /// One for windows of that size, as a power of two from 9 to 15.
    pub fn new(bits: u8) -> Self {
        let bits = bits.clamp(9, 15);
        // Fast: what takes longer saves little of short texts.
        Deflater { state: Compress::new_with_window_bits(Level::new(2), false, bits), bits }
    }

    /// The size of its window.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Appends the compressed message. False, and nothing is appended, if that is not possible.
    pub fn compress(&mut self, message: &[u8], out: &mut Vec<u8>) -> bool {
        let from = out.len();
        self.state.reset();
        let mut rest = message;
        loop {
            // So much that the tail comes with it (RFC 7692 7.2.1 wants it there to be removed).
            out.reserve(rest.len() / 2 + 64);
            let before = self.state.total_in();
            let outcome = self.state.compress_vec(rest, out, FlushCompress::Sync);
            let used = (self.state.total_in() - before) as usize;
            rest = rest.get(used..).unwrap_or_default();
            match outcome {
                Ok(_) if rest.is_empty() && out.len() < out.capacity() => break,
                Ok(_) => {}
                Err(_) => {
                    out.truncate(from);
                    return false;
                }
            }
        }
        match out.ends_with(&TAIL) && out.len() >= from + TAIL.len() {
            true => out.truncate(out.len() - TAIL.len()),
            false => out.truncate(from),
        }
        // An empty message is an empty block (RFC 7692 7.2.3.6).
        if message.is_empty() {
            out.truncate(from);
            out.push(0);
        }
        out.len() > from
    }
}

/// Decompresses messages. One serves any number of connections, unless their peers refer to earlier messages.
pub struct Inflater {
    state: Decompress,
    keeps: bool,
}

impl Inflater {
    /// `keeps`: messages may refer to those before them.
    pub fn new(keeps: bool) -> Self {
        Inflater { state: Decompress::new(false), keeps }
    }

    /// Appends the decompressed message, unless the output becomes longer than `limit`.
    ///
    /// # Errors
    /// It is too long, or cannot be decompressed.
    pub fn inflate(
        &mut self,
        message: &[u8],
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), Failure> {
        if !self.keeps {
            self.state.reset(false);
        }
        self.run(message, out, limit)?;
        self.run(&TAIL, out, limit)
    }

    fn run(&mut self, input: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), Failure> {
        let mut rest = input;
        loop {
            if out.len() > limit {
                return Err(Failure { code: TOO_LONG, reason: "message too long" });
            }
            let most = (limit - out.len()).saturating_add(1);
            out.reserve(ROOM.min(most));
            let (before, length) = (self.state.total_in(), out.len());
            let outcome = self.state.decompress_vec(rest, out, FlushDecompress::Sync);
            let used = (self.state.total_in() - before) as usize;
            rest = rest.get(used..).unwrap_or_default();
            match outcome {
                // The last block of a stream: what follows is another one (RFC 7692 7.2.3.4).
                Ok(Status::StreamEnd) => self.state.reset(false),
                Ok(_) if rest.is_empty() && out.len() < out.capacity() => return Ok(()),
                Ok(_) if used > 0 || out.len() > length => {}
                Ok(Status::BufError) if rest.is_empty() => return Ok(()),
                Ok(_) | Err(_) => {
                    return Err(Failure {
                        code: INVALID_DATA,
                        reason: "message cannot be decompressed",
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inflated(inflater: &mut Inflater, message: &[u8], limit: usize) -> Result<Vec<u8>, u16> {
        let mut out = Vec::new();
        inflater.inflate(message, &mut out, limit).map(|()| out).map_err(|failure| failure.code)
    }

    /// RFC 7692 7.2.3.1 to 7.2.3.5.
    #[test]
    fn the_examples_of_the_rfc() {
        let mut inflater = Inflater::new(true);
        for message in [
            &b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..],
            b"\xf2\x00\x11\x00\x00",
            b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
            b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
            b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
        ] {
            assert_eq!(
                inflated(&mut inflater, message, 5).as_deref(),
                Ok(&b"Hello"[..]),
                "{message:?}"
            );
        }
    }

    #[test]
    fn limits_are_kept_to_the_byte() {
        let mut packed = Vec::new();
        assert!(Deflater::new(15).compress(&[b'a'; 100_000], &mut packed));
        assert!(packed.len() < 1000);
        let mut inflater = Inflater::new(false);
        assert_eq!(inflated(&mut inflater, &packed, 99_999), Err(TOO_LONG));
        assert_eq!(inflated(&mut inflater, &packed, 100_000).map(|text| text.len()), Ok(100_000));
    }

    #[test]
    fn garbage_is_refused_and_does_no_harm_to_what_follows() {
        let mut inflater = Inflater::new(false);
        assert_eq!(inflated(&mut inflater, b"\xff\xff\xff", 100), Err(INVALID_DATA));
        assert_eq!(
            inflated(&mut inflater, b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5).as_deref(),
            Ok(&b"Hello"[..])
        );
        assert_eq!(
            inflated(&mut inflater, b"\xf2\x00\x11\x00\x00", 5),
            Err(INVALID_DATA),
            "no context"
        );
    }

    proptest! {
        #[test]
        fn messages_survive(
            message in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..3000),
                "[ab]{0,9000}".prop_map(String::into_bytes),
            ],
            bits in 9u8..16,
        ) {
            let (mut deflater, mut inflater) = (Deflater::new(bits), Inflater::new(false));
            for _ in 0..2 {
                let mut packed = Vec::new();
                prop_assert!(deflater.compress(&message, &mut packed));
                let out = inflated(&mut inflater, &packed, message.len());
                prop_assert_eq!(out.as_ref(), Ok(&message));
            }
        }

        #[test]
        fn whatever_comes_stays_within_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            let _ = Inflater::new(false).inflate(&bytes, &mut out, 1000);
            prop_assert!(out.len() <= 1001);
        }
    }
}
