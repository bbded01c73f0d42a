//! The response as a state machine: what may be sent when, and its bytes on the wire.
//!
//! ```text
//! Start ──status──▶ Head ──finish_headers──▶ Body ──finish──▶ Finished
//!   ▲ ▲──1xx──▶ Interim ┘ (a further status or finish_headers ends an informational response)
//! ```
//!
//! Nothing is sent from here: bytes gather in [`Response::out`] until the connection takes them.
//! Sources: reference, "request:send_status" to "request:finish"; RFC 9112 6 and 9110 15.

mod body;
mod fields;

use std::rc::Rc;

use super::compression::{Compressing, Encoder};
use crate::http::wire::head::Version;
use crate::http::wire::header_lines::{
    Misuse, StaticHeaders, check_header, push_header, status_code,
};
use crate::server::ipc::held_state::{HeldHead, MessageFraming};
use crate::sys::os::output_slot::DeferredOutput;

use body::{Body, BodyEnd};
use fields::{CLOSE, Fields, HELD_LENGTH, check_informational};

pub use body::{LENGTH_EXCEEDED, LENGTH_NOT_USED, PieceTaken};

/// The answer to a client that asks whether it may send its body (RFC 9110 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How much of a response waits for its end, in bytes: a body of 64 KiB, its head and its framing.
const MOST_WAITING: usize = 80 * 1024;

const NO_STATUS: Misuse = "HTTP status has not been sent yet";
const STATUS_SENT: Misuse =
    "HTTP status has already been sent: call send_status once for each response";
const HEADERS_SENT: Misuse = "All HTTP headers have already been sent";
const FINISHED: Misuse = "Response has already been finished";
const HELD: Misuse = "The response is held: nothing more can be sent";
const HELD_WITHOUT_BODY: Misuse = "A response whose status has no body cannot be held";
const NO_UPGRADE: Misuse = "Status 101 cannot be sent to a client of HTTP/1.0";

const OTHERWISE_INFORMATIONAL: Misuse = "A held response ends with a final status";

