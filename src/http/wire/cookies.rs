//! The Cookie header field of a request.
//!
//! Sources: RFC 6265 4.2.1 and 5.4 (`name=value` pairs separated by `; `); reference,
//! "request.cookies".

use std::borrow::Cow;

use super::escape::{Encoded, Plus, decode};
use super::list::trim;
use super::params::{Pair, split, split_once};
use super::scan;

/// The cookies of one Cookie header value, in their order.
///
/// The value is everything after the first `=`. In it, `%XX` is decoded, `+` is a plus sign, and
/// quotes are part of the value (RFC 6265 4.1.1). Names are not decoded: user agents protect the
/// prefixes `__Host-` and `__Secure-`, which an escape must not forge (RFC 6265bis 4.1.3). Blanks
/// around names and values, empty pieces and pieces without `=` are skipped. User agents send the
/// most specific cookie of a name first, so a table of cookies should keep the first.
pub fn cookies(header: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    split(header, b';').filter_map(|piece| {
        let (name, value) = split_once(piece, b'=')?;
        Some((Cow::Borrowed(trim(name)), decode(trim(value), Plus::Literal)))
    })
}

/// The value of the first of the [`cookies`] with this name.
pub fn first<'a>(header: &'a [u8], name: &[u8]) -> Option<Encoded<'a>> {
    if name.last().is_some_and(is_blank) {
        return None;
    }
    let mut rest = header;
    loop {
        if let Some(value) = value_of(rest, name) {
            let Encoded { text, is_plain } = Encoded::before::<b';'>(value, Plus::Literal);
            return Some(Encoded { text: trim(text), is_plain });
        }
        let end = scan::before_any(rest, [b';']);
        rest = rest.get(end + 1..)?;
    }
}

/// What follows the name of the cookie at the beginning of `text`, if `name` is that name.
#[inline(always)]
fn value_of<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = skip_blanks(text);
    for &wanted in name {
        let (&byte, tail) = rest.split_first()?;
        if byte != wanted || matches!(byte, b';' | b'=') {
            return None;
        }
        rest = tail;
    }
    skip_blanks(rest).strip_prefix(b"=")
}

fn skip_blanks(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_blank(first)
    {
        text = rest;
    }
    text
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(header: &str) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        cookies(header.as_bytes()).map(|(name, value)| (text(&name), text(&value))).collect()
    }

    fn owned(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn pairs_are_separated_by_semicolons() {
        assert_eq!(
            parse("a=1; b=2;c=3 ;\td=4"),
            owned(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")])
        );
    }

    #[test]
    fn the_value_is_all_behind_the_first_equals_sign() {
        assert_eq!(parse("a=b=c==; e="), owned(&[("a", "b=c=="), ("e", "")]));
    }

    #[test]
    fn percent_escapes_are_decoded_in_values_alone_and_plus_is_not() {
        assert_eq!(parse("a%20b=c%3Bd+e%"), owned(&[("a%20b", "c;d+e%")]));
        assert_eq!(parse("__%48ost-sid=evil"), owned(&[("__%48ost-sid", "evil")]));
    }

    #[test]
    fn quotes_are_part_of_the_value() {
        assert_eq!(parse("a=\"b c\""), owned(&[("a", "\"b c\"")]));
    }

    #[test]
    fn pieces_without_a_name_and_value_are_skipped() {
        assert_eq!(parse(" ; ;a;;b=1;"), owned(&[("b", "1")]));
    }
    proptest! {
        /// A search finds what the list of cookies has.
        #[test]
        fn the_first_value_of_a_name_is_found(
            header in "[ab;=% \t]{0,24}",
            name in "[ab;=% ]{0,3}",
        ) {
            let all: Vec<Pair> = cookies(header.as_bytes()).collect();
            for name in all.iter().map(|(name, _)| &**name).chain([name.as_bytes()]) {
                let expected = all.iter().find(|(other, _)| **other == *name);
                let found = first(header.as_bytes(), name);
                let value = found.map(|value| decode(value.text, Plus::Literal));
                let borrows = value.as_ref().map(|value| matches!(value, Cow::Borrowed(_)));
                prop_assert_eq!(borrows, found.map(|found| found.is_plain));
                prop_assert_eq!(value, expected.map(|(_, value)| value.clone()));
            }
        }
    }
}
