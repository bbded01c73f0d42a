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

use super::escape::{Plus, decode};

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
}
