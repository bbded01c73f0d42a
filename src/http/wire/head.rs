//! The head of a request: request line and header fields (RFC 9112 3 and 5).
//!
//! The parser handles each line once, as soon as it is complete, however the head is fragmented. It
//! stores positions in the input, so it copies nothing and allocates only the list of fields, which
//! is reused.
//!
//! | rule | source |
//! |---|---|
//! | empty lines before the request line are skipped, however they end | RFC 9112 2.2 |
//! | a line ends with CRLF; a bare CR or LF is refused, as two recipients may read it differently | RFC 9112 2.2 |
//! | single spaces separate method, target and version | RFC 9112 3 |
//! | no blank between field name and colon, no folded lines | RFC 9112 5.1, 5.2 |
//! | blanks around a field value are not part of it | RFC 9112 5.1 |
//! | values hold visible characters, SP, HTAB and bytes from 0x80 | RFC 9110 5.5 |

use memchr::memchr;

use super::refusal::Refusal;
use super::scan;
pub use super::scan::is_token_byte;

/// Limits on the size of a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the request line and all lines with their ends, empty ones before included.
    pub head: usize,
    /// Number of field lines.
    pub fields: usize,
}

/// The protocol version of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1, or a later minor revision, which is treated as that (RFC 9110 2.5).
    #[default]
    Http11,
}

impl Version {
    /// The name of the protocol, as in gateway interfaces (RFC 3875 4.1.16).
    pub fn name(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }
}

/// A piece of the head, as positions in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The bytes of `head` this span stands for.
    pub fn of<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        head.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The number of bytes.
    #[inline(always)]
    pub fn size(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// From the beginning of this one to the end of a later one.
    pub fn to(self, later: Span) -> Span {
        Span { start: self.start, end: later.end }
    }

    /// Where `part`, a subslice of `head`, stands in it.
    pub fn locate(head: &[u8], part: &[u8]) -> Span {
        let start = (part.as_ptr() as usize).saturating_sub(head.as_ptr() as usize);
        Span::new(0, start, start + part.len())
    }

    /// From `start` to `end` of a line that begins at `base`.
    fn new(base: usize, start: usize, end: usize) -> Span {
        Span { start: (base + start) as u32, end: (base + end) as u32 }
    }
}

/// The fields that decide how a request is framed and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// RFC 9110 7.6.1
    Connection,
    /// RFC 9110 8.6
    ContentLength,
    /// RFC 9110 10.1.1
    Expect,
    /// RFC 9110 7.2
    Host,
    /// RFC 9112 6.1
    TransferEncoding,
    /// Anything else.
    Other,
}

impl Known {
    #[inline(always)]
    fn of(name: &[u8]) -> Known {
        match name.len() {
            4 if scan::is_name(name, b"Host") => Known::Host,
            6 if scan::is_name(name, b"Expect") => Known::Expect,
            10 if scan::is_name(name, b"Connection") => Known::Connection,
            14 if scan::is_name(name, b"Content-Length") => Known::ContentLength,
            17 if scan::is_name(name, b"Transfer-Encoding") => Known::TransferEncoding,
            _ => Known::Other,
        }
    }
}

/// A header field line.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name as it was sent.
    pub name: Span,
    /// The value without blanks around it.
    pub value: Span,
    /// Whether it is one of the fields that the server itself needs.
    pub known: Known,
}

/// The progress of parsing a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadProgress {
    /// More input is needed.
    Partial,
    /// The head is complete and has this many bytes.
    Complete(usize),
}

/// A head, complete or being parsed.
#[derive(Debug, Default)]
pub struct Head {
    /// The request method (RFC 9110 9.1), a token.
    pub method: Span,
    /// The request target: no blanks or control characters, else unchecked.
    pub target: Span,
    /// The revision of the protocol.
    pub version: Version,
    /// The header fields in their order.
    pub fields: Vec<Field>,
    /// A bit for each kind of fields that there are.
    kinds: u8,
    /// Whether the request line has been parsed.
    has_request_line: bool,
    /// Where the first unparsed line begins.
    line: usize,
    /// There is no further line end before this position.
    searched: usize,
    /// The size of the head, once it is complete.
    complete: Option<usize>,
}

