//! The head of a response: status, header lines, and what they decide.

use super::{
    BODYLESS, FINISHED, Framing, HEADERS_SENT, NO_STATUS, NO_UPGRADE, Response, STATUS_SENT, Stage,
};
use crate::http::wire::framing::decimal;
use crate::http::wire::header_lines::Misuse;
use crate::http::wire::header_lines::{
    StaticHeaders, asks_to_close, asks_to_keep, check_header, is_transfer_encoding, push_header,
    status_code,
};

const CLOSE: &[u8] = b"Connection: close\r\n";

impl Response {
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

    /// Closes the connection after the response, announced unless the head has left.
    pub fn close_anyway(&mut self) {
        if std::mem::replace(&mut self.close, true) || self.has_left {
            return;
        }
        let head_is_finished = matches!(self.stage, Stage::Body | Stage::Finished);
        if head_is_finished && !self.says_close && self.status != 101 {
            self.out.splice(self.head_end..self.head_end, CLOSE.iter().copied());
            self.says_close = true;
        }
    }

    /// Begins the response: three digits and, behind a space, a reason phrase.
    pub fn status(&mut self, status: &[u8], fixed: &StaticHeaders) -> Result<(), Misuse> {
        let code = match self.stage {
            Stage::Start | Stage::Interim => status_code(status)?,
            Stage::Finished => return Err(FINISHED),
            Stage::Head | Stage::Body => return Err(STATUS_SENT),
        };
        if code == 101 && self.http10 {
            // RFC 9110 7.8: Upgrade is to be ignored in a request of HTTP/1.0.
            return Err(NO_UPGRADE);
        }
        if self.stage == Stage::Interim {
            self.end_interim();
        }
        self.status = code;
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
        self.says_keep_alive |= asks_to_keep(value);
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
            self.out.extend_from_slice(CLOSE);
        } else if self.http10 && !self.close && !self.says_keep_alive {
            // RFC 9112 9.3: in HTTP/1.0 both sides have to say so.
            self.out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        self.head_end = self.out.len();
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

    pub(super) fn end_interim(&mut self) {
        if self.http10 {
            // RFC 9110 15.2: not to be sent to a client of HTTP/1.0.
            self.out.truncate(self.head_start);
        } else {
            self.out.extend_from_slice(b"\r\n");
        }
        self.stage = Stage::Start;
    }
}
