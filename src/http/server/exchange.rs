//! A request's body and its response while they are exchanged, and how they affect each other: the interim response
//! to a client that waits before it sends its body, and whether the connection can be used further.
//!
//! No Lua type is known here, and nothing waits: a step that cannot go on says for what it has to wait.

use std::borrow::Cow;
use std::io;
use std::rc::Rc;

use super::held_stream::HeldStream;
use super::options::Options;
use super::request_body::{BodyFailure, Reader, RequestBody, Supply};
use super::response::ResponseStage;
use super::response::held::final_status;
use super::response_output::ResponseOutput;
use super::usability::{Problem, Usability};
use crate::http::wire::date;
use crate::http::wire::head::Version;
use crate::http::wire::header_lines::Misuse;
use crate::http::wire::refusal::Refusal;
use crate::io::sigterm;
use crate::io::stream::{FileTail, Stream};
use crate::server::ipc::held_state::{HeldState, MessageFraming};

/// Memory of each buffer that is kept for the next request.
pub const KEEP: usize = 128 * 1024;

/// The rest of a body must not be taken for the protocol after it (RFC 9110 7.8).
const UNREAD_BODY: Misuse = "Status 101 cannot be sent before the request body has been read";

/// How a response ends that was to be completed by a message, and was not.
const NO_CONTENT: &[u8] = b"204 No Content";

const COMPRESSED_HOLD: Misuse = "hold: this response is compressed for clients that accept it: send Cache-Control: no-transform, or hold it before any data";

/// The status of a response that its message completes, unless the handler has sent another one.
const OK: &[u8] = b"200 OK";

const LATE_OTHERWISE: Misuse =
    "hold: \"otherwise\" needs \"once\", and a response whose headers have not been finished";

/// What follows a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The connection is ready for its next request.
    Keep,
    /// It can be closed at once.
    Close,
    /// Output is still queued, or input has to be discarded.
    More,
}

/// The body of a request, and its response.
pub struct HttpExchange {
    /// The options of the handler.
    pub options: Rc<Options>,
    /// The stream.
    pub stream: HeldStream,
    /// The request's body.
    pub body: RequestBody,
    /// The response.
    pub output: ResponseOutput,
    /// Whether the request can be used.
    pub usability: Usability,
    /// How the response goes on when the handler has returned, if it is held.
    pub hold: Option<Box<HeldState>>,
}

impl HttpExchange {
    /// None yet.
    pub fn new(options: Rc<Options>) -> Self {
        HttpExchange {
            options,
            stream: HeldStream::default(),
            body: RequestBody::default(),
            output: ResponseOutput::default(),
            usability: Usability::default(),
            hold: None,
        }
    }

    /// Another request begins. `closes`: it is the last one on its connection.
    pub fn begin(&mut self, version: Version, is_head: bool, closes: bool) {
        self.body.reset();
        self.usability = Usability::default();
        self.hold = None;
        self.output.begin(version, is_head, closes);
    }

    /// It is over: no stream is needed, and little memory.
    pub fn end(&mut self) {
        self.stream.take();
        self.hold = None;
        self.output.response.release(KEEP);
        self.body.release();
    }

    /// Answers with a refusal: the response is finished with it and the connection will be closed.
    pub fn refuse(&mut self, refusal: &Refusal) {
        self.output.refuse(&self.options, refusal);
    }

    // The body.

    /// Chooses the reader of the body.
    pub fn set_reader(&mut self, reader: Reader) -> Result<(), Problem> {
        self.body.is_used = true;
        self.usability.touch()?;
        self.body.set_reader(reader);
        Ok(())
    }

    /// Makes all of a body of up to 64 KiB ready, if it is there and nobody has turned to it yet; whether
    /// that is so.
    pub fn gather(&mut self) -> bool {
        let received = self.stream.borrow().map_or(0, |stream| stream.duplex.input().len());
        let is_at_hand = !self.usability.is_faulty && self.body.is_at_hand(received);
        is_at_hand && matches!(self.absorb(), Ok(false))
    }

    /// Takes the body that was gathered at once.
    pub fn take_gathered(&mut self, reader: Reader) {
        self.usability.is_fresh = false;
        self.body.take_all(reader);
    }

    /// Makes a part of the body ready ([`RequestBody::ready`]).
    pub fn supply(&mut self) -> Result<Supply, Problem> {
        self.read_body(RequestBody::supply)
    }

    /// Receives all of the body that is there; whether more may come.
    pub fn absorb(&mut self) -> Result<bool, Problem> {
        self.read_body(RequestBody::absorb)
    }

