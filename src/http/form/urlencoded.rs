//! Streaming parser of `application/x-www-form-urlencoded` bodies.
//!
//! The parser collects names (up to a limit) and passes values on as they arrive, so a value of any
//! size needs constant memory. Pieces of a value are at most [`WINDOW`] bytes long; the caller
//! splits or joins them to its chunk size.
//!
//! Source: WHATWG URL, "application/x-www-form-urlencoded parsing"; reference,
//! "request:stream_post_param".

use std::fmt;

use memchr::{memchr, memchr2};

use crate::http::wire::escape::{PercentDecoder, Plus};

/// The maximum input for one event, in bytes; limits the memory for decoded values.
pub const WINDOW: usize = 16384;

/// Limits on a form.
#[derive(Clone, Copy, Debug)]
pub struct UrlencodedLimits {
    /// The longest name, in decoded bytes.
    pub name: usize,
    /// The most fields.
    pub fields: usize,
}

impl UrlencodedLimits {
    /// `fields` fields, 64 KiB for a name.
    pub fn new(fields: usize) -> UrlencodedLimits {
        UrlencodedLimits { name: 65536, fields }
    }
}

/// Why a form is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlencodedError {
    /// A name is longer than the limit.
    NameTooLong,
    /// There are more fields than the limit.
    TooManyFields,
}

impl UrlencodedError {
    /// The status code of the refusal.
    pub fn status(self) -> u16 {
        413
    }
}

impl fmt::Display for UrlencodedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlencodedError::NameTooLong => "Form field name too long",
            UrlencodedError::TooManyFields => "Too many form fields",
        })
    }
}

