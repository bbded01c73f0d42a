//! Multipart forms: the same parts and error however they arrive. The first line of the input is
//! the Content-Type.
#![no_main]

mod support;

use libfuzzer_sys::fuzz_target;
use moonbridge::http::form::multipart::{
    MultipartError, MultipartEvent, MultipartLimits, MultipartParser, Part,
};

type Parts = Vec<(Part, Vec<u8>, bool)>;

const LIMITS: MultipartLimits = MultipartLimits { parts: 16, header_size: 256, header_count: 4 };

/// The parts with their data and whether they ended, and how the body ended.
fn parse(content_type: &[u8], pieces: &[&[u8]]) -> (Parts, Result<(), MultipartError>) {
    let mut parts = Parts::new();
    let outcome = MultipartParser::new(content_type, LIMITS).and_then(|mut parser| {
        let mut ended = false;
        for mut rest in pieces.iter().copied() {
            loop {
                let (used, event) = parser.push(rest)?;
                rest = &rest[used..];
                assert!(!ended || event == MultipartEvent::More);
                match event {
                    MultipartEvent::Begin(part) => parts.push((part.clone(), Vec::new(), false)),
                    MultipartEvent::Data(data) => {
                        let (_, collected, complete) = parts.last_mut().unwrap();
                        assert!(!data.is_empty() && !*complete);
                        collected.extend_from_slice(data);
                    }
                    MultipartEvent::PartEnd => {
                        let (_, _, complete) = parts.last_mut().unwrap();
                        assert!(!std::mem::replace(complete, true));
                    }
                    MultipartEvent::End => ended = true,
                    MultipartEvent::More => break assert!(rest.is_empty()),
                }
            }
        }
        assert_eq!(parser.finish().is_ok(), ended);
        parser.finish()
    });
    (parts, outcome)
}

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(2, |&byte| byte == b'\n');
    let (content_type, body) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let [whole, bytes, pieces] = support::splits(body);
    let (parts, outcome) = parse(content_type, &whole);
    for split in [bytes, pieces] {
        let (mut other, other_outcome) = parse(content_type, &split);
        assert_eq!(outcome, other_outcome);
        if outcome.is_err() {
            // Bytes that may begin a delimiter are passed on later in one case than in another.
            other.iter_mut().zip(&parts).for_each(|(other, part)| other.1.clone_from(&part.1));
        }
        assert_eq!(parts, other);
    }
});
