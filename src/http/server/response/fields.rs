//! What the header fields of a response decide: the framing of its body, and whether the connection
//! goes on.

use super::body::{BODYLESS, BodyEnd};
use crate::http::wire::framing::decimal;
use crate::http::wire::header_lines::{
    Misuse, StaticHeaders, asks_to_close, asks_to_keep, check_header, push_header,
};
use crate::http::wire::scan::is_name;

/// The line that announces the end of the connection (RFC 9112 9.6).
pub const CLOSE: &[u8] = b"Connection: close\r\n";

/// The header fields so far, and those that the server adds.
#[derive(Debug, Default)]
pub struct Fields {
    http10: bool,
    /// The announced length of the body.
    length: Option<u64>,
    close: bool,
    says_close: bool,
    says_keep_alive: bool,
    has_date: bool,
    /// Lines that wait for the final status.
    early: Vec<u8>,
}

impl Fields {
    /// No fields yet; whether the client speaks HTTP/1.0, and whether the connection will be closed.
    pub fn new(http10: bool, close: bool) -> Self {
        Fields { http10, close, ..Fields::default() }
    }

    /// Takes a line that is to be sent with the final status, and that means nothing here.
    pub fn keep(&mut self, name: &[u8], value: &[u8]) -> Result<(), Misuse> {
        check_header(name, value)?;
        push_header(&mut self.early, name, value);
        Ok(())
    }

    /// Begins a final response with the lines that stand in each of them and those that were kept.
    pub fn begin(&mut self, fixed: &StaticHeaders, out: &mut Vec<u8>) {
        out.extend_from_slice(fixed.lines());
        out.append(&mut self.early);
        self.has_date = fixed.has_date();
        self.says_close = fixed.closes();
        self.close |= fixed.closes();
    }

    /// Takes a line of a final response; whether it is to be sent.
    pub fn add(&mut self, name: &[u8], value: &[u8], status: u16) -> Result<bool, Misuse> {
        match Meaning::of_line(name, value)? {
            Meaning::None => return Ok(true),
            Meaning::TransferEncoding => return Err(TRANSFER_ENCODING),
            Meaning::ContentLength => return self.content_length(value, status),
            Meaning::Date => self.has_date = true,
            Meaning::Connection if asks_to_close(value) => {
                self.close = true;
                return Ok(!std::mem::replace(&mut self.says_close, true));
            }
            Meaning::Connection => self.says_keep_alive |= asks_to_keep(value),
        }
        Ok(true)
    }

    /// Not a second time, and not with a status without body.
    fn content_length(&mut self, value: &[u8], status: u16) -> Result<bool, Misuse> {
        let length = decimal(value).ok_or(NO_NUMBER)?;
        if status == 101 {
            return Err(INFORMATIONAL_LENGTH);
        }
        match self.length {
            Some(previous) if previous == length => return Ok(false),
            Some(_) => return Err("Content-Length has already been set to a different value"),
            None => {}
        }
        // RFC 9110 8.6: not in a 204; 15.3.6: `finish` sends 205 with 0.
        if matches!(status, 204 | 205) {
            return if length == 0 { Ok(false) } else { Err(BODYLESS) };
        }
        self.length = Some(length);
        Ok(true)
    }

    /// The announced length of the body.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The body has another length than the announced one.
    pub fn forget_length(&mut self) {
        self.length = None;
    }

