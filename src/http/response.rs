//! The response as a state machine: what may be sent when, and its bytes on the wire.
//!
//! ```text
//! Start ──status──▶ Head ──finish_headers──▶ Body ──finish──▶ Finished
//!   ▲ ▲──1xx──▶ Interim ┘ (a further status or finish_headers ends an informational response)
//! ```
//!
//! Nothing is sent from here: bytes gather in [`Response::out`] until the connection takes them.
//! Sources: reference, "request:send_status" to "request:finish"; RFC 9112 6 and 9110 15.

use super::framing::decimal;
use super::head::Version;
use super::header_lines::{
    StaticHeaders, asks_to_close, check_header, is_transfer_encoding, push_chunk_size, push_header,
    status_code,
};

/// What is wrong with a call: the text of the error raised in the handler.
pub type Misuse = &'static str;

/// The answer to a client that asks whether it may send its body (RFC 9110 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const NO_STATUS: Misuse = "HTTP status has not been sent yet";
const STATUS_SENT: Misuse = "HTTP status has already been sent";
const HEADERS_SENT: Misuse = "All HTTP headers have already been sent";
const FINISHED: Misuse = "Response has already been finished";
const LENGTH_EXCEEDED: Misuse = "Content length exceeded";
const LENGTH_NOT_USED: Misuse = "Content length not used";
const BODYLESS: Misuse = "Cannot send response data for body-less status message";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// No final status yet.
    #[default]
    Start,
    /// Header lines of an informational response may follow.
    Interim,
    /// Header lines may follow.
    Head,
    /// The header section is complete.
    Body,
    /// The response is complete.
    Finished,
}

/// How the end of the response body is told to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framing {
    /// The status has no body (RFC 9110 6.4.1): data is an error.
    #[default]
    Bodyless,
    /// The request was HEAD: data is ignored.
    Ignored,
    /// So many bytes are still due.
    Length(u64),
    /// RFC 9112 7.1
    Chunked,
    /// HTTP/1.0: the body ends with the connection.
    Close,
}

/// A response that is being made.
#[derive(Debug, Default)]
pub struct Response {
    stage: Stage,
    framing: Framing,
    /// Bytes ready to be sent.
    out: Vec<u8>,
    /// Data that waits to be joined with further data: not framed yet.
    body: Vec<u8>,
    /// The status code last sent.
    status: u16,
    /// The announced length of the body.
    length: Option<u64>,
    /// Where in `out` the head of the response, or of an informational one, begins.
    head_start: usize,
    /// Whether a part of the final response was sent.
    has_left: bool,
    http10: bool,
    head_request: bool,
    close: bool,
    says_close: bool,
    has_date: bool,
}

impl Response {
    /// Prepares for the response to the next request; memory is kept.
    pub fn begin(&mut self, version: Version, head_request: bool, close: bool) {
        let (mut out, mut body) = (std::mem::take(&mut self.out), std::mem::take(&mut self.body));
        out.clear();
        body.clear();
        let http10 = version == Version::Http10;
        *self = Response { out, body, http10, head_request, close, ..Response::default() };
    }

    /// Whether a status was sent: informational ones do not count.
    pub fn has_status(&self) -> bool {
        matches!(self.stage, Stage::Head | Stage::Body | Stage::Finished)
    }

    /// Whether the response is complete.
    pub fn is_finished(&self) -> bool {
        self.stage == Stage::Finished
    }

    /// Whether the connection has to be closed after this response.
    pub fn closes(&self) -> bool {
        self.close
    }

    /// Whether the connection leaves HTTP with this response (RFC 9110 15.2.2).
    pub fn switches_protocols(&self) -> bool {
        self.status == 101
    }

    /// Closes the connection after the response, and announces it (RFC 9112 9.6).
    pub fn close_after_finish(&mut self) -> Result<(), Misuse> {
        match self.stage {
            Stage::Body => Err(HEADERS_SENT),
            Stage::Finished => Err(FINISHED),
            _ => {
                self.close = true;
                Ok(())
            }
        }
    }

    /// Closes the connection after the response, announced if that is still possible.
    pub fn close_anyway(&mut self) {
        self.close = true;
    }