/// Whether responses with this status have no body (RFC 9110 6.4.1).
fn is_bodyless(status: u16) -> bool {
    matches!(status, 101 | 204 | 304)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ResponseStage {
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
    /// Another process goes on with it.
    Held,
}

/// A response that is being made.
#[derive(Debug, Default)]
pub struct Response {
    stage: ResponseStage,
    fields: Fields,
    body: Body,
    /// What may compress the body, and whether the client accepts that, until the head is finished.
    compressing: Option<(Rc<Compressing>, bool)>,
    /// What does.
    encoder: Option<Box<Encoder>>,
    /// Bytes that are to be sent.
    out: Vec<u8>,
    /// They wait elsewhere, see [`Response::defer`].
    is_deferred: bool,
    /// They have waited before, see [`DeferredOutput::is_old`].
    is_old: bool,
    /// The status code last sent.
    status: u16,
    /// Where in `out` the head of the response, or of an informational one, begins.
    head_start: usize,
    /// Where in `out` a further line of the finished head would stand, until that has left.
    head_end: usize,
    /// Whether a part of the final response was sent.
    has_left: bool,
    http10: bool,
    head_request: bool,
}

impl Response {
    /// Prepares for the response to the next request; memory is kept.
    pub fn begin(&mut self, version: Version, head_request: bool, close: bool) {
        self.out.clear();
        self.body = Body::default();
        self.http10 = version == Version::Http10;
        self.fields = Fields::new(self.http10, close);
        (self.compressing, self.encoder) = (None, None);
        (self.stage, self.status) = (ResponseStage::Start, 0);
        (self.head_start, self.head_end) = (0, 0);
        (self.has_left, self.is_deferred, self.is_old) = (false, false, false);
        self.head_request = head_request;
    }

    /// The body is compressed if that suits it, and the client accepts it.
    pub fn compress(&mut self, compressing: Rc<Compressing>, accepts: bool) {
        self.compressing = Some((compressing, accepts));
    }

    /// Whether the body is being compressed.
    pub fn is_compressed(&self) -> bool {
        self.encoder.is_some()
    }

    /// The body stays as it is.
    pub fn leave_uncompressed(&mut self) {
        self.compressing = None;
    }

    /// Whether a status was sent: informational ones do not count.
    pub fn has_status(&self) -> bool {
        !matches!(self.stage, ResponseStage::Start | ResponseStage::Interim)
    }

    /// The status code sent last, 0 if there was none.
    pub fn status_code(&self) -> u16 {
        self.status
    }

    /// Whether the response is complete, or another process goes on with it.
    pub fn is_finished(&self) -> bool {
        matches!(self.stage, ResponseStage::Finished | ResponseStage::Held)
    }

    /// What is wrong about sending more.
    pub fn is_over(&self) -> Misuse {
        if self.stage == ResponseStage::Held { HELD } else { FINISHED }
    }

    /// Whether the connection has to be closed after this response.
    pub fn closes(&self) -> bool {
        self.fields.closes()
    }

    /// Whether the connection leaves HTTP with this response (RFC 9110 15.2.2).
    pub fn switches_protocols(&self) -> bool {
        self.status == 101
    }

    /// Whether the header section has ended and the body has not.
    pub fn is_in_body(&self) -> bool {
        self.stage == ResponseStage::Body
    }

    /// Whether data may follow the head.
    pub fn has_body(&self) -> bool {
        self.body.may_follow()
    }

    /// The announced length of the body and how much of it the handler has sent so far, while that counts.
    pub fn length(&self) -> Option<(u64, u64)> {
        self.encoder.as_ref().map_or_else(|| self.body.length(), |encoder| encoder.length())
    }

    /// Whether a part of the final response was sent: it cannot be replaced any more.
    pub fn has_left(&self) -> bool {
        self.has_left || self.is_deferred
    }

    /// Begins the response: three digits and, behind a space, a reason phrase.
    pub fn status(&mut self, status: &[u8], fixed: &StaticHeaders) -> Result<(), Misuse> {
        let code = match self.stage {
            ResponseStage::Start | ResponseStage::Interim => status_code(status)?,
            ResponseStage::Finished | ResponseStage::Held => return Err(self.is_over()),
            ResponseStage::Head | ResponseStage::Body => return Err(STATUS_SENT),
        };
        if code == 101 && self.http10 {
            // RFC 9110 7.8: Upgrade is to be ignored in a request of HTTP/1.0.
            return Err(NO_UPGRADE);
        }
        if self.stage == ResponseStage::Interim {
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
            self.stage = ResponseStage::Interim;
            return Ok(());
        }
        self.stage = ResponseStage::Head;
        self.fields.begin(fixed, &mut self.out);
        Ok(())
    }

    /// Sends a header line that means nothing to this server; before the status, it waits for that.
    pub fn early_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Misuse> {
        if !matches!(self.stage, ResponseStage::Start | ResponseStage::Interim) {
            return self.header(name, value);
        }
        self.fields.keep(name, value)
    }

    /// Sends a header line. Content-Length and Connection are also obeyed.
    pub fn header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Misuse> {
        match self.stage {
            ResponseStage::Head | ResponseStage::Interim => {}
            ResponseStage::Start => return Err(NO_STATUS),
            ResponseStage::Body => return Err(HEADERS_SENT),
            ResponseStage::Finished | ResponseStage::Held => return Err(self.is_over()),
        }
        check_header(name, value)?;
        let send = if self.stage == ResponseStage::Interim {
            check_informational(name, value)?;
            true
        } else {
            self.fields.add(name, value, self.status)?
        };
        if send {
            push_header(&mut self.out, name, value);
        }
        Ok(())
    }

    /// Sends header lines that are valid, and that mean nothing to the server; and Content-Length.
    pub fn lines(&mut self, lines: &[u8], length: Option<u64>) -> Result<(), Misuse> {
        if self.stage != ResponseStage::Head {
            return Err(NO_STATUS);
        }
        self.out.extend_from_slice(lines);
        match length {
            Some(length) => self.header(b"Content-Length", length.to_string().as_bytes()),
            None => Ok(()),
        }
    }

    /// Ends the header section; the second and further calls do nothing.
    ///
    /// `date` is the value of Date, unless the application sent one.
    pub fn finish_headers(&mut self, date: Option<&[u8]>) -> Result<(), Misuse> {
        match self.stage {
            ResponseStage::Start => return Err(NO_STATUS),
            ResponseStage::Interim => {
                self.end_interim();
                return Ok(());
            }
            ResponseStage::Body => return Ok(()),
            ResponseStage::Finished | ResponseStage::Held => return Err(self.is_over()),
            ResponseStage::Head => {}
        }
        if let Some((compressing, accepts)) = self.compressing.take() {
            let length = self.fields.length();
            let (start, status) = (self.head_start, self.status);
            let encoder = compressing.begin(&mut self.out, start, status, length, accepts);
            if encoder.is_some() {
                self.fields.forget_length();
            }
            self.encoder = encoder.filter(|_| !self.head_request).map(Box::new);
        }
        let framing = self.fields.finish(self.status, self.head_request, date, &mut self.out);
        self.body.begin(framing);
        self.head_end = self.out.len();
        self.out.extend_from_slice(b"\r\n");
        self.stage = ResponseStage::Body;
        Ok(())
    }

    fn end_interim(&mut self) {
        if self.http10 {
            // RFC 9110 15.2: not to be sent to a client of HTTP/1.0.
            self.out.truncate(self.head_start);
        } else {
            self.out.extend_from_slice(b"\r\n");
        }
        self.stage = ResponseStage::Start;
    }

    /// Takes a piece of the body, the header section being finished; pieces are joined until there are
    /// `minimum` bytes.
    ///
    /// If the piece is large, the caller must send [`Response::parts`] with the same piece, then call
    /// [`Response::sent`].
    pub fn data(&mut self, piece: &[u8], minimum: usize) -> Result<PieceTaken, Misuse> {
        match self.stage {
            ResponseStage::Body if piece.is_empty() => Ok(PieceTaken::Joined),
            ResponseStage::Body => match &mut self.encoder {
                None => self.body.take(piece, minimum, MOST_WAITING, &mut self.out),
                Some(encoder) => {
                    let ready = encoder.take(piece)?;
                    self.encoded(&ready, minimum)
                }
            },
            ResponseStage::Start | ResponseStage::Interim | ResponseStage::Head => Err(NO_STATUS),
            ResponseStage::Finished | ResponseStage::Held => Err(self.is_over()),
        }
    }

    /// Takes a piece of the compressed body.
    fn encoded(&mut self, piece: &[u8], minimum: usize) -> Result<PieceTaken, Misuse> {
        if piece.is_empty() {
            return Ok(PieceTaken::Joined);
        }
        let taken = self.body.take(piece, minimum, usize::MAX, &mut self.out)?;
        Ok(if self.out.len() > MOST_WAITING { PieceTaken::Full } else { taken })
    }

    /// The whole body, of the announced size, is sent behind [`Response::out`] by the caller, unless this is false: then
    /// the response has no body. The header section has to be finished.
    pub fn body_elsewhere(&mut self, size: u64) -> Result<bool, Misuse> {
        if self.stage != ResponseStage::Body {
            return Err(NO_STATUS);
        }
        self.body.take_elsewhere(size)
    }

    /// What is to be sent for a large piece.
    pub fn parts<'a>(&'a self, piece: &'a [u8]) -> [&'a [u8]; 3] {
        [&self.out, piece, self.body.chunk_end()]
    }

    /// Forgets what the caller has sent: all of [`Response::parts`].
    pub fn sent(&mut self) {
        self.out.clear();
        (self.has_left, self.is_old) = (true, false);
    }

    /// The output, for the flusher to send if the handler does nothing more for a while. The caller gives it
    /// back, by [`Response::restore`], before anything further is done with the response.
    pub fn defer(&mut self) -> DeferredOutput {
        self.is_deferred = true;
        let (bytes, completion) = (std::mem::take(&mut self.out), self.body.completion());
        DeferredOutput { bytes, completion, is_old: self.is_old }
    }

    /// Whether [`Response::restore`] is due.
    pub fn is_deferred(&self) -> bool {
        self.is_deferred
    }

    /// Takes back the deferred output; `None` if a part has left, and the rest will before anything else.
    pub fn restore(&mut self, waiting: Option<DeferredOutput>) {
        self.is_deferred = false;
        self.is_old = waiting.as_ref().is_some_and(|waiting| waiting.is_old);
        match waiting {
            Some(waiting) => self.out = waiting.bytes,
            None => {
                self.body.forget_open();
                self.has_left = true;
            }
        }
    }

    /// Pieces that wait to be joined do so no more: [`Response::out`] has all data so far.
    pub fn flush(&mut self) {
        if let Some(encoder) = &mut self.encoder {
            let ready = encoder.flush();
            // The encoder knows whether there may be a body.
            let _ = self.encoded(&ready, 0);
        }
        self.body.flush(&mut self.out);
    }

    /// Whether `minimum` bytes of the body were ignored since the last time: where a response with a body
    /// would have sent some.
    pub fn takes_ignored(&mut self, minimum: usize) -> bool {
        self.body.takes_ignored(minimum)
    }

    /// Ends the response; a second call does nothing.
    pub fn finish(&mut self, date: Option<&[u8]>) -> Result<(), Misuse> {
        match self.stage {
            ResponseStage::Finished => return Ok(()),
            ResponseStage::Held => return Err(HELD),
            ResponseStage::Interim => {
                self.end_interim();
                return Err(NO_STATUS);
            }
            _ => self.finish_headers(date)?,
        }
        if let Some(encoder) = &mut self.encoder {
            let rest = encoder.finish()?;
            self.encoded(&rest, 0)?;
        }
        self.body.finish(&mut self.out)?;
        self.stage = ResponseStage::Finished;
        Ok(())
    }

    /// Closes the connection after the response, and announces it (RFC 9112 9.6).
    pub fn close_after_finish(&mut self) -> Result<(), Misuse> {
        match self.stage {
            ResponseStage::Body => Err(HEADERS_SENT),
            ResponseStage::Finished | ResponseStage::Held => Err(self.is_over()),
            _ => {
                self.fields.set_close();
                Ok(())
            }
        }
    }

    /// Closes the connection after the response, announced unless the head has left.
    pub fn close_anyway(&mut self) {
        let head_is_finished = matches!(self.stage, ResponseStage::Body | ResponseStage::Finished);
        if self.fields.set_close()
            && !self.has_left()
            && head_is_finished
            && self.fields.take_close(self.status)
        {
            self.out.splice(self.head_end..self.head_end, CLOSE.iter().copied());
            self.body.shift_open(CLOSE.len() as isize);
        }
    }

    /// Whether the client wants the head alone.
    pub fn is_head_request(&self) -> bool {
        self.head_request
    }

    /// Whether there is an unfinished head.
    pub fn has_no_head(&self) -> bool {
        self.stage == ResponseStage::Head
    }

    /// Another process completes the response, of which there is only an unfinished head: with this head, or one that
    /// has another status.
    ///
    /// # Errors
    /// The status has no body, or its length was announced; the other one is none.
    pub fn hold_head(
        &mut self,
        otherwise: &[u8],
        fixed: &StaticHeaders,
    ) -> Result<[HeldHead; 2], Misuse> {
        if is_bodyless(self.status) || self.status == 205 {
            return Err(HELD_WITHOUT_BODY);
        }
        let code = status_code(otherwise)?;
        if code < 200 {
            return Err(OTHERWISE_INFORMATIONAL);
        }
        let mut other = Response { http10: self.http10, ..Response::default() };
        other.fields = Fields::new(self.http10, self.closes());
        other.status(otherwise, fixed)?;
        let has_date = other.fields.finish_open(code, &mut other.out)?;
        let is_bodyless = is_bodyless(code);
        let other = HeldHead { lines: other.out, has_date, is_bodyless };
        let has_date = self.fields.finish_open(self.status, &mut self.out)?;
        let lines = self.out.split_off(self.head_start.min(self.out.len()));
        self.stage = ResponseStage::Held;
        Ok([HeldHead { lines, has_date, is_bodyless: false }, other])
    }

    /// Another process goes on with the response, whose header section has ended. None: it is complete, as the client
    /// wants no body.
    ///
    /// # Errors
    /// The status has no body, or its length was announced.
    pub fn hold_body(&mut self) -> Result<Option<MessageFraming>, Misuse> {
        let framing = match self.body.framing() {
            BodyEnd::Chunked => MessageFraming::Chunked,
            BodyEnd::Close => MessageFraming::Plain,
            BodyEnd::Ignored => return Ok(None),
            BodyEnd::Length { .. } => return Err(HELD_LENGTH),
            BodyEnd::Bodyless => return Err(HELD_WITHOUT_BODY),
        };
        self.flush();
        self.stage = ResponseStage::Held;
        Ok(Some(framing))
    }

    /// An interim response that the server itself sends (RFC 9110 10.1.1): before the head, unless that
    /// has left.
    pub fn send_continue(&mut self) {
        match self.stage {
            ResponseStage::Start => self.out.extend_from_slice(CONTINUE),
            _ if self.has_left() => {}
            _ => {
                self.out.splice(self.head_start..self.head_start, CONTINUE.iter().copied());
                self.head_start += CONTINUE.len();
                self.head_end += CONTINUE.len();
                self.body.shift_open(CONTINUE.len() as isize);
            }
        }
    }

    /// What can be sent now: an unfinished head stays, so that it may still be replaced, and so do pieces
    /// that wait to be joined.
    pub fn out(&self) -> &[u8] {
        self.out.get(..self.ready()).unwrap_or_default()
    }

    fn ready(&self) -> usize {
        if self.has_open_head() {
            return self.head_start;
        }
        self.body.open().unwrap_or(self.out.len())
    }

    /// Forgets what [`Response::out`] returned, it being sent.
    pub fn out_sent(&mut self) {
        self.is_old = false;
        let ready = self.ready();
        if self.has_open_head() {
            self.head_start = 0;
        } else {
            self.has_left |= self.has_status();
        }
        self.body.shift_open(-(ready as isize));
        self.out.drain(..ready);
    }

    fn has_open_head(&self) -> bool {
        matches!(self.stage, ResponseStage::Head | ResponseStage::Interim)
    }

    /// Ends the response with the given bytes, of that status, e.g. a refusal, and closes the connection after it.
    ///
    /// To be used only while no part of the response [has left](Response::has_left).
    pub fn replace(&mut self, status: u16, write: impl FnOnce(&mut Vec<u8>, bool)) {
        if self.stage == ResponseStage::Interim {
            self.end_interim();
        } else if self.has_status() {
            self.out.truncate(self.head_start);
        }
        self.body.forget_open();
        self.encoder = None;
        write(&mut self.out, self.head_request);
        self.status = status;
        self.stage = ResponseStage::Finished;
        self.fields.set_close();
    }

    /// Gives back the memory that a large head took.
    pub fn release(&mut self, keep: usize) {
        self.out.shrink_to(keep);
    }
}

#[cfg(test)]
mod tests;