    /// If the body is not what it has to be, answers with a refusal, as long as that is possible.
    fn read_body<R>(
        &mut self,
        read: fn(&mut RequestBody, &mut Stream) -> Result<R, BodyFailure>,
    ) -> Result<R, Problem> {
        self.usability.check()?;
        match self.stream.with(|stream| read(&mut self.body, stream))? {
            Ok(read) => Ok(read),
            Err(BodyFailure::Refused(refusal)) => Err(self.refuse_body(&refusal)),
            Err(BodyFailure::Io(error)) => self.usability.note(Err(error.into())),
        }
    }

    /// Refuses the request while its body is read.
    pub fn refuse_body(&mut self, refusal: &Refusal) -> Problem {
        self.usability.is_faulty = true;
        if !self.has_left() {
            self.refuse(refusal);
        }
        Problem::Refused(refusal.words().to_owned())
    }

    /// What to do before waiting for more of the body: all that the client may wait for is sent.
    pub fn prepare_wait(&mut self) -> Result<usize, Problem> {
        self.recall();
        self.promise_continue();
        self.send_out()
    }

    /// Answers the client's expectation (RFC 9110 10.1.1).
    fn promise_continue(&mut self) {
        if self.body.take_expectation() {
            self.output.response.send_continue();
        }
    }

    /// Before the response's head is finished: says that the connection will be closed if that can be
    /// foreseen (RFC 9112 9.6), and answers the expectation of a client whose body is wanted.
    pub fn prepare_head(&mut self) {
        if sigterm::received() {
            self.output.response.close_anyway();
        }
        if self.body.is_wanted() {
            self.promise_continue();
        }
        if self.body.is_received() || self.output.response.closes() {
            return;
        }
        let goes_on = self.stream.with(|stream| self.body.can_be_left(stream));
        if !goes_on.unwrap_or(false) {
            self.output.response.close_anyway();
        }
    }

    /// No reader is left for the rest of the body: it is skipped if that costs little, so that the connection can
    /// be kept. Otherwise the connection will be closed.
    pub fn leave_body(&mut self) {
        if self.body.is_received() || self.output.response.closes() || self.usability.is_faulty {
            return;
        }
        // It is too late to announce the end of the connection when the head has left.
        let head_has_left = self.output.response.has_left();
        let goes_on = self.stream.with(|stream| self.body.leave(stream, head_has_left));
        if !goes_on.unwrap_or(false) {
            self.output.response.close_anyway();
        }
    }

    // The response.

    /// The client takes nothing of the response.
    pub fn stalled(&mut self) -> Problem {
        self.usability.is_faulty = true;
        Problem::Io(io::Error::other("Timeout while sending the response"))
    }

