//! Compressed bodies: the same content or error however they arrive and however much is taken at once.
#![no_main]

mod support;

use libfuzzer_sys::fuzz_target;
use moonbridge::http::wire::content_coding::{ContentCoding, ContentDecoder};

const LIMIT: usize = 100_000;

/// The content, or the status with which the body is refused.
fn decode(coding: ContentCoding, pieces: &[&[u8]], goal: usize) -> Result<Vec<u8>, u16> {
    let mut decoder = ContentDecoder::new(coding, LIMIT as u64);
    let mut all = Vec::new();
    let mut take = |decoder: &mut ContentDecoder| -> Result<bool, u16> {
        let mut out = Vec::new();
        decoder.decode(&mut out, goal).map_err(|refusal| refusal.code())?;
        all.extend_from_slice(&out);
        assert!(out.len() <= goal && all.len() <= LIMIT);
        Ok(out.len() == goal)
    };
    for piece in pieces {
        decoder.input().extend_from_slice(piece);
        while !decoder.wants_more() {
            take(&mut decoder)?;
        }
    }
    loop {
        let is_full = take(&mut decoder)?;
        if decoder.end(is_full).map_err(|refusal| refusal.code())? {
            return Ok(all);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let [whole, bytes, pieces] = support::splits(input);
    for coding in [ContentCoding::Gzip, ContentCoding::Deflate] {
        let outcome = decode(coding, &whole, usize::MAX);
        assert_eq!(outcome, decode(coding, &bytes, 1000));
        assert_eq!(outcome, decode(coding, &pieces, 7));
    }
});
