//! Heads of requests: the same outcome however they arrive, and nothing in them that could be
//! read in two ways.
#![no_main]

mod support;

use libfuzzer_sys::fuzz_target;
use moonbridge::http::wire::framing::{content_length, transfer_coding};
use moonbridge::http::wire::head::{Head, HeadLimits, HeadProgress, Known};
use moonbridge::http::wire::refusal::Refusal;
use moonbridge::http::wire::uri::{Target, is_host};

const LIMITS: HeadLimits = HeadLimits { head: 2048, fields: 16 };

fn advance(pieces: &[&[u8]], input: &[u8]) -> (Head, Result<HeadProgress, Refusal>) {
    let mut head = Head::default();
    let mut available = 0;
    let mut outcome = head.advance(&[], &LIMITS);
    for piece in pieces {
        available += piece.len();
        outcome = head.advance(&input[..available], &LIMITS);
        if outcome != Ok(HeadProgress::Partial) {
            break;
        }
    }
    (head, outcome)
}

fn check(head: &Head, input: &[u8], length: usize) {
    assert!(length <= input.len() && input[..length].ends_with(b"\n"));
    for field in &head.fields {
        let (name, value) = (field.name.of(input), field.value.of(input));
        assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic));
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
    }
    let values = |known: Known| {
        let fields = head.fields.iter().filter(move |field| field.known == known);
        fields.map(|field| field.value.of(input))
    };
    let _ = content_length(values(Known::ContentLength));
    let _ = transfer_coding(values(Known::TransferEncoding));
    let _ = values(Known::Host).all(is_host);
    let _ = Target::parse(head.method.of(input), head.target.of(input));
}

fuzz_target!(|input: &[u8]| {
    let [whole, bytes, pieces] = support::splits(input);
    let (head, outcome) = advance(&whole, input);
    for split in [bytes, pieces] {
        let (other, other_outcome) = advance(&split, input);
        assert_eq!(outcome, other_outcome);
        assert_eq!(head.fields.len(), other.fields.len());
        assert_eq!((head.method, head.target), (other.method, other.target));
    }
    if let Ok(HeadProgress::Complete(length)) = outcome {
        check(&head, input, length);
    }
});
