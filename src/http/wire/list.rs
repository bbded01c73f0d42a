//! Comma-separated lists in header values.
//!
//! Source: RFC 9110 5.6.1 (lists), 5.6.3 (whitespace), 5.6.4 (quoted strings); reference,
//! "request.headers_csv_table" and "request.headers_flags".

use memchr::memchr2;

/// The elements of a comma-separated list, without the blanks around them.
///
/// Commas in quoted strings do not separate elements; quoted strings are returned as sent. Empty
/// elements are skipped (RFC 9110 5.6.1.2). An unterminated quoted string extends to the end.
/// Linear in the length of `value`, no allocation.
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = value;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (element, tail) = rest.split_at(element_len(rest));
            rest = tail.get(1..).unwrap_or_default();
            let element = trim(element);
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    })
}

/// Whether a list has an element, in any case. Most values have one, without blanks around it.
#[inline]
pub fn has_element(value: &[u8], element: &[u8]) -> bool {
    let is_it = |other: &[u8]| other.eq_ignore_ascii_case(element);
    is_it(value) || (value.len() > element.len() && elements(value).any(is_it))
}

/// The text without blanks (SP and HTAB) at its begin and end.
pub fn trim(text: &[u8]) -> &[u8] {
    fn is_text(byte: &u8) -> bool {
        !matches!(byte, b' ' | b'\t')
    }
    let start = text.iter().position(is_text).unwrap_or(text.len());
    let end = text.iter().rposition(is_text).map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}

/// The length of the first element: up to a comma outside of quotes, or the whole text.
fn element_len(text: &[u8]) -> usize {
    let mut position = 0;
    let mut quoted = false;
    while let Some(tail) = text.get(position..) {
        let next = match quoted {
            false => memchr2(b',', b'"', tail),
            true => memchr2(b'\\', b'"', tail),
        };
        let Some(offset) = next else { break };
        match tail.get(offset) {
            Some(b',') => return position + offset,
            Some(b'"') => {
                quoted = !quoted;
                position += offset + 1;
            }
            // A quoted pair: the byte after the backslash is text.
            _ => position += offset + 2,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(value: &str) -> Vec<&str> {
        elements(value.as_bytes()).map(|element| std::str::from_utf8(element).unwrap()).collect()
    }

    #[test]
    fn commas_separate_and_blanks_around_elements_go() {
        assert_eq!(parse("a, b ,\tc d\t,e"), ["a", "b", "c d", "e"]);
    }

    #[test]
    fn an_element_is_found_in_any_case() {
        for list in ["close", "Close", "a, CLOSE", "close,", " close"] {
            assert!(has_element(list.as_bytes(), b"close"), "{list}");
        }
        for list in ["", "clos", "closed", "a, closed", "\"a, close, b\""] {
            assert!(!has_element(list.as_bytes(), b"close"), "{list}");
        }
    }

    /// RFC 9110 5.6.1.2: a recipient must parse and ignore empty elements.
    #[test]
    fn empty_elements_are_skipped() {
        assert_eq!(parse(", ,a,, ,b,"), ["a", "b"]);
        assert!(parse("").is_empty());
        assert!(parse(" , ").is_empty());
    }

    #[test]
    fn commas_in_quoted_strings_do_not_separate() {
        assert_eq!(parse(r#"a;x="1,2", "b\",c", d"#), [r#"a;x="1,2""#, r#""b\",c""#, "d"]);
    }

    #[test]
    fn an_open_quoted_string_goes_on_to_the_end() {
        assert_eq!(parse(r#"a, "b, c"#), ["a", r#""b, c"#]);
        assert_eq!(parse(r#"a, "b\"#), ["a", r#""b\"#]);
    }

    proptest! {
        #[test]
        fn no_element_has_blanks_around_it_or_is_empty(value in "[a,\" \t\\\\]{0,40}") {
            for element in elements(value.as_bytes()) {
                prop_assert!(!element.is_empty());
                prop_assert_eq!(element, trim(element));
            }
        }
    }
}
