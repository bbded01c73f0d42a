//! Escapes of URIs, forms and HTML: `%XX`, `+`, and character references.
//!
//! Sources: RFC 3986 2.1 (percent-encoding), WHATWG URL "application/x-www-form-urlencoded" (`+`
//! for a space). Invalid escapes stay unchanged.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::scan;

/// What a `+` stands for in encoded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plus {
    /// A plus sign: cookies, paths.
    Literal,
    /// A space: query strings and urlencoded forms.
    Space,
}

/// A text as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded<'a> {
    /// The text.
    pub text: &'a [u8],
    /// It decodes to itself.
    pub is_plain: bool,
}

impl<'a> Encoded<'a> {
    /// The text before the first `SEPARATOR`.
    #[inline(always)]
    pub(in crate::http) fn before<const SEPARATOR: u8>(text: &'a [u8], plus: Plus) -> Self {
        let end = match plus {
            Plus::Literal => scan::before_any(text, [SEPARATOR, b'%']),
            Plus::Space => scan::before_any(text, [SEPARATOR, b'%', b'+']),
        };
        let rest = text.get(end..).unwrap_or_default();
        let is_plain = rest.first().is_none_or(|byte| *byte == SEPARATOR);
        let more = if is_plain { 0 } else { scan::before_any(rest, [SEPARATOR]) };
        Encoded { text: text.get(..end + more).unwrap_or_default(), is_plain }
    }
}

/// Decodes `%XX`, and `+` if it stands for a space. Borrows if there is nothing to decode.
pub fn decode(text: &[u8], plus: Plus) -> Cow<'_, [u8]> {
    let plain = plain_length(text, plus);
    if plain == text.len() {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    decode_into(text, plus, &mut decoded);
    Cow::Owned(decoded)
}

/// The same, appended to `out`.
pub fn decode_into(text: &[u8], plus: Plus, out: &mut Vec<u8>) {
    out.reserve(text.len());
    let mut rest = text;
    loop {
        let (plain, tail) = rest.split_at(plain_length(rest, plus));
        out.extend_from_slice(plain);
        rest = tail;
        // Escapes often follow each other.
        while matches!((rest.first(), plus), (Some(b'%'), _) | (Some(b'+'), Plus::Space))
            && let Some((byte, tail)) = first_decoded(rest, plus)
        {
            out.push(byte);
            rest = tail;
        }
        if rest.is_empty() {
            return;
        }
    }
}

/// How much of a text decodes to itself.
fn plain_length(text: &[u8], plus: Plus) -> usize {
    match plus {
        Plus::Literal => scan::before_any(text, [b'%']),
        Plus::Space => scan::before_any(text, [b'%', b'+']),
    }
}

/// The first byte of a text, decoded, and the rest of the text.
#[inline]
pub(in crate::http) fn first_decoded(text: &[u8], plus: Plus) -> Option<(u8, &[u8])> {
    let (&first, tail) = text.split_first()?;
    Some(match (first, tail) {
        (b'+', _) if plus == Plus::Space => (b' ', tail),
        (b'%', [high, low, after @ ..]) => match (hex_value(*high), hex_value(*low)) {
            (Some(high), Some(low)) => (high << 4 | low, after),
            _ => (first, tail),
        },
        _ => (first, tail),
    })
}

/// Percent-encodes everything but `0-9A-Za-z_.~-`, with lower-case hexadecimal digits.
pub fn encode_uri(text: &[u8]) -> Vec<u8> {
    encode(text, is_unreserved)
}

/// Percent-encodes everything that is not allowed in a path (RFC 3986 3.3); slashes stay.
pub fn encode_path(text: &[u8]) -> Vec<u8> {
    encode(text, |byte| is_unreserved(byte) || b"/!$&'()*+,;=:@".contains(&byte))
}

/// RFC 3986 2.3
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.~-".contains(&byte)
}

fn encode(text: &[u8], stays: fn(u8) -> bool) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut encoded = Vec::with_capacity(text.len());
    for &byte in text {
        if stays(byte) {
            encoded.push(byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            encoded.extend_from_slice(&[b'%', HEX[high], HEX[low]]);
        }
    }
    encoded
}

/// Replaces `<`, `>`, `&`, `"` and `'` with character references. Borrows if there are none.
pub fn encode_html(text: &[u8]) -> Cow<'_, [u8]> {
    fn reference(byte: u8) -> Option<&'static [u8]> {
        match byte {
            b'<' => Some(b"&lt;"),
            b'>' => Some(b"&gt;"),
            b'&' => Some(b"&amp;"),
            b'"' => Some(b"&quot;"),
            b'\'' => Some(b"&#39;"),
            _ => None,
        }
    }
    if !text.iter().any(|&byte| reference(byte).is_some()) {
        return Cow::Borrowed(text);
    }
    let mut encoded = Vec::with_capacity(text.len() + text.len() / 8 + 8);
    for &byte in text {
        match reference(byte) {
            Some(text) => encoded.extend_from_slice(text),
            None => encoded.push(byte),
        }
    }
    Cow::Owned(encoded)
}

