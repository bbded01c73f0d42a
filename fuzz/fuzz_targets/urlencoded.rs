//! Urlencoded forms: the pairs that the parser of query strings finds, however they arrive.
#![no_main]

mod support;

use libfuzzer_sys::fuzz_target;
use moonbridge::http::form::urlencoded::{
    UrlencodedError, UrlencodedEvent, UrlencodedLimits, UrlencodedParser,
};
use moonbridge::http::wire::params::pairs;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

const LIMITS: UrlencodedLimits = UrlencodedLimits { name: 64, fields: 64 };

fn parse(pieces: &[&[u8]]) -> Result<Fields, UrlencodedError> {
    let mut parser = UrlencodedParser::new(LIMITS);
    let (mut fields, mut open) = (Fields::new(), false);
    for mut rest in pieces.iter().copied() {
        loop {
            let (used, event) = parser.push(rest)?;
            rest = &rest[used..];
            if !note(&mut fields, &mut open, event) {
                break assert!(rest.is_empty());
            }
        }
    }
    while note(&mut fields, &mut open, parser.finish()?) {}
    assert!(!open);
    Ok(fields)
}

fn note(fields: &mut Fields, open: &mut bool, event: UrlencodedEvent) -> bool {
    match event {
        UrlencodedEvent::Begin(name) => {
            assert!(!std::mem::replace(open, true));
            fields.push((name.to_vec(), Vec::new()));
        }
        UrlencodedEvent::Value(value) => {
            assert!(*open && !value.is_empty());
            fields.last_mut().unwrap().1.extend_from_slice(value);
        }
        UrlencodedEvent::End => assert!(std::mem::replace(open, false)),
        UrlencodedEvent::More => return false,
    }
    true
}

fn expected(input: &[u8]) -> Option<Fields> {
    let fields: Fields =
        pairs(input).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let valid =
        fields.len() <= LIMITS.fields && fields.iter().all(|(name, _)| name.len() <= LIMITS.name);
    valid.then_some(fields)
}

fuzz_target!(|input: &[u8]| {
    let expected = expected(input);
    for split in support::splits(input) {
        assert_eq!(parse(&split).ok(), expected);
    }
});
