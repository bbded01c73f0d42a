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
mod buffer;
mod coding;
pub mod compression;
mod fields;
pub mod held;
mod stage;

use crate::http::wire::head::Version;
use crate::http::wire::header_lines::{
    Misuse, StaticHeaders, push_header, push_status, status_code,
};
use crate::server::ipc::held_state::{HeldHead, MessageFraming};
use crate::sys::os::output_slot::DeferredOutput;

use body::Body;
use buffer::{MOST_WAITING, ResponseBuffer};
use coding::ResponseCoding;
use fields::{CLOSE, Fields, check_informational};
use held::HELD_WITHOUT_BODY;
use stage::NO_STATUS;

pub use body::{LENGTH_EXCEEDED, LENGTH_NOT_USED, PieceTaken};
pub use stage::ResponseStage;

/// The answer to a client that asks whether it may send its body (RFC 9110 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const NO_UPGRADE: Misuse = "Status 101 cannot be sent to a client of HTTP/1.0";

/// A response that is being made.
#[derive(Debug, Default)]
pub struct Response {
    stage: ResponseStage,
    fields: Fields,
    body: Body,
    /// Whether the body is compressed.
    pub coding: ResponseCoding,
    buffer: ResponseBuffer,
    /// The status code last sent.
    status: u16,
    http10: bool,
    head_request: bool,
}

impl Response {
    /// Prepares for the response to the next request; memory is kept.
    pub fn begin(&mut self, version: Version, head_request: bool, close: bool) {
        self.buffer.begin();
        (self.body, self.coding) = (Body::default(), ResponseCoding::default());
        self.http10 = version == Version::Http10;
        self.fields = Fields::new(self.http10, close);
        (self.stage, self.status) = (ResponseStage::Start, 0);
        self.head_request = head_request;
    }

    /// How far it has come.
    pub fn stage(&self) -> ResponseStage {
        self.stage
    }

    /// The status code sent last, 0 if there was none.
    pub fn status_code(&self) -> u16 {
        self.status
    }

    /// Whether the connection has to be closed after this response.
    pub fn closes(&self) -> bool {
        self.fields.closes()
    }

    /// Whether data may follow the head.
    pub fn has_body(&self) -> bool {
        self.body.may_follow()
    }

    /// The announced length of the body and how much of it the handler has sent so far, while that counts.
    pub fn length(&self) -> Option<(u64, u64)> {
        self.coding.length().unwrap_or_else(|| self.body.length())
    }

    /// Whether a part of the final response was sent: it cannot be replaced any more.
    pub fn has_left(&self) -> bool {
        self.buffer.has_left()
    }

    /// Begins the response: three digits and, after a space, a reason phrase. True: an informational one has ended.
    pub fn status(&mut self, status: &[u8], fixed: &StaticHeaders) -> Result<bool, Misuse> {
        self.stage.takes_status()?;
        let code = status_code(status)?;
        if code == 101 && self.http10 {
            // RFC 9110 7.8: Upgrade is to be ignored in a request of HTTP/1.0.
            return Err(NO_UPGRADE);
        }
        let ends_interim = self.stage == ResponseStage::Interim;
        if ends_interim {
            self.end_interim();
        }
        self.status = code;
        self.buffer.begin_head();
        push_status(&mut self.buffer.bytes, status);
        if (100..200).contains(&self.status) && self.status != 101 {
            self.stage = ResponseStage::Interim;
            return Ok(ends_interim);
        }
        self.stage = ResponseStage::Head;
        self.fields.begin(fixed, &mut self.buffer.bytes);
        Ok(ends_interim)
    }

    /// Sends a header line that means nothing to this server; before the status, it waits for that.
    pub fn early_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Misuse> {
        if self.stage.has_status() {
            return self.header(name, value);
        }
        self.fields.keep(name, value)
    }

    /// Sends a header line. Content-Length and Connection are also obeyed.
    pub fn header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Misuse> {
        self.stage.takes_header()?;
        let send = if self.stage == ResponseStage::Interim {
            check_informational(name, value)?;
            true
        } else {
            self.fields.add(name, value, self.status)?
        };
        if send {
            push_header(&mut self.buffer.bytes, name, value);
        }
        Ok(())
    }