    /// Adds the lines that are missing to `out`, without the empty one; the framing of the body.
    ///
    /// `date` is the value of Date, unless the application sent one.
    pub fn finish(
        &mut self,
        status: u16,
        head_request: bool,
        date: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> BodyEnd {
        if let Some(date) = date.filter(|_| !self.has_date) {
            push_header(out, b"Date", date);
        }
        let framing = self.choose_end(status, out);
        if self.take_close(status) {
            out.extend_from_slice(CLOSE);
        } else if self.http10 && !self.close && !self.says_keep_alive {
            // RFC 9112 9.3: in HTTP/1.0 both sides have to say so.
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        match framing {
            BodyEnd::Bodyless => BodyEnd::Bodyless,
            _ if head_request => BodyEnd::Ignored,
            framing => framing,
        }
    }

    /// The same for a head of which the length of the body is not known yet: its Date, Content-Length and end are
    /// still missing. Returns whether it has a Date.
    ///
    /// # Errors
    /// The length was announced already.
    pub fn finish_open(&mut self, status: u16, out: &mut Vec<u8>) -> Result<bool, Misuse> {
        if self.length.is_some() {
            return Err(HELD_LENGTH);
        }
        if self.take_close(status) {
            out.extend_from_slice(CLOSE);
        } else if self.http10 && !self.close && !self.says_keep_alive {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        Ok(self.has_date)
    }

    /// Chooses the framing of the body and adds the line that tells it (RFC 9112 6.3).
    fn choose_end(&mut self, status: u16, out: &mut Vec<u8>) -> BodyEnd {
        match (status, self.length) {
            (101 | 204 | 304, _) => BodyEnd::Bodyless,
            (205, _) => {
                out.extend_from_slice(b"Content-Length: 0\r\n");
                BodyEnd::Bodyless
            }
            (_, Some(length)) => BodyEnd::Length { announced: length, due: length },
            (_, None) if self.http10 => {
                self.close = true;
                BodyEnd::Close
            }
            (_, None) => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                BodyEnd::Chunked
            }
        }
    }

    /// Whether the connection has to be closed after this response.
    pub fn closes(&self) -> bool {
        self.close
    }

    /// The connection will be closed after this response; whether that is new.
    pub fn set_close(&mut self) -> bool {
        !std::mem::replace(&mut self.close, true)
    }

    /// Whether [`CLOSE`] has to be added to the head; it counts as added.
    pub fn take_close(&mut self, status: u16) -> bool {
        let due = self.close && !self.says_close && status != 101;
        self.says_close |= due;
        due
    }
}

/// Takes a line of an informational response.
pub fn check_informational(name: &[u8], value: &[u8]) -> Result<(), Misuse> {
    match Meaning::of_line(name, value)? {
        Meaning::TransferEncoding => Err(TRANSFER_ENCODING),
        Meaning::ContentLength if decimal(value).is_none() => Err(NO_NUMBER),
        Meaning::ContentLength => Err(INFORMATIONAL_LENGTH),
        Meaning::Connection if asks_to_close(value) => {
            Err("Connection: close is not allowed for informational responses")
        }
        _ => Ok(()),
    }
}

/// Nobody knows how much will be sent.
pub const HELD_LENGTH: Misuse = "A response with a Content-Length cannot be held";
const NO_NUMBER: Misuse = "Content-Length is expected to be a number of bytes";
const INFORMATIONAL_LENGTH: Misuse = "Content-Length is not allowed for informational responses";
const TRANSFER_ENCODING: Misuse = "Transfer-Encoding is chosen by the server";

/// The fields that the server obeys.
enum Meaning {
    None,
    Date,
    Connection,
    ContentLength,
    TransferEncoding,
}

impl Meaning {
    /// That of a line, if it is valid.
    #[inline]
    fn of_line(name: &[u8], value: &[u8]) -> Result<Meaning, Misuse> {
        let meaning = Meaning::of(name);
        // A number is valid, and whatever else is no Content-Length.
        if !matches!(meaning, Meaning::ContentLength) {
            check_header(name, value)?;
        }
        Ok(meaning)
    }

    #[inline]
    fn of(name: &[u8]) -> Meaning {
        match name.len() {
            4 if is_name(name, b"Date") => Meaning::Date,
            10 if is_name(name, b"Connection") => Meaning::Connection,
            14 if is_name(name, b"Content-Length") => Meaning::ContentLength,
            17 if is_name(name, b"Transfer-Encoding") => Meaning::TransferEncoding,
            _ => Meaning::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(mut fields: Fields, status: u16, head_request: bool) -> (String, BodyEnd) {
        let mut out = Vec::new();
        let framing = fields.finish(status, head_request, None, &mut out);
        (String::from_utf8(out).unwrap(), framing)
    }

    #[test]
    fn status_length_and_version_decide_the_framing() {
        let length = BodyEnd::Length { announced: 3, due: 3 };
        for (http10, announced, status, lines, framing) in [
            (false, None, 200, "Transfer-Encoding: chunked\r\n", BodyEnd::Chunked),
            (false, Some("3"), 200, "", length),
            (true, Some("3"), 200, "Connection: keep-alive\r\n", length),
            (true, None, 200, "Connection: close\r\n", BodyEnd::Close),
            (false, Some("3"), 304, "", BodyEnd::Bodyless),
            (false, Some("0"), 204, "", BodyEnd::Bodyless),
            (false, None, 205, "Content-Length: 0\r\n", BodyEnd::Bodyless),
        ] {
            let mut fields = Fields::new(http10, false);
            if let Some(value) = announced {
                let sent = fields.add(b"Content-Length", value.as_bytes(), status).unwrap();
                assert_eq!(sent, !matches!(status, 204 | 205));
            }
            assert_eq!(finish(fields, status, false), (lines.to_owned(), framing));
        }
        assert_eq!(finish(Fields::new(false, false), 200, true).1, BodyEnd::Ignored);
    }

    #[test]
    fn the_end_of_the_connection_is_announced_once() {
        let mut fields = Fields::new(false, false);
        assert!(fields.add(b"Connection", b"Upgrade, close", 200).unwrap());
        assert!(!fields.add(b"connection", b"close", 200).unwrap());
        assert!(fields.closes() && !fields.set_close() && !fields.take_close(200));
        let mut fields = Fields::new(false, true);
        assert!(!fields.take_close(101));
        assert!(fields.take_close(200) && !fields.take_close(200));
    }

    #[test]
    fn framing_is_not_for_informational_responses() {
        for (name, value) in
            [("Content-Length", "1"), ("Transfer-Encoding", "chunked"), ("Connection", "close")]
        {
            assert!(check_informational(name.as_bytes(), value.as_bytes()).is_err());
        }
        assert_eq!(check_informational(b"Connection", b"keep-alive"), Ok(()));
        assert_eq!(check_informational(b"Link", b"</a>"), Ok(()));
    }
}
