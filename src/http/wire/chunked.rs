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
//! Blanks at the end of a size line are accepted, since some senders pad it: they are not ambiguous
//! (RFC 9110 5.6.3 tells recipients to remove such blanks).
//!
//! Any other deviation is an error: if two recipients disagree about a line end or a size, one of
//! them takes part of the body for a request. So only CRLF ends a line, also in the trailer
//! section, where RFC 9112 2.2 would allow a bare LF.

#[cfg(test)]
mod tests;
mod trailer;

use std::fmt;

use super::escape::hex_value;
use super::head::is_token_byte;
use trailer::TrailerName;

/// Limits on a chunked body.
#[derive(Clone, Copy, Debug)]
pub struct ChunkedLimits {
    /// The maximum size of the decoded body, in bytes.
    pub body: u64,
    /// The longest line with a chunk's size and extensions, in bytes.
    pub line: u32,
    /// The total bytes of extensions and leading zeros. Each [`OVERHEAD_SHARE`] bytes of data allow
    /// for one more, so that long streams of signed chunks pass.
    pub overhead: u64,
    /// The longest trailer section, in bytes.
    pub trailers: u32,
    /// The most trailer fields.
    pub trailer_fields: u32,
}

/// A size padded with blanks to this width, which senders use, does not count as overhead.
const PADDED: u32 = 8;

/// Bytes of data that allow for one more byte of extensions.
pub const OVERHEAD_SHARE: u64 = 16;

impl ChunkedLimits {
    /// A body of `body` bytes; lines of 4 KiB, 16 KiB overhead, 64 trailer fields in 16 KiB.
    pub fn new(body: u64) -> ChunkedLimits {
        ChunkedLimits { body, line: 4096, overhead: 16384, trailers: 16384, trailer_fields: 64 }
    }
}

/// Why a body is refused. The connection must then be closed: its framing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkedError {
    /// A chunk's size line breaks the grammar.
    Size,
    /// A chunk's data is not followed by CRLF.
    Data,
    /// The trailer section breaks the grammar.
    Trailer,
    /// A trailer field belongs in the header section (RFC 9110 6.5.1).
    TrailerName,
    /// The coding takes more bytes than the limits allow.
    Overhead,
    /// The trailer section is beyond its limits.
    TrailerTooBig,
    /// The body exceeds its limit; reported as soon as a chunk announces it.
    BodyTooBig,
}

impl ChunkedError {
    /// The status code of the refusal.
    pub fn status(self) -> u16 {
        match self {
            ChunkedError::Size
            | ChunkedError::Data
            | ChunkedError::Trailer
            | ChunkedError::TrailerName
            | ChunkedError::Overhead => 400,
            ChunkedError::TrailerTooBig => 431,
            ChunkedError::BodyTooBig => 413,
        }
    }
}

