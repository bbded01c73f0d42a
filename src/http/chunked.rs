//! Incremental decoder of the chunked transfer coding.
//!
//! Source: RFC 9112 7.1:
//!
//! ```text
//! chunked-body = *chunk last-chunk trailer-section CRLF
//! chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
//! chunk-size   = 1*HEXDIG
//! last-chunk   = 1*"0" [ chunk-ext ] CRLF
//! chunk-ext    = *( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )
//! ```
//!
//! Every deviation is an error: where two recipients see a line end or a size differently, one of
//! them takes body for a request. So only CRLF ends a line here, in the trailer section too,
//! although RFC 9112 2.2 would allow a bare LF there.

use std::fmt;

use super::escape::hex_value;
use super::media_type::is_token;

/// How much a body may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest body, in bytes, without the coding.
    pub body: u64,
    /// The longest line with a chunk's size and extensions, in bytes.
    pub line: u32,
    /// Bytes of extensions and needless zeros in all; one more is allowed for every
    /// [`OVERHEAD_SHARE`] bytes of data, so that long streams of signed chunks pass.
    pub overhead: u64,
    /// The longest trailer section, in bytes.
    pub trailers: u32,
    /// The most trailer fields.
    pub trailer_fields: u32,
}

/// Bytes of data that allow for one more byte of extensions.
pub const OVERHEAD_SHARE: u64 = 16;

impl Limits {
    /// A body of `body` bytes; lines of 4 KiB, 16 KiB overhead, 64 trailer fields in 16 KiB.
    pub fn new(body: u64) -> Limits {
        Limits { body, line: 4096, overhead: 16384, trailers: 16384, trailer_fields: 64 }
    }
}

/// Why a body is refused. The connection must be closed then: its framing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A chunk's size line breaks the grammar.
    Size,
    /// A chunk's data is not followed by CRLF.
    Data,
    /// The trailer section breaks the grammar.
    Trailer,
    /// The coding takes more bytes than the limits allow.
    Overhead,
    /// The trailer section is beyond its limits.
    TrailerTooBig,
    /// The body is beyond its limit; found as soon as a chunk announces it.
    BodyTooBig,
}

impl Error {
    /// The status code of the refusal.
    pub fn status(self) -> u16 {
        match self {
            Error::Size | Error::Data | Error::Trailer | Error::Overhead => 400,
            Error::TrailerTooBig => 431,
            Error::BodyTooBig => 413,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Size => "Invalid chunk size line",
            Error::Data => "Chunk data not terminated as announced",
            Error::Trailer => "Invalid trailer section",
            Error::Overhead => "Too much overhead in chunked request body",
            Error::TrailerTooBig => "Trailer section too big",
            Error::BodyTooBig => "Request body is too big",
        })
    }
}

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A piece of the body, never empty; as long as the input and the chunk allow.
    Data(&'a [u8]),
    /// The body is complete. What follows in the input belongs to the next request.
    End,
    /// All input was used up.
    More,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

/// What the next byte of a chunk extension may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// A blank before `;`.
    Before,
    NameStart,
    Name,
    /// A blank after the name.
    AfterName,
    ValueStart,
    Value,
    Quoted,
    QuotedPair,
    /// After a quoted value.
    AfterQuoted,
}

/// The decoder of one body.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
    /// What is left of the chunk's data, or its size as far as it has been read.
    chunk: u64,
    /// Bytes of body announced so far.
    announced: u64,
    line: u32,
    overhead: u64,
    trailers: u32,
    trailer_fields: u32,
}

impl Decoder {
    /// A decoder at the begin of a body.
    pub fn new(limits: Limits) -> Decoder {
        Decoder {
            limits,
            state: State::SizeStart,
            chunk: 0,
            announced: 0,
            line: 0,
            overhead: 0,
            trailers: 0,
            trailer_fields: 0,
        }
    }

