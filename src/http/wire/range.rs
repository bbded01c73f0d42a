//! Ranges of a representation (pure).
//!
//! Source: RFC 9110 14.

use super::list::{elements, trim};

/// More ranges than this are not looked at: the whole representation is sent instead (RFC 9110 14.2).
pub const MOST_RANGES: usize = 16;

/// A part of a representation: never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The position of its first byte.
    pub start: u64,
    /// How many bytes it has.
    pub length: u64,
}

impl ByteRange {
    /// The position of its last byte.
    pub fn last(&self) -> u64 {
        self.start + self.length - 1
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The whole representation: the request has no range, or none that is understood.
    Whole,
    /// Parts of it, in the order of the request: at least one.
    Parts(Vec<ByteRange>),
    /// Only parts that it does not have: 416.
    Unsatisfiable,
}

/// The ranges that the value of a Range field selects of a representation of `size` bytes.
///
/// A field with another unit, or with a range that is none, is ignored as RFC 9110 14.2 allows; so is one that asks
/// for more bytes than the representation has, for more than two ranges that overlap, or for more than
/// [`MOST_RANGES`].
pub fn select(field: &[u8], size: u64) -> Ranges {
    let Some(set) = strip_unit(trim(field)) else { return Ranges::Whole };
    let mut spans: Vec<ByteRange> = Vec::new();
    let mut count = 0;
    for spec in elements(set) {
        count += 1;
        match (count <= MOST_RANGES).then(|| span(spec, size)).flatten() {
            Some(found) => spans.extend(found),
            None => return Ranges::Whole,
        }
    }
    let total = spans.iter().fold(0_u64, |sum, span| sum.saturating_add(span.length));
    match (count, spans.len()) {
        (0, _) => Ranges::Whole,
        // RFC 9110 14.1.2: all of an empty representation is what its last bytes are.
        (_, 0) if size == 0 && elements(set).any(is_suffix) => Ranges::Whole,
        (_, 0) => Ranges::Unsatisfiable,
        (_, 1) => Ranges::Parts(spans),
        _ if total > size || overlaps(&spans) > 2 => Ranges::Whole,
        _ => Ranges::Parts(spans),
    }
}

fn strip_unit(field: &[u8]) -> Option<&[u8]> {
    let (unit, set) = field.split_at_checked(6)?;
    unit.eq_ignore_ascii_case(b"bytes=").then_some(set)
}

fn is_suffix(spec: &[u8]) -> bool {
    spec.starts_with(b"-") && number(&spec[1..]).is_some_and(|length| length > 0)
}

/// How many ranges overlap another one.
fn overlaps(spans: &[ByteRange]) -> usize {
    let meets =
        |one: &ByteRange, other: &ByteRange| one.start <= other.last() && other.start <= one.last();
    let overlapping = spans.iter().enumerate().filter(|(index, span)| {
        spans.iter().enumerate().any(|(other, them)| other != *index && meets(span, them))
    });
    overlapping.count()
}

/// The part that a range selects, none if it selects nothing; no result if it is no range.
fn span(spec: &[u8], size: u64) -> Option<Option<ByteRange>> {
    let dash = spec.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (trim(&spec[..dash]), trim(&spec[dash + 1..]));
    if first.is_empty() {
        let length = number(last)?.min(size);
        return Some((length > 0).then(|| ByteRange { start: size - length, length }));
    }
    let start = number(first)?;
    let end = match last {
        [] => size,
        last => {
            let last = number(last)?;
            if last < start {
                return None;
            }
            last.saturating_add(1).min(size)
        }
    };
    Some((start < end).then(|| ByteRange { start, length: end - start }))
}

/// A decimal number; one that is too large is the largest there is, which is beyond every representation.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = str::from_utf8(text).ok()?;
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(field: &str, size: u64) -> Vec<(u64, u64)> {
        match select(field.as_bytes(), size) {
            Ranges::Parts(spans) => spans.iter().map(|span| (span.start, span.last())).collect(),
            other => panic!("{field}: {other:?}"),
        }
    }

    /// The examples of RFC 9110 14.1.2, of a representation of 10,000 bytes, and their neighbours.
    #[test]
    fn ranges_are_those_of_the_rfc() {
        for (field, expected) in [
            ("bytes=0-499", &[(0, 499)][..]),
            ("bytes=500-999", &[(500, 999)]),
            ("bytes=-500", &[(9500, 9999)]),
            ("bytes=9500-", &[(9500, 9999)]),
            ("bytes=0-0,-1", &[(0, 0), (9999, 9999)]),
            ("bytes= 0-0, 4500-5499, -1000", &[(0, 0), (4500, 5499), (9000, 9999)]),
            ("bytes=500-600,601-999", &[(500, 600), (601, 999)]),
            ("bytes=500-700,601-999", &[(500, 700), (601, 999)]),
            ("BYTES=0-99999999999999999999999", &[(0, 9999)]),
            ("bytes=-99999999999999999999999", &[(0, 9999)]),
            ("bytes=9999-", &[(9999, 9999)]),
            ("bytes=20000-,0-1", &[(0, 1)]),
            ("bytes=,0-1,,", &[(0, 1)]),
        ] {
            assert_eq!(parts(field, 10_000), expected, "{field}");
        }
    }

    #[test]
    fn what_is_not_there_cannot_be_satisfied() {
        for field in ["bytes=10-", "bytes=10-20,30-", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(select(field.as_bytes(), 10), Ranges::Unsatisfiable, "{field}");
        }
        assert_eq!(select(b"bytes=0-", 0), Ranges::Unsatisfiable);
        assert_eq!(select(b"bytes=-5", 0), Ranges::Whole);
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        let many = format!("bytes={}", ["0-0"; MOST_RANGES + 1].join(","));
        for field in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "items=0-1",
            "bytes=a-b",
            "bytes=1",
            "bytes=5-2",
            "bytes=-",
            "bytes=--1",
            "bytes=0-1,x",
            "bytes=+0-1",
            "bytes=0x1-2",
            "bytes 0-1",
            "bytes=0-,0-",
            "bytes=0-1,0-1,0-1",
            &many,
        ] {
            assert_eq!(select(field.as_bytes(), 10), Ranges::Whole, "{field}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_beyond_the_end(
            field in "(bytes=)?([0-9]{0,3}-?[0-9]{0,3}[ ,]?){0,20}",
            size in 0_u64..500,
        ) {
            if let Ranges::Parts(spans) = select(field.as_bytes(), size) {
                prop_assert!(!spans.is_empty() && spans.len() <= MOST_RANGES);
                let total: u64 = spans.iter().map(|span| span.length).sum();
                prop_assert!(total <= size);
                for span in spans {
                    prop_assert!(span.length > 0 && span.last() < size);
                }
            }
        }
    }
}
