//! Chunked bodies: the same body, rest and error however they arrive.
#![no_main]

mod support;

use libfuzzer_sys::fuzz_target;
use moonbridge::http::wire::chunked::{ChunkedDecoder, ChunkedError, ChunkedEvent, ChunkedLimits};

/// The body, whether it is complete, and the number of bytes that were used.
fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, usize), ChunkedError> {
    let limits =
        ChunkedLimits { line: 64, overhead: 64, trailers: 64, trailer_fields: 4, body: 4096 };
    let mut decoder = ChunkedDecoder::new(limits);
    let (mut body, mut total) = (Vec::new(), 0);
    for mut rest in pieces.iter().copied() {
        loop {
            let (used, event) = decoder.decode(rest)?;
            rest = &rest[used..];
            total += used;
            match event {
                ChunkedEvent::Data(data) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(data);
                }
                ChunkedEvent::End => return Ok((body, true, total)),
                ChunkedEvent::More => break assert!(rest.is_empty()),
            }
        }
    }
    assert!(!decoder.is_end());
    Ok((body, false, total))
}

fuzz_target!(|input: &[u8]| {
    let [whole, bytes, pieces] = support::splits(input);
    let outcome = decode(&whole);
    assert_eq!(outcome, decode(&bytes));
    assert_eq!(outcome, decode(&pieces));
    if let Ok((body, _, used)) = outcome {
        assert!(body.len() <= 4096 && body.len() <= used);
    }
});
