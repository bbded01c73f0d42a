//! Validation and serialization of response header lines.

use super::framing::decimal;
use super::head::{is_field_value, is_token};
use super::list::elements;

/// The text of the error to raise in the handler.
pub type Misuse = &'static str;

/// A name is not a token.
pub const INVALID_NAME: Misuse = "Invalid HTTP header name";
/// A value contains a control character, for example a line break.
pub const INVALID_VALUE: Misuse = "Invalid character in HTTP header value";

/// Header lines that go into every response.
#[derive(Clone, Debug, Default)]
pub struct StaticHeaders {
    lines: Vec<u8>,
    has_date: bool,
    close: bool,
}

impl StaticHeaders {
    /// Adds a line.
    ///
    /// # Errors
    /// If the name or value is invalid, or the name belongs to message framing.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Misuse> {
        check_header(name, value)?;
        if name.eq_ignore_ascii_case(b"content-length") || is_transfer_encoding(name) {
            return Err("Content-Length and Transfer-Encoding cannot be static headers");
        }
        self.has_date |= name.eq_ignore_ascii_case(b"date");
        self.close |= name.eq_ignore_ascii_case(b"connection") && asks_to_close(value);
        push_header(&mut self.lines, name, value);
        Ok(())
    }

    /// The lines with their ends.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// Whether one of them closes the connection.
    pub fn closes(&self) -> bool {
        self.close
    }

    /// Whether Date is one of them.
    pub fn has_date(&self) -> bool {
        self.has_date
    }
}

/// Adds the status line: three digits and, after a space, a reason phrase.
pub(in crate::http) fn push_status(out: &mut Vec<u8>, status: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status);
    if status.len() == 3 {
        // RFC 9112 4: the space is there also without a reason phrase.
        out.push(b' ');
    }
    out.extend_from_slice(b"\r\n");
}

pub(in crate::http) fn push_header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub fn push_chunk_size(out: &mut Vec<u8>, size: usize) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(HEX[(size >> (digit * 4)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

pub(in crate::http) fn asks_to_close(value: &[u8]) -> bool {
    elements(value).any(|option| option.eq_ignore_ascii_case(b"close"))
}

pub(in crate::http) fn asks_to_keep(value: &[u8]) -> bool {
    elements(value).any(|option| option.eq_ignore_ascii_case(b"keep-alive"))
}

pub(in crate::http) fn is_transfer_encoding(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"transfer-encoding")
}

pub(in crate::http) fn check_header(name: &[u8], value: &[u8]) -> Result<(), Misuse> {
    if !is_token(name) {
        return Err(INVALID_NAME);
    }
    if !is_field_value(value) {
        return Err(INVALID_VALUE);
    }
    Ok(())
}

/// RFC 9112 4: `status-code SP [ reason-phrase ]`
pub(in crate::http) fn status_code(status: &[u8]) -> Result<u16, Misuse> {
    const INVALID: Misuse =
        "HTTP status is expected to be three digits and a reason phrase, e.g. \"404 Not Found\"";
    let (code, reason) = status.split_at_checked(3).ok_or(INVALID)?;
    let code = decimal(code).filter(|code| (100..1000).contains(code)).ok_or(INVALID)?;
    if !(reason.is_empty() || reason.first() == Some(&b' ')) || !is_field_value(reason) {
        return Err(INVALID);
    }
    u16::try_from(code).map_err(|_| INVALID)
}