    /// Sends header lines that are valid, and that mean nothing to the server; and Content-Length.
    pub fn lines(&mut self, lines: &[u8], length: Option<u64>) -> Result<(), Misuse> {
        if self.stage != ResponseStage::Head {
            return Err(NO_STATUS);
        }
        self.buffer.bytes.extend_from_slice(lines);
        length
            .map_or(Ok(()), |length| self.header(b"Content-Length", length.to_string().as_bytes()))
    }

    /// Ends the header section; the second and further calls do nothing. `date`: the value of Date, unless the
    /// application sent one.
    pub fn finish_headers(&mut self, date: Option<&[u8]>) -> Result<(), Misuse> {
        match self.stage {
            ResponseStage::Start => return Err(NO_STATUS),
            ResponseStage::Interim => {
                self.end_interim();
                return Ok(());
            }
            ResponseStage::Body => return Ok(()),
            ResponseStage::Finished | ResponseStage::Held => return Err(self.stage.over()),
            ResponseStage::Head => {}
        }
        self.coding.begin(&mut self.buffer, self.status, &mut self.fields, self.head_request);
        let out = &mut self.buffer.bytes;
        let framing = self.fields.finish(self.status, self.head_request, date, out);
        self.body.begin(framing);
        self.buffer.finish_head();
        self.stage = ResponseStage::Body;
        Ok(())
    }

    fn end_interim(&mut self) {
        if self.http10 {
            // RFC 9110 15.2: not to be sent to a client of HTTP/1.0.
            self.buffer.drop_head();
        } else {
            self.buffer.bytes.extend_from_slice(b"\r\n");
        }
        self.stage = ResponseStage::Start;
    }

    /// Takes a piece of the body, the header section being finished; pieces are joined until there are
    /// `minimum` bytes.
    ///
    /// If the piece is large, the caller must send [`Response::parts`] with the same piece, then call
    /// [`Response::sent`].
    pub fn data(&mut self, piece: &[u8], minimum: usize) -> Result<PieceTaken, Misuse> {
        self.stage.takes_data()?;
        if piece.is_empty() {
            return Ok(PieceTaken::Joined);
        }
        if self.coding.is_active() {
            return self.encoded(&self.coding.take(piece)?, minimum);
        }
        self.body.take(piece, minimum, MOST_WAITING, &mut self.buffer.bytes)
    }

    /// Takes a piece of the compressed body.
    #[cold]
    fn encoded(&mut self, piece: &[u8], minimum: usize) -> Result<PieceTaken, Misuse> {
        if piece.is_empty() {
            return Ok(PieceTaken::Joined);
        }
        let taken = self.body.take(piece, minimum, usize::MAX, &mut self.buffer.bytes)?;
        Ok(if self.buffer.bytes.len() > MOST_WAITING { PieceTaken::Full } else { taken })
    }

    /// The whole body, of the announced size, is sent after [`Response::out`] by the caller, unless this is false: then
    /// the response has no body. The header section has to be finished.
    pub fn body_elsewhere(&mut self, size: u64) -> Result<bool, Misuse> {
        self.stage.takes_data()?;
        self.body.take_elsewhere(size)
    }