impl Head {
    /// Resets everything for the next request, but keeps the memory for fields.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Head { fields, ..Head::default() };
    }

    /// Whether `input`, as far as it was parsed, contains the beginning of a request line.
    pub fn has_begun(&self, input: &[u8]) -> bool {
        self.has_request_line || input.len() > self.line
    }

    /// Whether the request line is known.
    pub fn has_request_line(&self) -> bool {
        self.has_request_line
    }

    /// The fields of a kind, in their order.
    #[inline(always)]
    pub fn of_kind(&self, known: Known) -> impl Iterator<Item = &Field> {
        let fields = if self.kinds & 1 << known as u8 == 0 { &[] } else { &self.fields[..] };
        fields.iter().filter(move |field| field.known == known)
    }

    /// Parses the lines of `input` that are complete and were not parsed before.
    ///
    /// `input` must begin with the input of the previous call. Errors are 400, 414, 431 and 505;
    /// each is reported as soon as its line is complete.
    pub fn advance(&mut self, input: &[u8], limits: &HeadLimits) -> Result<HeadProgress, Refusal> {
        loop {
            if let Some(size) = self.complete {
                return Ok(HeadProgress::Complete(size));
            }
            if self.searched == input.len() {
                return Ok(HeadProgress::Partial);
            }
            // Most lines are complete and valid: one pass finds their parts and their end.
            if self.searched == self.line && self.take_line(input, limits)? {
                continue;
            }
            let Some(offset) = memchr(b'\n', input.get(self.searched..).unwrap_or_default()) else {
                self.searched = input.len();
                self.check_size(input.len(), limits)?;
                return Ok(HeadProgress::Partial);
            };
            let next = self.searched + offset + 1;
            self.check_size(next, limits)?;
            let was_searched = std::mem::replace(&mut self.searched, self.line) != self.line;
            if was_searched && self.take_line(input, limits)? {
                continue;
            }
            let line = input.get(self.line..next).unwrap_or_default();
            if self.has_request_line || !matches!(line, b"\n" | b"\r\n") {
                return Err(self.refusal(line, limits));
            }
            (self.line, self.searched) = (next, next);
        }
    }

    /// Takes the next line if it is complete and valid. It reads nothing after the line, nor a part of it
    /// twice.
    #[inline(always)]
    fn take_line(&mut self, input: &[u8], limits: &HeadLimits) -> Result<bool, Refusal> {
        let base = self.line;
        let text = input.get(base..).unwrap_or_default();
        let size = if !self.has_request_line {
            let Some(line) = RequestLine::parse(text) else { return Ok(false) };
            self.check_size(base + line.size, limits)?;
            self.version = match line.version {
                (b'1', b'0') => Version::Http10,
                (b'1', _) => Version::Http11,
                _ => return Err(Refusal::version_not_supported()),
            };
            self.method = Span::new(base, 0, line.method);
            self.target = Span::new(base, line.method + 1, line.target);
            self.has_request_line = true;
            line.size
        } else if text.starts_with(b"\r\n") {
            self.check_size(base + 2, limits)?;
            self.complete = Some(base + 2);
            2
        } else {
            let Some(line) = FieldLine::parse(text) else { return Ok(false) };
            self.check_size(base + line.size, limits)?;
            self.check_count(limits)?;
            let known = Known::of(text.get(..line.name).unwrap_or_default());
            self.kinds |= 1 << known as u8;
            let (name, value) = (line.name, Span::new(base, line.start, line.end));
            self.fields.push(Field { name: Span::new(base, 0, name), value, known });
            line.size
        };
        self.line = base + size;
        self.searched = self.line;
        Ok(true)
    }

    #[inline(always)]
    fn check_size(&self, size: usize, limits: &HeadLimits) -> Result<(), Refusal> {
        match (size <= limits.head, self.has_request_line) {
            (true, _) => Ok(()),
            (false, false) => Err(Refusal::uri_too_long()),
            (false, true) => Err(Refusal::fields_too_large("Header section too big")),
        }
    }

    #[inline(always)]
    fn check_count(&self, limits: &HeadLimits) -> Result<(), Refusal> {
        match self.fields.len() < limits.fields {
            true => Ok(()),
            false => Err(Refusal::fields_too_large("Too many header lines")),
        }
    }

    /// What is wrong with a complete line.
    #[cold]
    fn refusal(&self, line: &[u8], limits: &HeadLimits) -> Refusal {
        if !line.ends_with(b"\r\n") {
            return Refusal::bad_request("Line not terminated by CRLF");
        }
        if !self.has_request_line {
            return Refusal::bad_request("Invalid request line");
        }
        let invalid = Refusal::bad_request("Invalid header line");
        self.check_count(limits).err().unwrap_or(invalid)
    }
}

/// A valid request line: where its parts end, and the digits of its version.
struct RequestLine {
    method: usize,
    target: usize,
    version: (u8, u8),
    /// With its end.
    size: usize,
}

impl RequestLine {
    /// The line at the beginning of `text`, if it is complete and valid.
    #[inline(always)]
    fn parse(text: &[u8]) -> Option<RequestLine> {
        let method = scan::token(text);
        let rest = text.get(method..)?.strip_prefix(b" ")?;
        let length = scan::visible(rest);
        if method == 0 || length == 0 {
            return None;
        }
        match rest.get(length..)?.first_chunk()? {
            [b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b'\r', b'\n']
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                let target = method + 1 + length;
                Some(RequestLine { method, target, version: (*major, *minor), size: target + 11 })
            }
            _ => None,
        }
    }
}

/// A valid field line: where its parts end.
struct FieldLine {
    name: usize,
    /// The value, without blanks around it.
    start: usize,
    end: usize,
    /// With its end.
    size: usize,
}

impl FieldLine {
    /// The line at the beginning of `text`, if it is complete and valid. Folded lines are not: their name would
    /// begin with a blank.
    #[inline(always)]
    fn parse(text: &[u8]) -> Option<FieldLine> {
        let name = scan::token(text);
        let rest = text.get(name..)?.strip_prefix(b":")?;
        let length = scan::field_value(rest);
        if name == 0 || !rest.get(length..)?.starts_with(b"\r\n") {
            return None;
        }
        let is_blank = |at: usize| matches!(rest.get(at), Some(b' ' | b'\t'));
        let (mut start, mut end) = (0, length);
        while is_blank(start) {
            start += 1;
        }
        while end > start && is_blank(end - 1) {
            end -= 1;
        }
        let base = name + 1;
        Some(FieldLine { name, start: base + start, end: base + end, size: base + length + 2 })
    }
}

/// Whether `text` is a token (RFC 9110 5.6.2).
#[inline]
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && scan::token(text) == text.len()
}

/// Whether `text` may stand in a field value: no control character but HTAB (RFC 9110 5.5).
#[inline]
pub fn is_field_value(text: &[u8]) -> bool {
    scan::field_value(text) == text.len()
}