    /// The text that is raised in the handler for a problem. If the request was refused, the refusal is sent.
    pub fn raised(&mut self, problem: Problem) -> Cow<'static, str> {
        let is_refused = matches!(problem, Problem::Refused(_));
        let text = self.usability.raise(problem);
        if is_refused {
            let _ = self.send_out();
        }
        text
    }

    fn recall(&mut self) {
        self.output.recall(&self.stream);
    }

    /// Whether a part of the final response was sent: it cannot be replaced any more.
    pub fn has_left(&mut self) -> bool {
        self.recall();
        self.output.response.has_left()
    }

    /// Sends the response's status; returns the output that is still queued.
    pub fn send_status(&mut self, status: &[u8]) -> Result<usize, Problem> {
        self.usability.touch()?;
        if status.starts_with(b"101") && !self.body.is_read() {
            return Err(UNREAD_BODY.into());
        }
        if self.output.response.status(status, &self.options.static_headers)? {
            return self.send_out();
        }
        Ok(0)
    }

    /// Sends a header line of the response.
    pub fn send_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Problem> {
        self.usability.touch()?;
        self.output.response.header(name, value).map_err(|text| Problem::of_header(text, name))
    }

    /// Sends header lines that are valid, and that the server need not understand; and Content-Length.
    pub fn send_lines(&mut self, lines: &[u8], length: Option<u64>) -> Result<(), Problem> {
        self.usability.touch()?;
        Ok(self.output.response.lines(lines, length)?)
    }

    fn finish_headers(&mut self) -> Result<(), Problem> {
        if self.output.response.stage().is_body() {
            return Ok(());
        }
        self.prepare_head();
        let response = &mut self.output.response;
        Ok(date::with_now(|now| response.finish_headers(now))?)
    }

    /// Ends the header section and sends it; returns the output that is still queued.
    pub fn flush_headers(&mut self) -> Result<usize, Problem> {
        self.usability.touch()?;
        self.finish_headers()?;
        self.send_out()
    }

    /// Sends a piece of the response's body; returns the output that is still queued.
    pub fn send_data(&mut self, piece: &[u8]) -> Result<usize, Problem> {
        self.usability.touch()?;
        if !self.output.response.stage().has_status() {
            return Err("HTTP status has not been sent yet".into());
        }
        self.finish_unless_finished()?;
        let sent = self.output.data(&self.stream, piece, &self.options);
        self.usability.note(sent)
    }

    /// Sends a file as the response's body, of which Content-Length has told the size; returns the output that is
    /// still queued.
    pub fn send_file(&mut self, file: FileTail) -> Result<usize, Problem> {
        self.usability.touch()?;
        self.finish_unless_finished()?;
        let sent = self.output.file(&self.stream, file);
        self.usability.note(sent)
    }

    fn finish_unless_finished(&mut self) -> Result<(), Problem> {
        if self.output.response.stage().is_over() {
            return Err(self.output.response.stage().over().into());
        }
        self.finish_headers()
    }

    /// Sends what there is to be sent, joined data included; returns the output still queued.
    pub fn flush(&mut self) -> Result<usize, Problem> {
        self.usability.check()?;
        let sent = self.output.flush(&self.stream);
        self.usability.note(sent)
    }

    /// The response goes on in another process when the handler has returned, as `held` says. `otherwise`: the status of
    /// the response if no message completes it.
    pub fn hold(&mut self, mut held: HeldState, otherwise: Option<&[u8]>) -> Result<(), Problem> {
        self.usability.touch()?;
        otherwise.map(final_status).transpose()?;
        if held.rules.once && !self.output.response.stage().has_status() {
            self.send_status(OK)?;
        }
        self.recall();
        let response = &mut self.output.response;
        if response.stage().is_over() {
            return Err(response.stage().over().into());
        }
        // What is published comes as it is. The handler is told whether or not this client accepts compression.
        if self.output.response.coding.is_negotiable() {
            return Err(COMPRESSED_HOLD.into());
        }
        self.output.response.coding.withdraw();
        if !self.output.response.stage().is_body() {
            self.prepare_head();
        }
        let fixed = &self.options.static_headers;
        let response = &mut self.output.response;
        if held.rules.once && response.stage() == ResponseStage::Head && !response.is_head_request()
        {
            held.rules.heads = response.hold_head(otherwise.unwrap_or(NO_CONTENT), fixed)?;
            held.framing = MessageFraming::Whole;
            // Nothing can be sent before the message: that would be a response of its own.
            held.rules.heartbeat = None;
        } else {
            if otherwise.is_some() && !response.is_head_request() {
                return Err(LATE_OTHERWISE.into());
            }
            date::with_now(|now| response.finish_headers(now))?;
            match response.hold_body()? {
                Some(framing) => held.framing = framing,
                None => return self.finish().map(|_| ()),
            }
        }
        self.hold = Some(Box::new(held));
        self.output.leave(&self.stream)
    }

    /// The handler has returned, and the response goes on in another process: whether the connection may have further
    /// requests after it.
    pub fn is_kept_behind_hold(&self) -> bool {
        !self.output.response.closes() && self.body.is_received() && !self.usability.is_faulty
    }

    /// Ends the response and sends it; returns the output that is still queued.
    pub fn finish(&mut self) -> Result<usize, Problem> {
        self.usability.touch()?;
        if !self.output.response.stage().is_body() {
            self.prepare_head();
        }
        let sent = self.output.finish(&self.stream);
        self.usability.note(sent)
    }

    /// Sends what the response has ready; returns the output that is still queued.
    pub fn send_out(&mut self) -> Result<usize, Problem> {
        let sent = self.output.send(&self.stream);
        self.usability.note(sent)
    }

    /// The handler has returned: ends the response and sends it, and says what follows. `goes_on`: the
    /// connection may have further requests. `reads`: the body's rest has a reader.
    pub fn conclude(&mut self, goes_on: bool, reads: bool) -> Result<Conclusion, Problem> {
        self.recall();
        if !goes_on {
            self.output.response.close_anyway();
        }
        if !reads {
            self.leave_body();
        }
        Ok(match self.finish()? {
            0 if !reads && self.is_reusable() => Conclusion::Keep,
            0 if !reads && self.body.is_received() && self.stream.has_no_input() => {
                Conclusion::Close
            }
            _ => Conclusion::More,
        })
    }

    /// Whether, the response being sent, the connection is ready for its next request. With status 101 it leaves
    /// HTTP (RFC 9110 15.2.2).
    pub fn is_reusable(&self) -> bool {
        self.output.response.stage().is_over()
            && !self.output.response.closes()
            && self.output.response.status_code() != 101
            && self.body.is_received()
            && !self.usability.is_faulty
    }
}
