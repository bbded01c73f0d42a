//! Streaming parser of `application/x-www-form-urlencoded` bodies.
//!
//! Names are collected (up to a limit), values are passed on as they come, so a value of any size
//! needs flat memory. Pieces of a value are at most [`WINDOW`] bytes long; the caller fragments or
//! joins them to the chunk size that it has promised.
//!
//! Source: WHATWG URL, "application/x-www-form-urlencoded parsing"; reference,
//! "request:stream_post_param".

use std::fmt;

use memchr::{memchr, memchr2};

use crate::http::wire::escape::{Decoder, Plus};

/// The most input that one event is made of, in bytes: bounds the memory for decoded values.
pub const WINDOW: usize = 16384;

/// What a form may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest name, in decoded bytes.
    pub name: usize,
    /// The most fields.
    pub fields: usize,
}

impl Limits {
    /// `fields` fields, 64 KiB for a name.
    pub fn new(fields: usize) -> Limits {
        Limits { name: 65536, fields }
    }
}

/// Why a form is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A name is longer than the limit.
    NameTooLong,
    /// There are more fields than the limit.
    TooManyFields,
}

impl Error {
    /// The status code of the refusal.
    pub fn status(self) -> u16 {
        413
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::NameTooLong => "Form field name too long",
            Error::TooManyFields => "Too many form fields",
        })
    }
}

/// What the parser found.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A field begins; this is its decoded name. [`Event::End`] follows, after any values.
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
enum State {
    Name,
    Value,
    /// Text that an unfinished escape turned out to be has been passed on; the field ends.
    Ending,
}

/// The parser: [`Parser::push`] all of the body, then [`Parser::finish`].
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    state: State,
    decoder: Decoder,
    /// The decoded name, or the decoded piece of a value.
    decoded: Vec<u8>,
    /// Whether the field has any byte, or is to be skipped as empty.
    begun: bool,
    fields: usize,
}

impl Parser {
    /// A parser at the begin of a body.
    pub fn new(limits: Limits) -> Parser {
        Parser {
            limits,
            state: State::Name,
            decoder: Decoder::new(Plus::Space),
            decoded: Vec::new(),
            begun: false,
            fields: 0,
        }
    }

    /// Takes bytes of the body; returns how many were used, and what they mean.
    ///
    /// To be called with the rest of the input again until the event is [`Event::More`].
    pub fn push<'a>(&'a mut self, input: &'a [u8]) -> Result<(usize, Event<'a>), Error> {
        match self.state {
            State::Name => self.name(input),
            State::Value => Ok(self.value(input)),
            State::Ending => {
                self.end();
                Ok((0, Event::End))
            }
        }
    }

    /// Ends the body. To be called until the event is [`Event::More`].
    pub fn finish(&mut self) -> Result<Event<'_>, Error> {
        match self.state {
            State::Name if !self.begun => Ok(Event::More),
            // The end of the body ends a field as `&` does.
            _ => self.push(b"&").map(|(_, event)| event),
        }
    }

    fn name<'a>(&'a mut self, input: &'a [u8]) -> Result<(usize, Event<'a>), Error> {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let window = rest.get(..WINDOW).unwrap_or(rest);
            let end = memchr2(b'=', b'&', window);
            let text = window.get(..end.unwrap_or(window.len())).unwrap_or_default();
            self.decoder.push(text, &mut self.decoded);
            self.begun |= !text.is_empty();
            used += text.len();
            if self.decoded.len() > self.limits.name {
                return Err(Error::NameTooLong);
            }
            match end.and_then(|end| window.get(end)) {
                // An empty field: nothing between two separators.
                Some(b'&') if !self.begun => used += 1,
                // The separator `&` is left for the value, which is empty then.
                Some(separator) => {
                    used += usize::from(*separator == b'=');
                    return self.begin().map(|event| (used, event));
                }
                None => {}
            }
        }
        Ok((used, Event::More))
    }

    fn begin(&mut self) -> Result<Event<'_>, Error> {
        self.decoder.finish(&mut self.decoded);
        if self.decoded.len() > self.limits.name {
            return Err(Error::NameTooLong);
        }
        self.fields += 1;
        if self.fields > self.limits.fields {
            return Err(Error::TooManyFields);
        }
        self.state = State::Value;
        Ok(Event::Begin(&self.decoded))
    }

    fn value<'a>(&'a mut self, input: &'a [u8]) -> (usize, Event<'a>) {
        self.decoded.clear();
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let window = rest.get(..WINDOW).unwrap_or(rest);
            let end = memchr(b'&', window);
            let (text, tail) = window.split_at(end.unwrap_or(window.len()));
            used += text.len();
            if !text.is_empty() && self.decoder.is_plain(text) {
                return (used, Event::Value(text));
            }
            self.decoder.push(text, &mut self.decoded);
            if !tail.is_empty() {
                used += 1;
                self.decoder.finish(&mut self.decoded);
                self.state = State::Ending;
            }
            if !self.decoded.is_empty() {
                return (used, Event::Value(&self.decoded));
            }
            if !tail.is_empty() {
                self.end();
                return (used, Event::End);
            }
        }
        (used, Event::More)
    }

    fn end(&mut self) {
        self.decoded.clear();
        self.begun = false;
        self.state = State::Name;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::params::pairs;
    use crate::http::wire::testing::pieces;
    use proptest::prelude::*;

    type Field = (Vec<u8>, Vec<u8>);

    fn fields(parser: &mut Parser, pieces: &[&[u8]]) -> Result<Vec<Field>, Error> {
        let mut fields: Vec<Field> = Vec::new();
        let mut open = false;
        let mut note = |event: Event| {
            match event {
                Event::Begin(name) => {
                    assert!(!std::mem::replace(&mut open, true));
                    fields.push((name.to_vec(), Vec::new()));
                }
                Event::Value(value) => {
                    assert!(open && !value.is_empty() && value.len() <= WINDOW + 2);
                    fields.last_mut().unwrap().1.extend_from_slice(value);
                }
                Event::End => assert!(std::mem::replace(&mut open, false)),
                Event::More => return false,
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

    fn parse(body: &[u8], size: usize) -> Result<Vec<Field>, Error> {
        let pieces: Vec<&[u8]> = body.chunks(size).collect();
        fields(&mut Parser::new(Limits::new(100)), &pieces)
    }

    fn text(name: &str, value: &str) -> Field {
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
        let limits = Limits { name: 3, fields: 2 };
        let parse = |body: &[u8]| fields(&mut Parser::new(limits), &[body]).err();
        assert_eq!(parse(b"a%62c=1234&def"), None);
        assert_eq!(parse(b"abcd=1"), Some(Error::NameTooLong));
        assert_eq!(parse(b"abc%"), Some(Error::NameTooLong));
        assert_eq!(parse(b"a&b&c"), Some(Error::TooManyFields));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_pairs_of_the_whole(
            body in "[a%&=+2bZ]{0,48}",
            cuts in proptest::collection::vec(0usize..48, 0..6),
        ) {
            let body = body.as_bytes();
            let expected: Vec<Field> =
                pairs(body).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
            prop_assert_eq!(fields(&mut Parser::new(Limits::new(100)), &pieces(body, &cuts)), Ok(expected));
        }
    }
}