    /// Begins the response: three digits and, behind a space, a reason phrase.
    pub fn status(&mut self, status: &[u8], fixed: &StaticHeaders) -> Result<(), Misuse> {
        match self.stage {
            Stage::Start => {}
            Stage::Interim => self.end_interim(),
            Stage::Finished => return Err(FINISHED),
            Stage::Head | Stage::Body => return Err(STATUS_SENT),
        }
        self.status = status_code(status)?;
        self.head_start = self.out.len();
        self.out.extend_from_slice(b"HTTP/1.1 ");
        self.out.extend_from_slice(status);
        if status.len() == 3 {
            // RFC 9112 4: the space is there also without a reason phrase.
            self.out.push(b' ');
        }
        self.out.extend_from_slice(b"\r\n");
        if (100..200).contains(&self.status) && self.status != 101 {
            self.stage = Stage::Interim;
            return Ok(());
        }
        self.stage = Stage::Head;
        self.out.extend_from_slice(fixed.lines());
        self.has_date = fixed.has_date();
        self.says_close = fixed.closes();
        self.close |= fixed.closes();
        Ok(())
    }

    /// Sends a header line. Content-Length and Connection are also obeyed.
    pub fn header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Misuse> {
        match self.stage {
            Stage::Head | Stage::Interim => {}
            Stage::Start => return Err(NO_STATUS),
            Stage::Body => return Err(HEADERS_SENT),
            Stage::Finished => return Err(FINISHED),
        }
        check_header(name, value)?;
        let send = match name.len() {
            4 if name.eq_ignore_ascii_case(b"date") => {
                self.has_date = true;
                true
            }
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value)?,
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value)?,
            17 if is_transfer_encoding(name) => {
                return Err("Transfer-Encoding is chosen by the server");
            }
            _ => true,
        };
        if send {
            push_header(&mut self.out, name, value);
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) -> Result<bool, Misuse> {
        if asks_to_close(value) {
            if self.stage == Stage::Interim {
                return Err("Connection: close is not allowed for informational responses");
            }
            self.close = true;
            return Ok(!std::mem::replace(&mut self.says_close, true));
        }
        Ok(true)
    }

    /// Whether the line is to be sent: not a second time, and not with a status without body.
    fn content_length(&mut self, value: &[u8]) -> Result<bool, Misuse> {
        let length = decimal(value).ok_or("Content-Length is expected to be a number of bytes")?;
        if self.stage == Stage::Interim || self.status == 101 {
            return Err("Content-Length is not allowed for informational responses");
        }
        match self.length {
            Some(previous) if previous == length => return Ok(false),
            Some(_) => return Err("Content-Length has already been set to a different value"),
            None => {}
        }
        // RFC 9110 8.6: not in a 204; 15.3.6: 205 is sent with 0 by `finish_headers`.
        if matches!(self.status, 204 | 205) {
            return if length == 0 { Ok(false) } else { Err(BODYLESS) };
        }
        self.length = Some(length);
        Ok(true)
    }

    /// Whether the header section has ended and the body has not.
    pub fn is_in_body(&self) -> bool {
        self.stage == Stage::Body
    }

    /// Ends the header section; the second and further calls do nothing.
    ///
    /// `date` is the value of Date, unless the application sent one.
    pub fn finish_headers(&mut self, date: Option<&[u8]>) -> Result<(), Misuse> {
        match self.stage {
            Stage::Start => return Err(NO_STATUS),
            Stage::Interim => {
                self.end_interim();
                return Ok(());
            }
            Stage::Body => return Ok(()),
            Stage::Finished => return Err(FINISHED),
            Stage::Head => {}
        }
        if let Some(date) = date.filter(|_| !self.has_date) {
            push_header(&mut self.out, b"Date", date);
        }
        self.framing = self.decide_framing();
        if self.close && !self.says_close && self.status != 101 {
            self.out.extend_from_slice(b"Connection: close\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
        self.stage = Stage::Body;
        Ok(())
    }

    /// Chooses the framing of the body and sends the header that tells it (RFC 9112 6.3).
    fn decide_framing(&mut self) -> Framing {
        let framing = match (self.status, self.length) {
            (101 | 204 | 304, _) => return Framing::Bodyless,
            (205, _) => {
                self.out.extend_from_slice(b"Content-Length: 0\r\n");
                return Framing::Bodyless;
            }
            (_, Some(length)) => Framing::Length(length),
            (_, None) if self.http10 => {
                self.close = true;
                Framing::Close
            }
            (_, None) => {
                self.out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                Framing::Chunked
            }
        };
        if self.head_request { Framing::Ignored } else { framing }
    }

    fn end_interim(&mut self) {
        if self.http10 {
            // RFC 9110 15.2: not to be sent to a client of HTTP/1.0.
            self.out.truncate(self.head_start);
        } else {
            self.out.extend_from_slice(b"\r\n");
        }
        self.stage = Stage::Start;
    }

    /// An interim response that the server itself sends (RFC 9110 10.1.1).
    pub fn send_continue(&mut self) {
        self.out.extend_from_slice(CONTINUE);
    }

    /// Takes a piece of the body, the header section being finished.
    ///
    /// Returns false if nothing is to be done: the piece was ignored, or is kept to be joined with
    /// further ones until there are `minimum` bytes. If true is returned, the caller must send
    /// [`Response::parts`] with the same piece, then call [`Response::sent`].
    pub fn data(&mut self, piece: &[u8], minimum: usize) -> Result<bool, Misuse> {
        match self.stage {
            Stage::Body => {}
            Stage::Start | Stage::Interim | Stage::Head => return Err(NO_STATUS),
            Stage::Finished => return Err(FINISHED),
        }
        if piece.is_empty() {
            return Ok(false);
        }
        match self.framing {
            Framing::Ignored => return Ok(false),
            Framing::Bodyless => return Err(BODYLESS),
            Framing::Length(due) => {
                let left = due.checked_sub(piece.len() as u64).ok_or(LENGTH_EXCEEDED)?;
                self.framing = Framing::Length(left);
            }
            Framing::Chunked | Framing::Close => {}
        }
        let joined = self.body.len() + piece.len();
        if joined < minimum {
            self.body.extend_from_slice(piece);
            return Ok(false);
        }
        if self.framing == Framing::Chunked {
            push_chunk_size(&mut self.out, joined);
        }
        Ok(true)
    }

    /// What is to be sent for a piece that [`Response::data`] accepted.
    pub fn parts<'a>(&'a self, piece: &'a [u8]) -> [&'a [u8]; 4] {
        let end: &[u8] = if self.framing == Framing::Chunked { b"\r\n" } else { b"" };
        [&self.out, &self.body, piece, end]
    }

    /// Forgets what the caller has sent: all of [`Response::parts`].
    pub fn sent(&mut self) {
        self.out.clear();
        self.body.clear();
        self.has_left = true;
    }

    /// What can be sent now: an unfinished head stays, so that it may still be replaced.
    pub fn out(&self) -> &[u8] {
        let end = if self.has_open_head() { self.head_start } else { self.out.len() };
        self.out.get(..end).unwrap_or_default()
    }

    /// Forgets what [`Response::out`] returned, it being sent.
    pub fn out_sent(&mut self) {
        if self.has_open_head() {
            self.out.drain(..self.head_start);
            self.head_start = 0;
        } else {
            self.has_left |= self.has_status();
            self.out.clear();
        }
    }

    fn has_open_head(&self) -> bool {
        matches!(self.stage, Stage::Head | Stage::Interim)
    }

    /// Whether a part of the final response was sent: it cannot be replaced any more.
    pub fn has_left(&self) -> bool {
        self.has_left
    }

    /// Frames what waits to be joined, so that [`Response::out`] holds all data so far.
    pub fn flush(&mut self) {
        if self.body.is_empty() {
            return;
        }
        let chunked = self.framing == Framing::Chunked;
        if chunked {
            push_chunk_size(&mut self.out, self.body.len());
        }
        self.out.extend_from_slice(&self.body);
        if chunked {
            self.out.extend_from_slice(b"\r\n");
        }
        self.body.clear();
    }

    /// Ends the response; a second call does nothing.
    pub fn finish(&mut self, date: Option<&[u8]>) -> Result<(), Misuse> {
        match self.stage {
            Stage::Finished => return Ok(()),
            Stage::Interim => {
                self.end_interim();
                return Err(NO_STATUS);
            }
            _ => self.finish_headers(date)?,
        }
        if matches!(self.framing, Framing::Length(due) if due > 0) {
            return Err(LENGTH_NOT_USED);
        }
        self.flush();
        if self.framing == Framing::Chunked {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        self.stage = Stage::Finished;
        Ok(())
    }

    /// Ends the response with the given bytes, e.g. a refusal, and closes the connection after it.
    ///
    /// To be used only while no part of the response [has left](Response::has_left).
    pub fn replace(&mut self, write: impl FnOnce(&mut Vec<u8>, bool)) {
        if self.stage == Stage::Interim {
            self.end_interim();
        } else if self.has_status() {
            self.out.truncate(self.head_start);
        }
        self.body.clear();
        write(&mut self.out, self.head_request);
        self.stage = Stage::Finished;
        self.close = true;
    }

    /// Gives back the memory that a large head took.
    pub fn release(&mut self, keep: usize) {
        self.out.shrink_to(keep);
        self.body.shrink_to(keep);
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
