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
mod head;

use crate::http::wire::head::Version;
use crate::http::wire::header_lines::Misuse;

/// The answer to a client that asks whether it may send its body (RFC 9110 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const NO_STATUS: Misuse = "HTTP status has not been sent yet";
const STATUS_SENT: Misuse =
    "HTTP status has already been sent: call send_status once for each response";
const HEADERS_SENT: Misuse = "All HTTP headers have already been sent";
const FINISHED: Misuse = "Response has already been finished";
/// More was to be sent than Content-Length has announced.
pub const LENGTH_EXCEEDED: Misuse = "Content length exceeded";
/// Less was sent.
pub const LENGTH_NOT_USED: Misuse = "Content length not used";
const NO_UPGRADE: Misuse = "Status 101 cannot be sent to a client of HTTP/1.0";
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
    /// Where in `out` a further line of the finished head would stand, until that has left.
    head_end: usize,
    /// Bytes of data that were ignored lately.
    ignored: usize,
    /// Whether a part of the final response was sent.
    has_left: bool,
    http10: bool,
    head_request: bool,
    close: bool,
    says_close: bool,
    says_keep_alive: bool,
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

    /// Whether the header section has ended and the body has not.
    pub fn is_in_body(&self) -> bool {
        self.stage == Stage::Body
    }

    /// An interim response that the server itself sends (RFC 9110 10.1.1): before a head that may
    /// still be replaced.
    pub fn send_continue(&mut self) {
        if self.has_open_head() {
            self.out.splice(self.head_start..self.head_start, CONTINUE.iter().copied());
            self.head_start += CONTINUE.len();
        } else {
            self.out.extend_from_slice(CONTINUE);
        }
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

    /// The announced length of the body and how much of it the handler has sent so far, while that counts.
    pub fn length(&self) -> Option<(u64, u64)> {
        match (self.framing, self.length) {
            (Framing::Length(due), Some(announced)) => {
                Some((announced, announced.saturating_sub(due)))
            }
            _ => None,
        }
    }

    /// Whether data may follow the head.
    pub fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::Bodyless | Framing::Ignored)
    }

    /// Whether a part of the final response was sent: it cannot be replaced any more.
    pub fn has_left(&self) -> bool {
        self.has_left
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
mod tests;
