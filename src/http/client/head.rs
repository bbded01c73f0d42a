//! The head of a response: status line and header fields.
//!
//! Source: RFC 9112 4 and 5. Beyond the grammar, the client only accepts a status line without a
//! blank after the code (common and harmless), and folded lines, which 5.2 requires of user agents,
//! except in the fields that frame the body. A client that guesses differently from another
//! recipient could mistake one response for another. For servers that cannot be fixed there is
//! [`ResponseHead::lenient`].

use std::fmt;
use std::ops::Range;

use memchr::memchr;

use crate::http::wire::head::{HeadLimits, HeadProgress, Version, is_field_value, is_token};
use crate::http::wire::list::trim;

/// 256 KiB, 1000 lines: more than any honest server sends, and little enough to store for each
/// request.
pub const LIMITS: HeadLimits = HeadLimits { head: 256 * 1024, fields: 1000 };

/// Why a head is refused. The connection must then be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The input is not an HTTP/1 response.
    NotHttp,
    /// The status line is malformed.
    StatusLine,
    /// A header line is malformed.
    FieldLine,
    /// The head exceeds its limits.
    TooBig,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadError::NotHttp => "the server does not speak HTTP/1",
            HeadError::StatusLine => "invalid status line",
            HeadError::FieldLine => "invalid header line in response",
            HeadError::TooBig => "response header section too big",
        })
    }
}

/// A header field, as positions in the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseField {
    /// The name as it was sent.
    pub name: Range<usize>,
    /// The value without surrounding blanks; a folded value includes its line ends.
    pub value: Range<usize>,
    /// Whether the value spans several lines (RFC 9112 5.2).
    pub folded: bool,
}

/// A head, complete or being parsed.
#[derive(Debug, Default)]
pub struct ResponseHead {
    /// The status code, 100 to 999.
    pub status: u16,
    /// The protocol version.
    pub version: Version,
    /// The first line without its end.
    pub status_line: Range<usize>,
    /// The header fields in their order.
    pub fields: Vec<ResponseField>,
    /// Also accept LF alone as line end (RFC 9112 2.2), blanks around names (5.1), and a length beside the
    /// chunked coding (6.1).
    pub lenient: bool,
    /// Where the first unparsed line begins.
    line: usize,
    /// There is no further line end before this position.
    searched: usize,
}

impl ResponseHead {
    /// Resets everything for the next response, but keeps the memory for fields.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = ResponseHead { fields, lenient: self.lenient, ..ResponseHead::default() };
    }

    /// Parses the lines of `input` that are complete and were not parsed before.
    ///
    /// `input` must begin with the input of the previous call. Errors are reported as soon as their
    /// line is complete; input that cannot become a status line is refused before that.
    pub fn advance(
        &mut self,
        input: &[u8],
        limits: &HeadLimits,
    ) -> Result<HeadProgress, HeadError> {
        if self.status == 0 {
            check_begin(input)?;
        }
        loop {
            let Some(offset) = memchr(b'\n', input.get(self.searched..).unwrap_or_default()) else {
                self.searched = input.len();
                return if input.len() > limits.head {
                    Err(HeadError::TooBig)
                } else {
                    Ok(HeadProgress::Partial)
                };
            };
            let next = self.searched + offset + 1;
            if next > limits.head {
                return Err(HeadError::TooBig);
            }
            let base = self.line;
            let line = input.get(base..next - 1).unwrap_or_default();
            let line = match line.strip_suffix(b"\r") {
                Some(line) => line,
                None if self.lenient => line,
                None if self.status == 0 => return Err(HeadError::StatusLine),
                None => return Err(HeadError::FieldLine),
            };
            (self.line, self.searched) = (next, next);
            match (self.status, line.first()) {
                (0, _) => self.status_line(base, line)?,
                (_, None) => return Ok(HeadProgress::Complete(next)),
                (_, Some(b' ' | b'\t')) if self.lenient && self.fields.is_empty() => {
                    let blanks = line.len() - line.trim_ascii_start().len();
                    self.field_line(base + blanks, line.trim_ascii_start(), limits)?;
                }
                (_, Some(b' ' | b'\t')) => self.folded_line(base, line)?,
                (_, Some(_)) => self.field_line(base, line, limits)?,
            }
        }
    }

    /// RFC 9112 4.
    fn status_line(&mut self, base: usize, line: &[u8]) -> Result<(), HeadError> {
        let rest = line.strip_prefix(b"HTTP/1.").ok_or(HeadError::NotHttp)?;
        let [minor, b' ', code @ ..] = rest else { return Err(HeadError::StatusLine) };
        let (code, reason) = code.split_at_checked(3).ok_or(HeadError::StatusLine)?;
        let digits = minor.is_ascii_digit() && code.iter().all(u8::is_ascii_digit);
        let separated = matches!(reason, [] | [b' ', ..]);
        if !digits || !separated || !is_field_value(reason) {
            return Err(HeadError::StatusLine);
        }
        let status = code.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        if status < 100 {
            return Err(HeadError::StatusLine);
        }
        self.status = status;
        self.version = if *minor == b'0' { Version::Http10 } else { Version::Http11 };
        self.status_line = base..base + line.len();
        Ok(())
    }

    /// RFC 9112 5: no blank before the colon (5.1).
    fn field_line(
        &mut self,
        base: usize,
        line: &[u8],
        limits: &HeadLimits,
    ) -> Result<(), HeadError> {
        if self.fields.len() >= limits.fields {
            return Err(HeadError::TooBig);
        }
        let colon = memchr(b':', line).ok_or(HeadError::FieldLine)?;
        let (name, value) = line.split_at_checked(colon).ok_or(HeadError::FieldLine)?;
        let value = trim_range(value, base + colon, 1);
        let name = if self.lenient { name.trim_ascii_end() } else { name };
        if !is_token(name) || !is_field_value(line.get(colon..).unwrap_or_default()) {
            return Err(HeadError::FieldLine);
        }
        self.fields.push(ResponseField { name: base..base + name.len(), value, folded: false });
        Ok(())
    }

    /// RFC 9112 5.2: the line continues the value of the previous field.
    fn folded_line(&mut self, base: usize, line: &[u8]) -> Result<(), HeadError> {
        let field = self.fields.last_mut().ok_or(HeadError::FieldLine)?;
        if !is_field_value(line) {
            return Err(HeadError::FieldLine);
        }
        let value = trim_range(line, base, 0);
        if !value.is_empty() {
            field.value.end = value.end;
            field.folded = true;
        }
        Ok(())
    }
}