/// The value of a hexadecimal digit.
pub(in crate::http) fn hex_value(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// An escape that is still incomplete.
#[derive(Clone, Copy, Debug)]
enum PendingEscape {
    Nothing,
    Percent,
    /// `%` and this digit.
    Digit(u8),
}

/// Decodes text that arrives in pieces, which may split escapes anywhere.
#[derive(Debug)]
pub struct PercentDecoder {
    plus: Plus,
    pending: PendingEscape,
}

impl PercentDecoder {
    /// A decoder for a new text.
    pub fn new(plus: Plus) -> PercentDecoder {
        PercentDecoder { plus, pending: PendingEscape::Nothing }
    }

    /// Whether `text`, coming next, decodes to itself.
    pub fn is_plain(&self, text: &[u8]) -> bool {
        matches!(self.pending, PendingEscape::Nothing) && self.special(text).is_none()
    }

    /// Decodes `input` and appends it to `out`. Keeps an incomplete escape at its end for the next
    /// call.
    pub fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while let Some((&first, rest)) = input.split_first() {
            match (self.pending, hex_value(first)) {
                (PendingEscape::Nothing, _) => input = self.plain(input, out),
                (PendingEscape::Percent, Some(_)) => {
                    self.pending = PendingEscape::Digit(first);
                    input = rest;
                }
                (PendingEscape::Digit(high), Some(low)) => {
                    out.push(hex_value(high).unwrap_or_default() << 4 | low);
                    self.pending = PendingEscape::Nothing;
                    input = rest;
                }
                (_, None) => self.finish(out),
            }
        }
    }

    /// Ends the text: an incomplete escape is literal text.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match self.pending {
            PendingEscape::Nothing => {}
            PendingEscape::Percent => out.push(b'%'),
            PendingEscape::Digit(high) => out.extend_from_slice(&[b'%', high]),
        }
        self.pending = PendingEscape::Nothing;
    }

    /// Copies text up to and including the next `%` or `+`; returns the rest.
    fn plain<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let (text, tail) = input.split_at(self.special(input).unwrap_or(input.len()));
        out.extend_from_slice(text);
        match tail.split_first() {
            Some((b'+', rest)) => {
                out.push(b' ');
                rest
            }
            Some((_, rest)) => {
                self.pending = PendingEscape::Percent;
                rest
            }
            None => tail,
        }
    }

    fn special(&self, text: &[u8]) -> Option<usize> {
        match self.plus {
            Plus::Literal => memchr(b'%', text),
            Plus::Space => memchr2(b'%', b'+', text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(text: &str) -> Vec<u8> {
        decode(text.as_bytes(), Plus::Space).into_owned()
    }

    #[test]
    fn escapes_and_plus_are_decoded() {
        assert_eq!(query("a+b%20c%2Bd%c3%A4"), "a b c+d\u{e4}".as_bytes());
        assert_eq!(&*decode(b"a+b%20c", Plus::Literal), b"a+b c");
    }

    #[test]
    fn invalid_escapes_stay() {
        for text in ["%", "%4", "%zz", "%4z", "100%&", "%%", "%-1"] {
            assert_eq!(query(text), text.as_bytes());
        }
        assert_eq!(query("%%41"), b"%A");
        assert_eq!(query("%4%41"), b"%4A");
    }

    #[test]
    fn encode_uri_keeps_unreserved_characters_alone() {
        assert_eq!(encode_uri(b"0Az_.~-"), b"0Az_.~-");
        assert_eq!(encode_uri(b" /?\xff+*'"), b"%20%2f%3f%ff%2b%2a%27");
    }

    #[test]
    fn encode_path_keeps_what_may_stand_in_a_path() {
        assert_eq!(encode_path(b"/a b/c+d;e=f@g:h"), b"/a%20b/c+d;e=f@g:h");
        assert_eq!(encode_path(b"?#%[]\"\xff"), b"%3f%23%25%5b%5d%22%ff");
    }

    #[test]
    fn encode_html_replaces_what_ends_text_or_an_attribute() {
        assert_eq!(&*encode_html(b"<a href=\"x\">&'"), b"&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
        assert!(matches!(encode_html(b"plain"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn encoding_is_reversible(text: Vec<u8>) {
            let encoded = encode_uri(&text);
            prop_assert_eq!(&*decode(&encoded, Plus::Literal), &text[..]);
            prop_assert_eq!(&*decode(&encoded, Plus::Space), &text[..]);
            let path = encode_path(&text);
            prop_assert_eq!(&*decode(&path, Plus::Literal), &text[..]);
        }

        #[test]
        fn pieces_decode_like_the_whole(text in "[%+a-f0-3 &]{0,64}", size in 1usize..8) {
            let mut decoder = PercentDecoder::new(Plus::Space);
            let mut pieces = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                decoder.push(piece, &mut pieces);
            }
            decoder.finish(&mut pieces);
            prop_assert_eq!(pieces, query(&text));
        }
    }
}
