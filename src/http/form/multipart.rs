//! Streaming parser of `multipart/form-data` bodies.
//!
//! The parser passes data on as slices of the input, so parts of any size need constant memory: it
//! only collects a part's headers, up to a limit. The caller splits or joins the pieces to its
//! chunk size.
//!
//! Sources: RFC 7578 (form data), RFC 2046 5.1.1 (multipart); reference, "request.post_metadata"
//! and "request:stream_post_param".
//!
//! ```text
//! body      = [preamble CRLF] delimiter padding CRLF part *(CRLF delimiter padding CRLF part)
//!             CRLF delimiter "--" [epilogue]
//! delimiter = "--" boundary
//! part      = *(header CRLF) [CRLF data]
//! ```

mod disposition;
mod error;
mod part;
#[cfg(test)]
mod tests;

use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};

use crate::http::wire::media_type::MediaType;
pub use error::MultipartError;
pub use part::Part;

/// Limits on a form.
#[derive(Clone, Copy, Debug)]
pub struct MultipartLimits {
    /// The most parts, dropped ones included.
    pub parts: usize,
    /// The longest header section of a part, and the longest preamble, in bytes.
    pub header_size: usize,
    /// The most header lines of a part.
    pub header_count: usize,
}

impl MultipartLimits {
    /// `parts` parts; 32 header lines in 16 KiB for each.
    pub fn new(parts: usize) -> MultipartLimits {
        MultipartLimits { parts, header_size: 16384, header_count: 32 }
    }
}