    /// What is to be sent for a large piece.
    pub fn parts<'a>(&'a self, piece: &'a [u8]) -> [&'a [u8]; 3] {
        [&self.buffer.bytes, piece, self.body.chunk_end()]
    }

    /// Forgets what the caller has sent: all of [`Response::parts`].
    pub fn sent(&mut self) {
        self.buffer.sent();
    }

    /// The output, for the flusher to send if the handler does nothing more for a while. The caller gives it
    /// back, by [`Response::restore`], before anything further is done with the response.
    #[inline(always)]
    pub fn defer(&mut self) -> DeferredOutput {
        let waiting = self.buffer.defer(self.body.completion());
        if self.coding.is_active() { self.coding.defer(waiting, &self.body) } else { waiting }
    }

    /// Whether [`Response::restore`] is due.
    pub fn is_deferred(&self) -> bool {
        self.buffer.is_deferred()
    }

    /// Takes back the deferred output; `None` if a part has left, and the rest will before anything else.
    pub fn restore(&mut self, waiting: Option<DeferredOutput>) {
        if !self.buffer.restore(waiting) {
            self.body.forget_open();
        }
    }

    /// Pieces that wait to be joined do so no more: [`Response::out`] has all data so far.
    pub fn flush(&mut self) {
        if self.coding.is_active() {
            // The encoder knows whether there may be a body.
            let _ = self.encoded(&self.coding.flush(), 0);
        }
        self.body.flush(&mut self.buffer.bytes);
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
            ResponseStage::Held => return Err(self.stage.over()),
            ResponseStage::Interim => {
                self.end_interim();
                return Err(NO_STATUS);
            }
            _ => self.finish_headers(date)?,
        }
        if self.coding.is_active() {
            self.encoded(&self.coding.finish()?, 0)?;
        }
        self.body.finish(&mut self.buffer.bytes)?;
        self.stage = ResponseStage::Finished;
        Ok(())
    }

    /// Closes the connection after the response, and announces it (RFC 9112 9.6).
    pub fn close_after_finish(&mut self) -> Result<(), Misuse> {
        self.stage.takes_close().map(|()| _ = self.fields.set_close())
    }

    /// Closes the connection after the response, announced unless the head has left.
    pub fn close_anyway(&mut self) {
        let head_is_finished = matches!(self.stage, ResponseStage::Body | ResponseStage::Finished);
        if self.fields.set_close()
            && !self.has_left()
            && head_is_finished
            && self.fields.take_close(self.status)
        {
            self.buffer.insert_line(CLOSE);
            self.body.shift_open(CLOSE.len() as isize);
        }
    }

    /// Whether the client wants the head alone.
    pub fn is_head_request(&self) -> bool {
        self.head_request
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
        if held::is_bodyless(self.status) || self.status == 205 {
            return Err(HELD_WITHOUT_BODY);
        }
        let fields = Fields::new(self.http10, self.closes());
        let other = held::head_without_message(otherwise, fields, fixed)?;
        let has_date = self.fields.finish_open(self.status, &mut self.buffer.bytes)?;
        let lines = self.buffer.take_head();
        self.stage = ResponseStage::Held;
        Ok([HeldHead { lines, has_date, is_bodyless: false }, other])
    }

    /// Another process goes on with the response, whose header section has ended. None: it is complete, as the client
    /// wants no body.
    ///
    /// # Errors
    /// The status has no body, or its length was announced.
    pub fn hold_body(&mut self) -> Result<Option<MessageFraming>, Misuse> {
        let Some(framing) = held::framing(self.body.framing())? else { return Ok(None) };
        self.flush();
        self.stage = ResponseStage::Held;
        Ok(Some(framing))
    }

    /// An interim response that the server itself sends (RFC 9110 10.1.1): before the head, unless that
    /// has left.
    pub fn send_continue(&mut self) {
        match self.stage {
            ResponseStage::Start => self.buffer.bytes.extend_from_slice(CONTINUE),
            _ if self.has_left() => {}
            _ => {
                self.buffer.insert_before_head(CONTINUE);
                self.body.shift_open(CONTINUE.len() as isize);
            }
        }
    }

    /// What can be sent now: an unfinished head stays, so that it may still be replaced, and so do pieces
    /// that wait to be joined.
    pub fn out(&self) -> &[u8] {
        self.buffer.bytes.get(..self.ready()).unwrap_or_default()
    }

    fn ready(&self) -> usize {
        if self.stage.has_open_head() {
            return self.buffer.head_start();
        }
        self.body.open().unwrap_or(self.buffer.bytes.len())
    }

    /// Forgets what [`Response::out`] returned, it being sent.
    pub fn out_sent(&mut self) {
        let ready = self.ready();
        self.body.shift_open(-(ready as isize));
        if self.stage.has_open_head() {
            self.buffer.sent_before_head();
        } else {
            self.buffer.sent_some(ready, self.stage.has_status());
        }
    }

    /// Ends the response with the given bytes, of that status, e.g. a refusal, and closes the connection after it.
    ///
    /// To be used only while no part of the response [has left](Response::has_left).
    pub fn replace(&mut self, status: u16, write: impl FnOnce(&mut Vec<u8>, bool)) {
        if self.stage == ResponseStage::Interim {
            self.end_interim();
        } else if self.stage.has_status() {
            self.buffer.drop_head();
        }
        self.body.forget_open();
        self.coding.withdraw();
        write(&mut self.buffer.bytes, self.head_request);
        self.status = status;
        self.stage = ResponseStage::Finished;
        self.fields.set_close();
    }

    /// Gives back the memory that a large head took.
    pub fn release(&mut self, keep: usize) {
        self.buffer.bytes.shrink_to(keep);
    }
}

#[cfg(test)]
mod tests;
