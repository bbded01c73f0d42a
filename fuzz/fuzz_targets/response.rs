//! Responses as the client reads them: the same head, body and error however they arrive.
#![no_main]

mod support;

use libfuzzer_sys::fuzz_target;
use moonbridge::http::client::body::{Piece, ResponseFraming};
use moonbridge::http::client::head::ResponseHead;
use moonbridge::http::wire::head::{HeadLimits, HeadProgress};

const LIMITS: HeadLimits = HeadLimits { head: 2048, fields: 16 };

/// The status, the body and whether it is complete; or what is wrong.
fn receive(pieces: &[&[u8]]) -> Result<(u16, Vec<u8>, bool), String> {
    let (mut head, mut input) = (ResponseHead::default(), Vec::new());
    let mut pieces = pieces.iter();
    let length = loop {
        match head.advance(&input, &LIMITS).map_err(|error| error.to_string())? {
            HeadProgress::Complete(length) => break length,
            HeadProgress::Partial => {}
        }
        let Some(piece) = pieces.next() else { return Ok((0, Vec::new(), false)) };
        input.extend_from_slice(piece);
    };
    assert!((100..=999).contains(&head.status));
    let framing = ResponseFraming::of(&head, &input, false).map_err(|error| error.to_string())?;
    let (mut framed, mut body) = (framing.body, Vec::new());
    let rest = input.split_off(length);
    for mut rest in std::iter::once(&rest[..]).chain(pieces.copied()) {
        loop {
            let (used, piece) = framed.take(rest).map_err(|error| error.to_string())?;
            rest = &rest[used..];
            match piece {
                Piece::Data(data) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(data);
                }
                Piece::More => break assert!(rest.is_empty()),
                Piece::End => return Ok((head.status, body, true)),
            }
        }
    }
    framed.eof().map_err(|error| error.to_string())?;
    Ok((head.status, body, false))
}

fuzz_target!(|input: &[u8]| {
    let [whole, bytes, pieces] = support::splits(input);
    let outcome = receive(&whole).map(|(status, body, _)| (status, body));
    for split in [bytes, pieces] {
        assert_eq!(outcome, receive(&split).map(|(status, body, _)| (status, body)));
    }
});