/// What the parser found.
#[derive(Debug, PartialEq, Eq)]
pub enum MultipartEvent<'a> {
    /// A part with a field name begins. [`MultipartEvent::PartEnd`] follows, after any data.
    Begin(&'a Part),
    /// A piece of the part's data, never empty.
    Data(&'a [u8]),
    /// The part ends.
    PartEnd,
    /// The closing delimiter was found; nothing but [`MultipartEvent::More`] follows.
    End,
    /// All input was used up.
    More,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MultipartState {
    /// Before the first delimiter.
    Preamble,
    /// A part that is dropped: searched for a delimiter.
    Dropped,
    /// A part's data.
    Data,
    /// Directly after a boundary.
    Delimited,
    /// After the first dash of a closing delimiter.
    Dash,
    /// Blanks after a boundary.
    Padding,
    /// After the CR of a delimiter's line.
    DelimiterLf,
    Head,
    Epilogue,
}

/// The result of searching the input for a delimiter.
enum Scan {
    /// This many bytes of the input are data.
    Data(usize),
    /// These bytes of the delimiter, at the end of earlier input, turned out to be data.
    Held(Range<usize>),
    /// The delimiter ends after this many bytes.
    Delimiter(usize),
    /// This many bytes, all of the input, may be part of a delimiter.
    More(usize),
}

/// The parser: [`MultipartParser::push`] all of the body, then [`MultipartParser::finish`].
#[derive(Debug)]
pub struct MultipartParser {
    limits: MultipartLimits,
    state: MultipartState,
    /// CRLF, two dashes and the boundary. It contains a CR only at its beginning, so a
    /// partial match at the end of the input never contains the beginning of another match.
    delimiter: Vec<u8>,
    /// How many bytes of the delimiter ended the previous input.
    matched: usize,
    /// How many of them are not part of the data: the CRLF after a part's headers also counts as
    /// the one before a delimiter.
    implied: usize,
    /// The preamble, or the headers of the part, as read so far.
    head: Vec<u8>,
    line_start: usize,
    lines: usize,
    part: Part,
    parts: usize,
}

impl MultipartParser {
    /// A parser for a body with the given Content-Type.
    pub fn new(
        content_type: &[u8],
        limits: MultipartLimits,
    ) -> Result<MultipartParser, MultipartError> {
        let boundary = boundary(content_type)?;
        let delimiter = [b"\r\n--", &boundary[..]].concat();
        Ok(MultipartParser {
            limits,
            state: MultipartState::Preamble,
            delimiter,
            matched: 0,
            implied: 0,
            head: Vec::new(),
            line_start: 0,
            lines: 0,
            part: Part::default(),
            parts: 0,
        })
    }

    /// Parses bytes of the body; returns how many it has consumed, and what they mean.
    ///
    /// Call it again with the rest of the input until the event is [`MultipartEvent::More`].
    pub fn push<'a>(
        &'a mut self,
        input: &'a [u8],
    ) -> Result<(usize, MultipartEvent<'a>), MultipartError> {
        let mut used = 0;
        while let Some((&byte, _)) = input.get(used..).and_then(|rest| rest.split_first()) {
            let rest = input.get(used..).unwrap_or_default();
            match self.state {
                MultipartState::Preamble => used += self.preamble(rest)?,
                MultipartState::Dropped | MultipartState::Data => {
                    let wanted = self.state == MultipartState::Data;
                    match self.scan(rest) {
                        Scan::Data(len) => {
                            used += len;
                            if wanted {
                                let data = rest.get(..len).unwrap_or_default();
                                return Ok((used, MultipartEvent::Data(data)));
                            }
                        }
                        Scan::Held(held) => {
                            if wanted {
                                let data = self.delimiter.get(held).unwrap_or_default();
                                return Ok((used, MultipartEvent::Data(data)));
                            }
                        }
                        Scan::Delimiter(len) => {
                            used += len;
                            self.state = MultipartState::Delimited;
                            if wanted {
                                return Ok((used, MultipartEvent::PartEnd));
                            }
                        }
                        Scan::More(len) => used += len,
                    }
                }
                MultipartState::Head => {
                    let (len, complete) = self.head(rest)?;
                    used += len;
                    if complete && self.begin_part()? {
                        return Ok((used, MultipartEvent::Begin(&self.part)));
                    }
                }
                MultipartState::Epilogue => return Ok((input.len(), MultipartEvent::More)),
                _ => {
                    used += 1;
                    self.state = self.delimiter_line(byte)?;
                    if self.state == MultipartState::Epilogue {
                        return Ok((used, MultipartEvent::End));
                    }
                }
            }
        }
        Ok((used, MultipartEvent::More))
    }

    /// Ends the body, which must have contained the closing delimiter; a CRLF after it is optional.
    pub fn finish(&self) -> Result<(), MultipartError> {
        if self.state == MultipartState::Epilogue { Ok(()) } else { Err(MultipartError::Truncated) }
    }

    /// Searches the input for the first delimiter; returns how much of it was consumed.
    ///
    /// Refuses a boundary that does not follow CRLF: a recipient that accepts a bare LF as line end
    /// would find a part where another one finds only preamble.
    fn preamble(&mut self, input: &[u8]) -> Result<usize, MultipartError> {
        let boundary = self.delimiter.get(2..).unwrap_or_default();
        let before = self.head.len();
        let searched = before.saturating_sub(boundary.len() - 1);
        let room = self.limits.header_size + boundary.len() - before;
        let taken = input.get(..room).unwrap_or(input);
        self.head.extend_from_slice(taken);
        let Some(offset) = find(boundary, self.head.get(searched..).unwrap_or_default()) else {
            let too_long = self.head.len() > self.limits.header_size;
            return if too_long { Err(MultipartError::Delimiter) } else { Ok(taken.len()) };
        };
        let start = searched + offset;
        let preamble = self.head.get(..start).unwrap_or_default();
        if !preamble.is_empty() && !preamble.ends_with(b"\r\n") {
            return Err(MultipartError::Delimiter);
        }
        self.state = MultipartState::Delimited;
        Ok(start + boundary.len() - before)
    }

    /// Searches the input, which is not empty, for the delimiter.
    fn scan(&mut self, input: &[u8]) -> Scan {
        let needle = &self.delimiter;
        if self.matched > 0 {
            let missing = needle.get(self.matched..).unwrap_or_default();
            let len = missing.len().min(input.len());
            if missing.get(..len) == input.get(..len) {
                let complete = len == missing.len();
                self.matched = if complete { 0 } else { self.matched + len };
                return if complete { Scan::Delimiter(len) } else { Scan::More(len) };
            }
            let held = self.implied..self.matched;
            (self.matched, self.implied) = (0, 0);
            if !held.is_empty() {
                return Scan::Held(held);
            }
        }
        match find(needle, input) {
            Some(0) => Scan::Delimiter(needle.len()),
            Some(len) => Scan::Data(len),
            None => match input.len() - begun_at_end(needle, input) {
                0 => {
                    self.matched = input.len();
                    Scan::More(input.len())
                }
                len => Scan::Data(len),
            },
        }
    }

    /// The next state after a byte on the boundary's line.
    fn delimiter_line(&mut self, byte: u8) -> Result<MultipartState, MultipartError> {
        match (self.state, byte) {
            (MultipartState::Delimited, b'-') => Ok(MultipartState::Dash),
            (MultipartState::Dash, b'-') => Ok(MultipartState::Epilogue),
            (MultipartState::Delimited | MultipartState::Padding, b' ' | b'\t') => {
                Ok(MultipartState::Padding)
            }
            (MultipartState::Delimited | MultipartState::Padding, b'\r') => {
                Ok(MultipartState::DelimiterLf)
            }
            (MultipartState::DelimiterLf, b'\n') => {
                self.parts += 1;
                if self.parts > self.limits.parts {
                    return Err(MultipartError::TooManyParts);
                }
                self.head.clear();
                (self.line_start, self.lines) = (0, 0);
                Ok(MultipartState::Head)
            }
            _ => Err(MultipartError::Delimiter),
        }
    }

    /// Collects at most one line of a part's headers; returns the bytes consumed, and whether it
    /// was the empty line that ends the headers.
    fn head(&mut self, input: &[u8]) -> Result<(usize, bool), MultipartError> {
        let end = memchr(b'\n', input);
        let len = end.map_or(input.len(), |end| end + 1);
        if self.head.len() + len > self.limits.header_size {
            return Err(MultipartError::HeaderTooBig);
        }
        self.head.extend_from_slice(input.get(..len).unwrap_or_default());
        if end.is_none() {
            return Ok((len, false));
        }
        let line = self.head.get(self.line_start..).unwrap_or_default();
        if line == b"\r\n" {
            self.head.truncate(self.line_start);
            return Ok((len, true));
        }
        if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            // MIME allows to fold lines (RFC 2045 2): the line end before a blank is a blank.
            let fold = self.line_start.saturating_sub(2)..self.line_start;
            self.head.get_mut(fold).unwrap_or_default().fill(b' ');
        }
        self.line_start = self.head.len();
        self.lines += 1;
        if self.lines > self.limits.header_count {
            return Err(MultipartError::HeaderTooBig);
        }
        Ok((len, false))
    }

    /// Turns from a part's headers to its data; returns whether the part is wanted.
    fn begin_part(&mut self) -> Result<bool, MultipartError> {
        (self.matched, self.implied) = (2, 2);
        let part = Part::parse(&self.head)?;
        let wanted = part.is_some();
        self.state = if wanted { MultipartState::Data } else { MultipartState::Dropped };
        self.part = part.unwrap_or_default();
        Ok(wanted)
    }
}