/// What the parser found.
#[derive(Debug, PartialEq, Eq)]
pub enum UrlencodedEvent<'a> {
    /// A field begins; this is its decoded name. [`UrlencodedEvent::End`] follows, after any values.
    Begin(&'a [u8]),
    /// A decoded piece of the field's value, never empty.
    Value(&'a [u8]),
    /// The field ends.
    End,
    /// All input was used up.
    More,
}

/// Where in a field the next byte belongs.
#[derive(Clone, Copy, Debug)]
enum UrlencodedState {
    Name,
    Value,
    /// An incomplete escape was passed on as text; the field ends next.
    Ending,
}

/// The parser: [`UrlencodedParser::push`] all of the body, then [`UrlencodedParser::finish`].
#[derive(Debug)]
pub struct UrlencodedParser {
    limits: UrlencodedLimits,
    state: UrlencodedState,
    decoder: PercentDecoder,
    /// The decoded name, or the decoded piece of a value.
    decoded: Vec<u8>,
    /// Whether the field has any bytes; an empty one is skipped.
    begun: bool,
    fields: usize,
}

impl UrlencodedParser {
    /// A parser for a new body.
    pub fn new(limits: UrlencodedLimits) -> UrlencodedParser {
        UrlencodedParser {
            limits,
            state: UrlencodedState::Name,
            decoder: PercentDecoder::new(Plus::Space),
            decoded: Vec::new(),
            begun: false,
            fields: 0,
        }
    }

    /// Parses bytes of the body; returns how many it has consumed, and what they mean.
    ///
    /// Call it again with the rest of the input until the event is [`UrlencodedEvent::More`].
    pub fn push<'a>(
        &'a mut self,
        input: &'a [u8],
    ) -> Result<(usize, UrlencodedEvent<'a>), UrlencodedError> {
        match self.state {
            UrlencodedState::Name => self.name(input),
            UrlencodedState::Value => Ok(self.value(input)),
            UrlencodedState::Ending => {
                self.end();
                Ok((0, UrlencodedEvent::End))
            }
        }
    }

    /// Ends the body. Call it until the event is [`UrlencodedEvent::More`].
    pub fn finish(&mut self) -> Result<UrlencodedEvent<'_>, UrlencodedError> {
        match self.state {
            UrlencodedState::Name if !self.begun => Ok(UrlencodedEvent::More),
            // The end of the body ends a field as `&` does.
            _ => self.push(b"&").map(|(_, event)| event),
        }
    }

    fn name<'a>(
        &'a mut self,
        input: &'a [u8],
    ) -> Result<(usize, UrlencodedEvent<'a>), UrlencodedError> {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let window = rest.get(..WINDOW).unwrap_or(rest);
            let end = memchr2(b'=', b'&', window);
            let text = window.get(..end.unwrap_or(window.len())).unwrap_or_default();
            self.decoder.push(text, &mut self.decoded);
            self.begun |= !text.is_empty();
            used += text.len();
            if self.decoded.len() > self.limits.name {
                return Err(UrlencodedError::NameTooLong);
            }
            match end.and_then(|end| window.get(end)) {
                // An empty field: two adjacent separators.
                Some(b'&') if !self.begun => used += 1,
                // The separator `&` is left for the value, which is then empty.
                Some(separator) => {
                    used += usize::from(*separator == b'=');
                    return self.begin().map(|event| (used, event));
                }
                None => {}
            }
        }
        Ok((used, UrlencodedEvent::More))
    }

    fn begin(&mut self) -> Result<UrlencodedEvent<'_>, UrlencodedError> {
        self.decoder.finish(&mut self.decoded);
        if self.decoded.len() > self.limits.name {
            return Err(UrlencodedError::NameTooLong);
        }
        self.fields += 1;
        if self.fields > self.limits.fields {
            return Err(UrlencodedError::TooManyFields);
        }
        self.state = UrlencodedState::Value;
        Ok(UrlencodedEvent::Begin(&self.decoded))
    }

    fn value<'a>(&'a mut self, input: &'a [u8]) -> (usize, UrlencodedEvent<'a>) {
        self.decoded.clear();
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let window = rest.get(..WINDOW).unwrap_or(rest);
            let end = memchr(b'&', window);
            let (text, tail) = window.split_at(end.unwrap_or(window.len()));
            used += text.len();
            if !text.is_empty() && self.decoder.is_plain(text) {
                return (used, UrlencodedEvent::Value(text));
            }
            self.decoder.push(text, &mut self.decoded);
            if !tail.is_empty() {
                used += 1;
                self.decoder.finish(&mut self.decoded);
                self.state = UrlencodedState::Ending;
            }
            if !self.decoded.is_empty() {
                return (used, UrlencodedEvent::Value(&self.decoded));
            }
            if !tail.is_empty() {
                self.end();
                return (used, UrlencodedEvent::End);
            }
        }
        (used, UrlencodedEvent::More)
    }

    fn end(&mut self) {
        self.decoded.clear();
        self.begun = false;
        self.state = UrlencodedState::Name;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::params::pairs;
    use crate::http::wire::testing::pieces;
    use proptest::prelude::*;

    type NameAndValue = (Vec<u8>, Vec<u8>);

    fn fields(
        parser: &mut UrlencodedParser,
        pieces: &[&[u8]],
    ) -> Result<Vec<NameAndValue>, UrlencodedError> {
        let mut fields: Vec<NameAndValue> = Vec::new();
        let mut open = false;
        let mut note = |event: UrlencodedEvent| {
            match event {
                UrlencodedEvent::Begin(name) => {
                    assert!(!std::mem::replace(&mut open, true));
                    fields.push((name.to_vec(), Vec::new()));
                }
                UrlencodedEvent::Value(value) => {
                    assert!(open && !value.is_empty() && value.len() <= WINDOW + 2);
                    fields.last_mut().unwrap().1.extend_from_slice(value);
                }
                UrlencodedEvent::End => assert!(std::mem::replace(&mut open, false)),
                UrlencodedEvent::More => return false,
            }
            true
        };
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let (used, event) = parser.push(rest)?;
                rest = &rest[used..];
                if !note(event) {
                    assert!(rest.is_empty());
                    break;
                }
            }
        }
        while note(parser.finish()?) {}
        assert!(!open);
        Ok(fields)
    }

    fn parse(body: &[u8], size: usize) -> Result<Vec<NameAndValue>, UrlencodedError> {
        let pieces: Vec<&[u8]> = body.chunks(size).collect();
        fields(&mut UrlencodedParser::new(UrlencodedLimits::new(100)), &pieces)
    }

    fn text(name: &str, value: &str) -> NameAndValue {
        (name.into(), value.into())
    }

    #[test]
    fn fields_have_a_name_and_all_behind_the_first_equals_sign() {
        let expected = vec![text("a", "1=2"), text("b", ""), text("", "c"), text("d e", "f&g")];
        assert_eq!(parse(b"a=1=2&&b&=c&d+e=f%26g&", 100), Ok(expected));
        assert_eq!(parse(b"", 1), Ok(vec![]));
    }

    #[test]
    fn escapes_may_be_cut_anywhere() {
        for size in 1..9 {
            let expected = vec![text("a%", "x y%zz&%4"), text("%", "%")];
            assert_eq!(parse(b"a%25=x+y%zz%26%4&%=%", size), Ok(expected), "{size}");
        }
    }

    #[test]
    fn a_value_of_any_size_comes_in_pieces() {
        for (value, byte) in [(&b"x"[..], b'x'), (b"+", b' '), (b"%41", b'A')] {
            let body = [&b"a="[..], &value.repeat(100_000)].concat();
            let expected = vec![(b"a".to_vec(), vec![byte; 100_000])];
            assert_eq!(parse(&body, body.len()), Ok(expected));
        }
    }

    #[test]
    fn names_and_fields_are_limited() {
        let limits = UrlencodedLimits { name: 3, fields: 2 };
        let parse = |body: &[u8]| fields(&mut UrlencodedParser::new(limits), &[body]).err();
        assert_eq!(parse(b"a%62c=1234&def"), None);
        assert_eq!(parse(b"abcd=1"), Some(UrlencodedError::NameTooLong));
        assert_eq!(parse(b"abc%"), Some(UrlencodedError::NameTooLong));
        assert_eq!(parse(b"a&b&c"), Some(UrlencodedError::TooManyFields));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_pairs_of_the_whole(
            body in "[a%&=+2bZ]{0,48}",
            cuts in proptest::collection::vec(0usize..48, 0..6),
        ) {
            let body = body.as_bytes();
            let expected: Vec<NameAndValue> =
                pairs(body).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
            prop_assert_eq!(fields(&mut UrlencodedParser::new(UrlencodedLimits::new(100)), &pieces(body, &cuts)), Ok(expected));
        }
    }
}