    /// Whether the body is complete.
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Takes bytes from the connection; returns how many were used, and what they mean.
    ///
    /// To be called with the rest of the input again until the event is [`Event::More`] (then
    /// with further input) or [`Event::End`].
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Event<'a>), Error> {
        let mut used = 0;
        while let Some((&byte, _)) = input.get(used..).and_then(|rest| rest.split_first()) {
            match self.state {
                State::Data => {
                    let rest = input.get(used..).unwrap_or_default();
                    let len = usize::try_from(self.chunk).unwrap_or(usize::MAX).min(rest.len());
                    self.chunk -= len as u64;
                    if self.chunk == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok((used + len, Event::Data(rest.get(..len).unwrap_or_default())));
                }
                State::End => return Ok((used, Event::End)),
                _ => self.state = self.framing(byte)?,
            }
            used += 1;
        }
        Ok((used, if self.is_end() { Event::End } else { Event::More }))
    }

    /// The state after a byte that is no data.
    fn framing(&mut self, byte: u8) -> Result<State, Error> {
        match self.state {
            State::SizeStart | State::Size | State::Extension(_) | State::SizeLf => {
                self.line += 1;
                if self.line > self.limits.line {
                    return Err(Error::Overhead);
                }
                self.size_line(byte)
            }
            State::DataCr => expect(byte, b'\r', State::DataLf, Error::Data),
            State::DataLf => expect(byte, b'\n', State::SizeStart, Error::Data),
            State::Data | State::End => Ok(self.state),
            _ => {
                self.trailers += 1;
                if self.trailers > self.limits.trailers {
                    return Err(Error::TrailerTooBig);
                }
                self.trailer(byte)
            }
        }
    }

    fn size_line(&mut self, byte: u8) -> Result<State, Error> {
        match self.state {
            State::SizeStart | State::Size => match hex_value(byte) {
                Some(digit) => self.size_digit(digit),
                None if self.state == State::SizeStart => Err(Error::Size),
                None => match byte {
                    b'\r' => Ok(State::SizeLf),
                    _ => self.extension(Extension::Before, byte),
                },
            },
            State::Extension(extension) => self.extension(extension, byte),
            _ => {
                expect(byte, b'\n', State::Data, Error::Size)?;
                self.size_end()
            }
        }
    }

    fn size_digit(&mut self, digit: u8) -> Result<State, Error> {
        if self.state == State::Size && self.chunk == 0 {
            self.spend()?;
        }
        let size = self.chunk.checked_mul(16).ok_or(Error::BodyTooBig)? + u64::from(digit);
        self.chunk = size;
        Ok(State::Size)
    }

    fn extension(&mut self, extension: Extension, byte: u8) -> Result<State, Error> {
        use Extension::*;
        self.spend()?;
        let blank = matches!(byte, b' ' | b'\t');
        let next = match (extension, byte) {
            (Name | Value | AfterQuoted, b'\r') => return Ok(State::SizeLf),
            (Before | Name | AfterName | Value | AfterQuoted, b';') => NameStart,
            (Name | AfterName, b'=') => ValueStart,
            (ValueStart, b'"') => Quoted,
            (Quoted, b'"') => AfterQuoted,
            (Quoted, b'\\') => QuotedPair,
            (Quoted | QuotedPair, b'\t' | b' '..=b'~' | 128..) => Quoted,
            (Before | NameStart | ValueStart | AfterName, _) if blank => extension,
            (Name, _) if blank => AfterName,
            (Value | AfterQuoted, _) if blank => Before,
            (NameStart | Name, _) if is_token(byte) => Name,
            (ValueStart | Value, _) if is_token(byte) => Value,
            _ => return Err(Error::Size),
        };
        Ok(State::Extension(next))
    }

    /// Accounts for a byte that the coding could do without.
    fn spend(&mut self) -> Result<(), Error> {
        self.overhead += 1;
        let allowed = self.limits.overhead.saturating_add(self.announced / OVERHEAD_SHARE);
        if self.overhead > allowed { Err(Error::Overhead) } else { Ok(()) }
    }

    fn size_end(&mut self) -> Result<State, Error> {
        self.line = 0;
        if self.chunk == 0 {
            return Ok(State::TrailerStart);
        }
        let announced = self.announced.checked_add(self.chunk).ok_or(Error::BodyTooBig)?;
        if announced > self.limits.body {
            return Err(Error::BodyTooBig);
        }
        self.announced = announced;
        Ok(State::Data)
    }

    /// Trailer fields are checked like header fields, and dropped (RFC 9110 6.5.1 allows it).
    fn trailer(&mut self, byte: u8) -> Result<State, Error> {
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart, _) if is_token(byte) => {
                self.trailer_fields += 1;
                if self.trailer_fields > self.limits.trailer_fields {
                    return Err(Error::TrailerTooBig);
                }
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, _) if is_token(byte) => Ok(State::TrailerName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 128..) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::End),
            _ => Err(Error::Trailer),
        }
    }
}