/// Where the needle begins in the input.
///
/// Linear in the input, as a delimiter cannot begin within another one; preparing a general searcher would
/// cost more than reading a usual form.
fn find(needle: &[u8], input: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let begins = |start: &usize| input.get(*start..).is_some_and(|rest| rest.starts_with(needle));
    memchr_iter(first, input).find(begins)
}

/// How many bytes at the end of `input` are an incomplete beginning of `needle`.
fn begun_at_end(needle: &[u8], input: &[u8]) -> usize {
    let tail = input.get((input.len() + 1).saturating_sub(needle.len())..).unwrap_or_default();
    let begun = memrchr(b'\r', tail).and_then(|start| tail.get(start..)).unwrap_or_default();
    if needle.starts_with(begun) { begun.len() } else { 0 }
}

/// The boundary of a multipart body: 1 to 70 characters that do not end in a blank.
///
/// RFC 2046 5.1.1 allows fewer characters; this accepts all that cannot break a line.
fn boundary(content_type: &[u8]) -> Result<Vec<u8>, MultipartError> {
    let parameter = MediaType::parse(content_type).parameter("boundary");
    let boundary = parameter.ok().flatten().ok_or(MultipartError::Boundary)?;
    let valid = (1..=70).contains(&boundary.len())
        && boundary.iter().all(|&byte| matches!(byte, b' '..=b'~'))
        && !boundary.ends_with(b" ");
    if valid { Ok(boundary.into_owned()) } else { Err(MultipartError::Boundary) }
}