/// Refuses input that cannot be the beginning of a response, without waiting for more.
fn check_begin(input: &[u8]) -> Result<(), HeadError> {
    const BEGIN: &[u8] = b"HTTP/1.";
    let length = input.len().min(BEGIN.len());
    if input.get(..length) == BEGIN.get(..length) { Ok(()) } else { Err(HeadError::NotHttp) }
}

/// The range of `text`, which is at `base` in the head, without its first `skip` bytes and
/// surrounding blanks.
fn trim_range(text: &[u8], base: usize, skip: usize) -> Range<usize> {
    let text = text.get(skip..).unwrap_or_default();
    let trimmed = trim(text);
    let offset = (trimmed.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let start = base + skip + offset;
    start..start + trimmed.len()
}

/// The value of a folded field on one line: each fold becomes one blank.
pub fn unfold(value: &[u8]) -> Vec<u8> {
    let lines = value
        .split(|&byte| byte == b'\n')
        .map(|line| trim(line.strip_suffix(b"\r").unwrap_or(line)));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(&b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type FieldList = Vec<(String, String)>;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Feeds the input in pieces that end at `cuts`; status, status line, fields, length of the head.
    fn parse_cut(
        input: &[u8],
        cuts: &[usize],
    ) -> Result<Option<(u16, String, FieldList, usize)>, HeadError> {
        let mut head = ResponseHead::default();
        for end in cuts.iter().copied().chain([input.len()]) {
            if let HeadProgress::Complete(n) =
                head.advance(&input[..end.min(input.len())], &LIMITS)?
            {
                let fields = head.fields.iter().map(|field| {
                    let value = &input[field.value.clone()];
                    let value = if field.folded { unfold(value) } else { value.to_vec() };
                    (text(&input[field.name.clone()]), text(&value))
                });
                let line = text(&input[head.status_line.clone()]);
                return Ok(Some((head.status, line, fields.collect(), n)));
            }
        }
        Ok(None)
    }

    fn parse(input: &[u8]) -> Result<Option<(u16, String, FieldList, usize)>, HeadError> {
        parse_cut(input, &[])
    }

    fn fields(list: &[(&str, &str)]) -> FieldList {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn rfc_9112_4_status_line_and_fields() {
        let input = b"HTTP/1.1 200 OK\r\nA: b\r\nC:\t d e \r\nE:\r\n\r\nbody";
        let expected = fields(&[("A", "b"), ("C", "d e"), ("E", "")]);
        assert_eq!(
            parse(input),
            Ok(Some((200, "HTTP/1.1 200 OK".into(), expected, input.len() - 4)))
        );
    }

    #[test]
    fn rfc_9112_4_the_reason_may_be_missing() {
        for line in ["HTTP/1.1 204 ", "HTTP/1.1 204", "HTTP/1.0 204 \u{e4}\t!"] {
            let parsed = parse(format!("{line}\r\n\r\n").as_bytes()).unwrap().unwrap();
            assert_eq!((parsed.0, &*parsed.1), (204, line));
        }
    }

    #[test]
    fn what_lenience_accepts_is_refused_otherwise() {
        for (input, expected) in [
            ("HTTP/1.1 200 OK\nA: b\n\nbody", HeadError::StatusLine),
            ("HTTP/1.1 200 OK\r\nA: b\n\r\nbody", HeadError::FieldLine),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\nbody", HeadError::FieldLine),
            ("HTTP/1.1 200 OK\r\nA \t: b\r\n\r\nbody", HeadError::FieldLine),
            ("HTTP/1.1 200 OK\r\n A: b\r\n\r\nbody", HeadError::FieldLine),
        ] {
            assert_eq!(parse(input.as_bytes()), Err(expected), "{input:?}");
            let mut head = ResponseHead { lenient: true, ..ResponseHead::default() };
            let length = input.len() - 4;
            assert_eq!(head.advance(input.as_bytes(), &LIMITS), Ok(HeadProgress::Complete(length)));
            let text = |range: &Range<usize>| &input[range.clone()];
            assert_eq!((text(&head.fields[0].name), text(&head.fields[0].value)), ("A", "b"));
            head.clear();
            assert!(head.lenient && head.fields.is_empty());
        }
    }

    #[test]
    fn garbage_is_found_with_its_first_bytes() {
        for input in ["\r\n", "S", "<html>", "HTTP/2", "HTTP/0.9 200", "http/1.1", "ICY 200 OK"] {
            assert_eq!(parse(input.as_bytes()), Err(HeadError::NotHttp), "{input}");
        }
        for line in [
            "HTTP/1.1",
            "HTTP/1.1 ",
            "HTTP/1.1 20",
            "HTTP/1.1 2x0",
            "HTTP/1.1 2000",
            "HTTP/1.1  200",
            "HTTP/1.1\t200",
            "HTTP/1.x 200",
            "HTTP/1.10 200",
            "HTTP/1.1 099",
            "HTTP/1.1 200 a\rb",
            "HTTP/1.1 200 \0",
            "HTTP/1.1 +20",
        ] {
            let input = format!("{line}\r\n\r\n");
            assert_eq!(parse(input.as_bytes()), Err(HeadError::StatusLine), "{line:?}");
        }
    }

    #[test]
    fn rfc_9112_5_1_malformed_fields_are_refused() {
        for line in [
            "A",
            ": b",
            "A : b",
            "A\t: b",
            "A b: c",
            "A: b\0",
            "A: b\rc",
            "A: \x7f",
            "(A): b",
            "\u{e4}: b",
            "A\r: b",
        ] {
            let input = format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n");
            assert_eq!(parse(input.as_bytes()), Err(HeadError::FieldLine), "{line:?}");
        }
    }

    #[test]
    fn rfc_9112_5_2_folded_lines_are_joined_by_a_blank() {
        let parsed = parse(b"HTTP/1.1 200 OK\r\nA: b\r\n \tc\r\n  \r\n d \r\nE: f\r\n\r\n");
        assert_eq!(parsed.unwrap().unwrap().2, fields(&[("A", "b c d"), ("E", "f")]));
        let empty = parse(b"HTTP/1.1 200 OK\r\nA:\r\n b\r\n\r\n").unwrap().unwrap();
        assert_eq!(empty.2, fields(&[("A", "b")]));
        let first = parse(b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n");
        assert_eq!(first, Err(HeadError::FieldLine));
    }

    #[test]
    fn endless_heads_are_refused() {
        let long = [b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'a'; LIMITS.head]].concat();
        assert_eq!(parse(&long), Err(HeadError::TooBig));
        let line = [b"HTTP/1.1 200 ".to_vec(), vec![b'a'; LIMITS.head]].concat();
        assert_eq!(parse(&line), Err(HeadError::TooBig));
        let many = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(LIMITS.fields + 1));
        assert_eq!(parse(many.as_bytes()), Err(HeadError::TooBig));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_head(
            lines in prop::collection::vec("[ a:\\t\\r\\x00b]{0,6}", 0..6),
            cuts in prop::collection::vec(0usize..60, 0..6),
        ) {
            let input = format!("HTTP/1.1 200 OK\r\n{}\r\n\r\n", lines.join("\r\n"));
            let mut cuts = cuts;
            cuts.sort_unstable();
            prop_assert_eq!(parse_cut(input.as_bytes(), &cuts), parse(input.as_bytes()));
        }

        #[test]
        fn any_input_is_parsed_without_panic(input in "\\PC{0,40}") {
            let _ = parse(input.as_bytes());
            let _ = parse(format!("HTTP/1.1 200 {input}").as_bytes());
        }
    }
}
