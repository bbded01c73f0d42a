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

use super::list::trim;
use super::refusal::Refusal;

const BARE_LF: Refusal = Refusal::bad_request("Line not terminated by CRLF");

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

    /// Where `part`, a subslice of `head`, stands in it.
    pub fn locate(head: &[u8], part: &[u8]) -> Span {
        Span::within(0, head, part)
    }

    /// Where `part`, a subslice of a line at `base` that starts with `line`, stands in the head.
    fn within(base: usize, line: &[u8], part: &[u8]) -> Span {
        let offset = (part.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
        let start = base + offset;
        Span { start: start as u32, end: (start + part.len()) as u32 }
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
    fn of(name: &[u8]) -> Known {
        let (candidate, known): (&[u8], Known) = match name.len() {
            4 => (b"host", Known::Host),
            6 => (b"expect", Known::Expect),
            10 => (b"connection", Known::Connection),
            14 => (b"content-length", Known::ContentLength),
            17 => (b"transfer-encoding", Known::TransferEncoding),
            _ => return Known::Other,
        };
        if name.eq_ignore_ascii_case(candidate) { known } else { Known::Other }
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

    /// Parses the lines of `input` that are complete and were not parsed before.
    ///
    /// `input` must begin with the input of the previous call. Errors are 400, 414, 431 and 505;
    /// each is reported as soon as its line is complete.
    pub fn advance(&mut self, input: &[u8], limits: &HeadLimits) -> Result<HeadProgress, Refusal> {
        if let Some(size) = self.complete {
            return Ok(HeadProgress::Complete(size));
        }
        loop {
            let Some(offset) = memchr(b'\n', input.get(self.searched..).unwrap_or_default()) else {
                self.searched = input.len();
                self.check_size(input.len(), limits)?;
                return Ok(HeadProgress::Partial);
            };
            let next = self.searched + offset + 1;
            self.check_size(next, limits)?;
            let base = self.line;
            let line = input.get(base..next - 1).unwrap_or_default();
            (self.line, self.searched) = (next, next);
            if !self.has_request_line && matches!(line, b"" | b"\r") {
                continue;
            }
            let line = line.strip_suffix(b"\r").ok_or(BARE_LF)?;
            match (self.has_request_line, line.is_empty()) {
                (false, _) => self.request_line(base, line)?,
                (true, true) => {
                    self.complete = Some(next);
                    return Ok(HeadProgress::Complete(next));
                }
                (true, false) => self.field_line(base, line, limits)?,
            }
        }
    }

    fn check_size(&self, size: usize, limits: &HeadLimits) -> Result<(), Refusal> {
        match (size <= limits.head, self.has_request_line) {
            (true, _) => Ok(()),
            (false, false) => Err(Refusal::uri_too_long()),
            (false, true) => Err(Refusal::fields_too_large("Header section too big")),
        }
    }

    fn request_line(&mut self, base: usize, line: &[u8]) -> Result<(), Refusal> {
        const INVALID: Refusal = Refusal::bad_request("Invalid request line");
        let mut parts = line.splitn(3, |&byte| byte == b' ');
        let (Some(method), Some(target), Some(version)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(INVALID);
        };
        if !is_token(method) || target.is_empty() || has_blank_or_control(target) {
            return Err(INVALID);
        }
        self.version = match version {
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                match (major, minor) {
                    (b'1', b'0') => Version::Http10,
                    (b'1', _) => Version::Http11,
                    _ => return Err(Refusal::version_not_supported()),
                }
            }
            _ => return Err(INVALID),
        };
        self.method = Span::within(base, line, method);
        self.target = Span::within(base, line, target);
        self.has_request_line = true;
        Ok(())
    }

    fn field_line(&mut self, base: usize, line: &[u8], limits: &HeadLimits) -> Result<(), Refusal> {
        const INVALID: Refusal = Refusal::bad_request("Invalid header line");
        if self.fields.len() >= limits.fields {
            return Err(Refusal::fields_too_large("Too many header lines"));
        }
        let colon = memchr(b':', line).ok_or(INVALID)?;
        let (name, rest) = line.split_at_checked(colon).ok_or(INVALID)?;
        let value = trim(rest.get(1..).unwrap_or_default());
        // This also refuses folded lines: the name would begin with a blank.
        if !is_token(name) || !is_field_value(value) {
            return Err(INVALID);
        }
        self.fields.push(Field {
            name: Span::within(base, line, name),
            value: Span::within(base, line, value),
            known: Known::of(name),
        });
        Ok(())
    }
}

/// Whether `text` is a token (RFC 9110 5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `byte` may stand in a token (RFC 9110 5.6.2).
pub const fn is_token_byte(byte: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let others = b"!#$%&'*+-.^_`|~";
        let mut index = 0;
        while index < others.len() {
            table[others[index] as usize] = true;
            index += 1;
        }
        table
    };
    TABLE[byte as usize]
}

/// Whether `text` may stand in a field value: no control character but HTAB (RFC 9110 5.5).
pub fn is_field_value(text: &[u8]) -> bool {
    // Without an early exit the compiler checks many bytes at once.
    !text.iter().fold(false, |bad, &byte| bad | ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f))
}

fn has_blank_or_control(text: &[u8]) -> bool {
    text.iter().fold(false, |bad, &byte| bad | (byte <= b' ') | (byte == 0x7f))
}