fn expect(byte: u8, expected: u8, next: State, error: Error) -> Result<State, Error> {
    if byte == expected { Ok(next) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The body and what was not used of the input; None if more input is needed.
    fn decode(limits: Limits, pieces: &[&[u8]]) -> Result<Option<(Vec<u8>, usize)>, Error> {
        let mut decoder = Decoder::new(limits);
        let mut body = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let mut rest = *piece;
            loop {
                let (used, event) = decoder.decode(rest)?;
                rest = &rest[used..];
                match event {
                    Event::Data(data) => {
                        assert!(!data.is_empty());
                        body.extend_from_slice(data);
                    }
                    Event::End => {
                        assert!(decoder.is_end());
                        let later: usize = pieces[index + 1..].iter().map(|p| p.len()).sum();
                        return Ok(Some((body, rest.len() + later)));
                    }
                    Event::More => break assert!(rest.is_empty()),
                }
            }
        }
        Ok(None)
    }

    fn whole(body: &str) -> Result<Option<(Vec<u8>, usize)>, Error> {
        decode(Limits::new(1000), &[body.as_bytes()])
    }

    fn complete(body: &str, left: usize) -> Result<Option<(Vec<u8>, usize)>, Error> {
        Ok(Some((body.into(), left)))
    }

    #[test]
    fn chunks_are_joined_and_the_next_request_is_left() {
        assert_eq!(
            whole("3\r\nabc\r\n00a\r\n0123456789\r\n0\r\n\r\nGET"),
            complete("abc0123456789", 3)
        );
        assert_eq!(whole("000\r\n\r\n"), complete("", 0));
        assert_eq!(whole("3\r\nabc\r\n0\r\n"), Ok(None));
    }

    #[test]
    fn extensions_and_trailer_fields_are_skipped() {
        let extensions = ";a;b=c ; d = \"e;\\\"\t\u{e4}\" ;f\t=\tg";
        assert_eq!(whole(&format!("1{extensions}\r\nx\r\n0;y\r\n\r\n")), complete("x", 0));
        assert_eq!(whole("0\r\nA: b\t\u{e4}\r\nC-d:\r\n\r\n"), complete("", 0));
    }

    #[test]
    fn sizes_are_hexadecimal_digits_alone() {
        for size in ["", " 1", "1 ", "+1", "-1", "0x1", "g", "1_0", "1,1", "1\t", "\u{661}"] {
            assert_eq!(whole(&format!("{size}\r\nx\r\n0\r\n\r\n")), Err(Error::Size), "{size:?}");
        }
    }

    #[test]
    fn sizes_that_overflow_are_too_big() {
        for size in ["10000000000000000", "ffffffffffffffff", "1ffffffffffffffff", "3e9"] {
            assert_eq!(whole(&format!("{size}\r\n")), Err(Error::BodyTooBig), "{size}");
        }
        let halves = "8000000000000000\r\n";
        assert_eq!(decode(Limits::new(u64::MAX), &[halves.as_bytes()]), Ok(None));
    }

    /// RFC 9112 2.2 and 7.1: line ends are CRLF; a bare CR is never one.
    #[test]
    fn only_crlf_ends_a_line() {
        for body in ["1\nx", "1\rx", "1\r\rx", "1;a\nx", "1;a\r\r\n", "1;a=\"\n\"\r\n"] {
            assert_eq!(whole(body), Err(Error::Size), "{body:?}");
        }
        for body in ["1\r\nx\n", "1\r\nx\rx", "1\r\nxx", "1\r\nx0\r\n\r\n"] {
            assert_eq!(whole(body), Err(Error::Data), "{body:?}");
        }
        for trailer in ["\n", "\rx", "A: b\n", "A: b\rx", "A: b\r\n\n", "A: b\r\n c\r\n"] {
            assert_eq!(whole(&format!("0\r\n{trailer}")), Err(Error::Trailer), "{trailer:?}");
        }
    }

    #[test]
    fn extensions_and_trailer_fields_keep_to_their_grammar() {
        for line in ["1;", "1; ;a", "1;a b", "1;a=", "1;a=\"b", "1;a=\"b\"c", "1;a\0", "1 a"] {
            assert_eq!(whole(&format!("{line}\r\n")), Err(Error::Size), "{line:?}");
        }
        for trailer in ["A : b", ": b", "A", " A: b", "A: \0", "A: \u{7f}"] {
            assert_eq!(whole(&format!("0\r\n{trailer}\r\n")), Err(Error::Trailer), "{trailer:?}");
        }
    }

    #[test]
    fn the_body_is_limited_when_a_chunk_announces_it() {
        assert_eq!(whole("3e8\r\n"), Ok(None));
        assert_eq!(whole("1\r\nx\r\n3e7\r\n"), Ok(None));
        assert_eq!(whole("1\r\nx\r\n3e8\r\n"), Err(Error::BodyTooBig));
    }

    #[test]
    fn overhead_is_limited() {
        let zeros = |count| whole(&format!("{}1\r\n", "0".repeat(count)));
        assert_eq!(zeros(4000), Ok(None));
        assert_eq!(zeros(5000), Err(Error::Overhead));
        assert_eq!(whole(&"1;a=bcdefghijk\r\nx\r\n".repeat(900)), Ok(None));
        let limits = Limits { overhead: 100, ..Limits::new(1000) };
        let chunks = "1;a=bcdefghijk\r\nx\r\n".repeat(10);
        assert_eq!(decode(limits, &[chunks.as_bytes()]), Err(Error::Overhead));
    }

    #[test]
    fn the_trailer_section_is_limited() {
        let fields = |count| whole(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(count)));
        assert_eq!(fields(64), complete("", 0));
        assert_eq!(fields(65), Err(Error::TrailerTooBig));
        let long = format!("0\r\nA: {}\r\n\r\n", "b".repeat(17000));
        assert_eq!(whole(&long), Err(Error::TrailerTooBig));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_body(
            chunks in proptest::collection::vec(("[a-z\\r\\n]{1,20}", "(;a=b|; c = \"d;\"|)"), 0..5),
            cuts in proptest::collection::vec(0usize..200, 0..8),
        ) {
            let mut coded = String::new();
            for (data, extension) in &chunks {
                coded += &format!("{:X}{extension}\r\n{data}\r\n", data.len());
            }
            coded += "0\r\nA: b\r\n\r\nnext";
            let body: String = chunks.iter().map(|(data, _)| data.as_str()).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(coded.len())).collect();
            cuts.extend([0, coded.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> =
                cuts.windows(2).map(|cut| &coded.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(decode(Limits::new(1000), &pieces), complete(&body, 4));
        }

        #[test]
        fn any_split_gives_the_same_error(
            coded in "[0-2a;=\" \r\n:]{0,30}",
            cut in 0usize..30,
        ) {
            let (head, tail) = coded.as_bytes().split_at(cut.min(coded.len()));
            let bytes: Vec<&[u8]> = coded.as_bytes().chunks(1).collect();
            let expected = decode(Limits::new(1000), &[coded.as_bytes()]);
            prop_assert_eq!(&decode(Limits::new(1000), &[head, tail]), &expected);
            prop_assert_eq!(&decode(Limits::new(1000), &bytes), &expected);
        }
    }
}
