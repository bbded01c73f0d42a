//! Query strings as an ordered list of names and values.
//!
//! There are no lookups here, so hostile names cannot slow this down: a list takes one step per
//! pair. Maps made from it need a randomly seeded hash, as `std::collections::HashMap` and Lua
//! tables have; Lua 5.3 also needs [`crate::http::wire::collision_guard`].
//!
//! Source: WHATWG URL, "application/x-www-form-urlencoded parsing"; reference,
//! "request.get_params".

use std::borrow::Cow;

use memchr::memchr;

use super::escape::{Encoded, Plus, decode, first_decoded};
use super::scan;

/// A decoded name and its decoded value, borrowed where nothing had to be decoded.
pub type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The pairs of a query string, given without its leading `?`, in their order.
///
/// `&` separates pairs; empty pairs are skipped. The value is everything after the first `=`, or
/// empty if there is none. Linear in the length of `query`, no allocation besides decoding.
pub fn pairs(query: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    split(query, b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| split_once(pair, b'=').unwrap_or((pair, b"")))
        .map(|(name, value)| (decode(name, Plus::Space), decode(value, Plus::Space)))
}

/// The value of the first of the [`pairs`] with this name.
pub fn first<'a>(query: &'a [u8], name: &[u8]) -> Option<Encoded<'a>> {
    let mut rest = query;
    loop {
        if let Some(value) = value_of(rest, name) {
            return Some(Encoded::before::<b'&'>(value, Plus::Space));
        }
        let end = scan::before_any(rest, [b'&']);
        rest = rest.get(end + 1..)?;
    }
}

/// What follows the name of the pair at the beginning of `text`, if `name` is that name, decoded.
#[inline(always)]
fn value_of<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = text;
    for &wanted in name {
        let (&byte, tail) = rest.split_first()?;
        rest = match byte {
            b'%' | b'+' => {
                let (decoded, tail) = first_decoded(rest, Plus::Space)?;
                (decoded == wanted).then_some(tail)?
            }
            b'=' | b'&' => return None,
            _ => (byte == wanted).then_some(tail)?,
        };
    }
    match rest.split_first() {
        Some((b'=', value)) => Some(value),
        // A pair without a value; an empty one is none.
        None | Some((b'&', _)) if rest.len() < text.len() => Some(rest),
        _ => None,
    }
}

/// Up to so many pieces, to search a text for a name costs less than to make a table of all names.
const FEW: usize = 16;
/// The longest text that is searched for each name.
const SHORT: usize = 4096;

/// Whether a text should be searched for each name that somebody asks for, rather than made into a
/// table: it is short, and has few pieces between `separator`s, not more than `limit`.
pub fn is_searched(text: &[u8], separator: u8, limit: usize) -> bool {
    text.len() <= SHORT && scan::count(text, separator) < FEW.min(limit)
}

/// The pieces of `text` between the bytes `separator`; always at least one.
pub(in crate::http) fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        match split_once(current, separator) {
            Some((piece, tail)) => {
                rest = Some(tail);
                Some(piece)
            }
            None => rest.take(),
        }
    })
}

/// The text before and after the first `separator`.
pub(in crate::http) fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let position = memchr(separator, text)?;
    let (before, after) = text.split_at_checked(position)?;
    Some((before, after.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(query: &str) -> Vec<(String, String)> {
        let text = |bytes: Cow<[u8]>| String::from_utf8_lossy(&bytes).into_owned();
        pairs(query.as_bytes()).map(|(name, value)| (text(name), text(value))).collect()
    }

    fn owned(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn pairs_keep_their_order_and_doubles() {
        assert_eq!(parse("b=1&a=2&b=3"), owned(&[("b", "1"), ("a", "2"), ("b", "3")]));
    }

    #[test]
    fn the_value_is_all_behind_the_first_equals_sign() {
        assert_eq!(parse("a=b=c&d&=e&f="), owned(&[("a", "b=c"), ("d", ""), ("", "e"), ("f", "")]));
    }

    #[test]
    fn empty_pairs_are_skipped() {
        assert_eq!(parse(""), owned(&[]));
        assert_eq!(parse("&&a&&"), owned(&[("a", "")]));
    }

    #[test]
    fn names_and_values_are_decoded_after_the_split() {
        assert_eq!(parse("a%26b=c%3Dd+e&%3d=%"), owned(&[("a&b", "c=d e"), ("=", "%")]));
    }
    #[test]
    fn few_short_pieces_are_searched() {
        let text = |count: usize| "a=1&".repeat(count - 1) + "a=1";
        assert!(is_searched(text(16).as_bytes(), b'&', 4096));
        assert!(!is_searched(text(17).as_bytes(), b'&', 4096));
        assert!(
            is_searched(text(3).as_bytes(), b'&', 3) && !is_searched(text(4).as_bytes(), b'&', 3)
        );
        assert!(is_searched(&[b'x'; 4096], b'&', 1) && !is_searched(&[b'x'; 4097], b'&', 1));
    }

    proptest! {
        /// A search finds what the list of pairs has.
        #[test]
        fn the_first_value_of_a_name_is_found(
            query in "[ab&=%+2B4\\^]{0,24}",
            name in "[ab&=%+ 24]{0,3}",
        ) {
            let all: Vec<Pair> = pairs(query.as_bytes()).collect();
            for name in all.iter().map(|(name, _)| &**name).chain([name.as_bytes()]) {
                let expected = all.iter().find(|(other, _)| **other == *name);
                let found = first(query.as_bytes(), name);
                let value = found.map(|value| decode(value.text, Plus::Space));
                let borrows = value.as_ref().map(|value| matches!(value, Cow::Borrowed(_)));
                prop_assert_eq!(borrows, found.map(|found| found.is_plain));
                prop_assert_eq!(value, expected.map(|(_, value)| value.clone()));
            }
        }
    }
}