impl fmt::Display for ChunkedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChunkedError::Size => "Invalid chunk size line",
            ChunkedError::Data => "Chunk data not terminated as announced",
            ChunkedError::Trailer => "Invalid trailer section",
            ChunkedError::TrailerName => "Field not allowed in trailer section",
            ChunkedError::Overhead => "Too much overhead in chunked request body",
            ChunkedError::TrailerTooBig => "Trailer section too big",
            ChunkedError::BodyTooBig => "Request body is too big",
        })
    }
}

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum ChunkedEvent<'a> {
    /// A piece of the body, never empty; as long as the input and the chunk allow.
    Data(&'a [u8]),
    /// The body is complete. What follows in the input belongs to the next request.
    End,
    /// All input has been consumed.
    More,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkedState {
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
    /// A blank before `;` or the line end.
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
pub struct ChunkedDecoder {
    limits: ChunkedLimits,
    state: ChunkedState,
    /// The remaining bytes of the chunk, or its size as read so far.
    chunk: u64,
    /// Bytes of body announced so far.
    announced: u64,
    line: u32,
    overhead: u64,
    trailers: u32,
    trailer_fields: u32,
    trailer_name: TrailerName,
}

impl ChunkedDecoder {
    /// A decoder for a new body.
    pub fn new(limits: ChunkedLimits) -> ChunkedDecoder {
        ChunkedDecoder {
            limits,
            state: ChunkedState::SizeStart,
            chunk: 0,
            announced: 0,
            line: 0,
            overhead: 0,
            trailers: 0,
            trailer_fields: 0,
            trailer_name: TrailerName::default(),
        }
    }

    /// Whether the body is complete.
    pub fn is_end(&self) -> bool {
        self.state == ChunkedState::End
    }

    /// Decodes bytes from the connection; returns how many it has consumed, and what they mean.
    ///
    /// Call it again with the rest of the input until the event is [`ChunkedEvent::More`] (then
    /// with further input) or [`ChunkedEvent::End`].
    pub fn decode<'a>(
        &mut self,
        input: &'a [u8],
    ) -> Result<(usize, ChunkedEvent<'a>), ChunkedError> {
        let mut used = 0;
        while let Some((&byte, _)) = input.get(used..).and_then(|rest| rest.split_first()) {
            match self.state {
                ChunkedState::Data => {
                    let rest = input.get(used..).unwrap_or_default();
                    let len = usize::try_from(self.chunk).unwrap_or(usize::MAX).min(rest.len());
                    self.chunk -= len as u64;
                    if self.chunk == 0 {
                        self.state = ChunkedState::DataCr;
                    }
                    return Ok((
                        used + len,
                        ChunkedEvent::Data(rest.get(..len).unwrap_or_default()),
                    ));
                }
                ChunkedState::End => return Ok((used, ChunkedEvent::End)),
                _ => self.state = self.framing(byte)?,
            }
            used += 1;
        }
        Ok((used, if self.is_end() { ChunkedEvent::End } else { ChunkedEvent::More }))
    }

    /// The next state after a byte that is not data.
    fn framing(&mut self, byte: u8) -> Result<ChunkedState, ChunkedError> {
        match self.state {
            ChunkedState::SizeStart
            | ChunkedState::Size
            | ChunkedState::Extension(_)
            | ChunkedState::SizeLf => {
                self.line += 1;
                if self.line > self.limits.line {
                    return Err(ChunkedError::Overhead);
                }
                self.size_line(byte)
            }
            ChunkedState::DataCr => expect(byte, b'\r', ChunkedState::DataLf, ChunkedError::Data),
            ChunkedState::DataLf => {
                expect(byte, b'\n', ChunkedState::SizeStart, ChunkedError::Data)
            }
            ChunkedState::Data | ChunkedState::End => Ok(self.state),
            _ => {
                self.trailers += 1;
                if self.trailers > self.limits.trailers {
                    return Err(ChunkedError::TrailerTooBig);
                }
                self.trailer(byte)
            }
        }
    }

    fn size_line(&mut self, byte: u8) -> Result<ChunkedState, ChunkedError> {
        match self.state {
            ChunkedState::SizeStart | ChunkedState::Size => match hex_value(byte) {
                Some(digit) => self.size_digit(digit),
                None if self.state == ChunkedState::SizeStart => Err(ChunkedError::Size),
                None => match byte {
                    b'\r' => Ok(ChunkedState::SizeLf),
                    _ => self.extension(Extension::Before, byte),
                },
            },
            ChunkedState::Extension(extension) => self.extension(extension, byte),
            _ => {
                expect(byte, b'\n', ChunkedState::Data, ChunkedError::Size)?;
                self.size_end()
            }
        }
    }

    fn size_digit(&mut self, digit: u8) -> Result<ChunkedState, ChunkedError> {
        if self.state == ChunkedState::Size && self.chunk == 0 {
            self.spend()?;
        }
        let size = self.chunk.checked_mul(16).ok_or(ChunkedError::BodyTooBig)? + u64::from(digit);
        self.chunk = size;
        Ok(ChunkedState::Size)
    }

    fn extension(&mut self, extension: Extension, byte: u8) -> Result<ChunkedState, ChunkedError> {
        use Extension::*;
        let blank = matches!(byte, b' ' | b'\t');
        let padding = blank && self.line <= PADDED || extension == Before && byte == b'\r';
        if !padding {
            self.spend()?;
        }
        let next = match (extension, byte) {
            (Before | Name | AfterName | Value | AfterQuoted, b'\r') => {
                return Ok(ChunkedState::SizeLf);
            }
            (Before | Name | AfterName | Value | AfterQuoted, b';') => NameStart,
            (Name | AfterName, b'=') => ValueStart,
            (ValueStart, b'"') => Quoted,
            (Quoted, b'"') => AfterQuoted,
            (Quoted, b'\\') => QuotedPair,
            (Quoted | QuotedPair, b'\t' | b' '..=b'~' | 128..) => Quoted,
            (Before | NameStart | ValueStart | AfterName, _) if blank => extension,
            (Name, _) if blank => AfterName,
            (Value | AfterQuoted, _) if blank => Before,
            (NameStart | Name, _) if is_token_byte(byte) => Name,
            (ValueStart | Value, _) if is_token_byte(byte) => Value,
            _ => return Err(ChunkedError::Size),
        };
        Ok(ChunkedState::Extension(next))
    }

    /// Accounts for a byte of overhead.
    fn spend(&mut self) -> Result<(), ChunkedError> {
        self.overhead += 1;
        let allowed = self.limits.overhead.saturating_add(self.announced / OVERHEAD_SHARE);
        if self.overhead > allowed { Err(ChunkedError::Overhead) } else { Ok(()) }
    }

    fn size_end(&mut self) -> Result<ChunkedState, ChunkedError> {
        self.line = 0;
        if self.chunk == 0 {
            return Ok(ChunkedState::TrailerStart);
        }
        let announced = self.announced.checked_add(self.chunk).ok_or(ChunkedError::BodyTooBig)?;
        if announced > self.limits.body {
            return Err(ChunkedError::BodyTooBig);
        }
        self.announced = announced;
        Ok(ChunkedState::Data)
    }

    /// Trailer fields are validated like header fields, and dropped (RFC 9110 6.5.1 allows it).
    /// Fields that would matter in the header section are refused: a recipient that merges them
    /// would read a different message.
    fn trailer(&mut self, byte: u8) -> Result<ChunkedState, ChunkedError> {
        match (self.state, byte) {
            (ChunkedState::TrailerStart, b'\r') => Ok(ChunkedState::EndLf),
            (ChunkedState::TrailerStart, _) if is_token_byte(byte) => {
                self.trailer_fields += 1;
                if self.trailer_fields > self.limits.trailer_fields {
                    return Err(ChunkedError::TrailerTooBig);
                }
                self.trailer_name = TrailerName::default();
                self.trailer_name.push(byte);
                Ok(ChunkedState::TrailerName)
            }
            (ChunkedState::TrailerName, b':') if self.trailer_name.is_forbidden() => {
                Err(ChunkedError::TrailerName)
            }
            (ChunkedState::TrailerName, b':') => Ok(ChunkedState::TrailerValue),
            (ChunkedState::TrailerName, _) if is_token_byte(byte) => {
                self.trailer_name.push(byte);
                Ok(ChunkedState::TrailerName)
            }
            (ChunkedState::TrailerValue, b'\r') => Ok(ChunkedState::TrailerLf),
            (ChunkedState::TrailerValue, b'\t' | b' '..=b'~' | 128..) => {
                Ok(ChunkedState::TrailerValue)
            }
            (ChunkedState::TrailerLf, b'\n') => Ok(ChunkedState::TrailerStart),
            (ChunkedState::EndLf, b'\n') => Ok(ChunkedState::End),
            _ => Err(ChunkedError::Trailer),
        }
    }
}

fn expect(
    byte: u8,
    expected: u8,
    next: ChunkedState,
    error: ChunkedError,
) -> Result<ChunkedState, ChunkedError> {
    if byte == expected { Ok(next) } else { Err(error) }
}
