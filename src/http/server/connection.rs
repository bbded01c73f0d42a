//! One connection's turn: a request, its response, and the non-blocking steps between them.
//!
//! No Lua type is known here. Nothing here waits: a step that cannot go on says for what it has to
//! wait, and the Lua code around it does.

mod body;
mod ending;
mod opening;

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use super::body_ahead::Ahead;
use super::options::Options;
use super::request_body::Intake;
use super::response::{LENGTH_EXCEEDED, LENGTH_NOT_USED, PieceTaken, Response};
use crate::http::form::reader::Form;
use crate::http::wire::date;
use crate::http::wire::framing::Framing;
use crate::http::wire::head::{Head, Span};
use crate::http::wire::header_lines::Misuse;
use crate::http::wire::header_lines::{INVALID_NAME, INVALID_VALUE};
use crate::http::wire::names::Names;
use crate::io::stream::Stream;
use crate::server::operator::log_text::ascii;
use crate::server::worker::context::{self, Undertaking};
use crate::sys::os::error_text;

pub use ending::Conclusion;

/// Memory of each buffer that is kept for the next request.
const KEEP: usize = 128 * 1024;

/// The scheme of every request's URI: TLS ends elsewhere.
pub const SCHEME: &str = "http";

/// What is raised when a request is used after its refusal, or after its connection has failed.
pub const FAULTY: Misuse = "Tried to use faulty request handle";

/// The rest of a body must not be taken for the protocol behind it (RFC 9110 7.8).
const UNREAD_BODY: Misuse = "Status 101 cannot be sent before the request body has been read";

/// How far [`HttpConnection::open`] has got with the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The head is complete and valid.
    Ready,
    /// Not a byte of a request is there.
    Idle,
    /// The head is incomplete.
    Partial,
    /// The head is complete, but the body is waited for (`request_buffering`).
    Buffering,
    /// The request is refused; the refusal is to be sent.
    Refused,
    /// The client has gone.
    Gone,
}

/// A request that is incomplete, kept by its stream while the connection is not served.
struct Incomplete {
    head: Head,
    ahead: Option<Box<Ahead>>,
    /// Until when it is waited for.
    until: Option<Instant>,
}

/// Why a call of the handler failed.
#[derive(Debug)]
pub enum Problem {
    /// The handler's mistake.
    Misuse(Cow<'static, str>),
    /// The request was refused, in these words.
    Refused(String),
    /// The connection failed.
    Io(io::Error),
}

/// What was raised in the handler without its fault, in these words.
#[derive(Debug)]
pub enum Blameless {
    /// The request was refused while it was handled.
    Refused(String),
    /// The connection has failed.
    Lost(String),
}

impl Blameless {
    /// What was raised.
    pub fn words(&self) -> &str {
        match self {
            Blameless::Refused(words) | Blameless::Lost(words) => words,
        }
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Problem::Misuse(text.into())
    }
}

impl From<Misuse> for Problem {
    fn from(text: Misuse) -> Self {
        Problem::Misuse(text.into())
    }
}

/// Who reads the body of the request: there is one reader at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reader {
    /// None yet.
    #[default]
    Nobody,
    /// All of it as one string.
    Whole,
    /// A callback that gets its chunks.
    Stream,
    /// The parser of forms.
    Form,
    /// `monologue`: it is thrown away.
    Discard,
}

/// The state of one connection while it is served.
pub struct HttpConnection {
    /// The options of the handler.
    pub options: Rc<Options>,
    stream: Option<Rc<RefCell<Stream>>>,
    /// Positions in `bytes`; while the head is incomplete, in the stream's input.
    pub head: Head,
    /// How far the body was seen that is waited for.
    ahead: Option<Box<Ahead>>,
    /// Until when an incomplete request is waited for, once that was decided.
    until: Option<Option<Instant>>,
    /// The head of the current request.
    pub bytes: Vec<u8>,
    /// Where its fields are.
    pub names: Names,
    /// The host the request is for, empty if HTTP/1.0 names none.
    pub host: Span,
    /// The path, `None` for `OPTIONS *`.
    pub path: Option<Span>,
    /// The query with its question mark.
    pub query: Span,
    /// The response.
    pub response: Response,
    /// The request's body.
    pub intake: Intake,
    /// Who reads it.
    pub reader: Reader,
    /// The form in the body, while it is read.
    pub form: Option<Form>,
    /// The client waits for `100 Continue` before it sends the body.
    expects_continue: bool,
    /// Since when the client is known to have sent FIN, while nothing is sent to it.
    half_closed: Option<Instant>,
    /// Nothing was done with the request yet.
    pub fresh: bool,
    /// The request cannot be used any more.
    pub faulty: bool,
    /// The timer that kills the process was set for the handler.
    armed: bool,
    /// The handler has turned to the body.
    pub body_used: bool,
    /// Which views of the request its handler was given, a bit for each.
    pub views_given: u16,
    /// What was raised last without the handler's fault.
    pub blameless: Option<Blameless>,
}

impl HttpConnection {
    /// A connection object that serves no connection yet.
    pub fn new(options: Rc<Options>) -> Self {
        HttpConnection {
            options,
            stream: None,
            head: Head::default(),
            ahead: None,
            until: None,
            bytes: Vec::new(),
            names: Names::default(),
            host: Span::default(),
            path: None,
            query: Span::default(),
            response: Response::default(),
            intake: Intake::default(),
            reader: Reader::Nobody,
            form: None,
            expects_continue: false,
            half_closed: None,
            fresh: true,
            faulty: false,
            armed: false,
            body_used: false,
            views_given: 0,
            blameless: None,
        }
    }

    /// Ends the turn: the object can serve another connection.
    pub fn close(&mut self) {
        self.stream = None;
        self.form = None;
        self.disarm();
        self.response.release(KEEP);
        self.intake.begin(Framing::Empty, 0);
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
        context::end();
    }

    /// The stream.
    pub fn stream(&self) -> Option<&Rc<RefCell<Stream>>> {
        self.stream.as_ref()
    }

    /// The stream, which this object does not use any more.
    pub fn take_stream(&mut self) -> Option<Rc<RefCell<Stream>>> {
        self.stream.take()
    }

    /// Whether a request is being served.
    pub fn is_open(&self) -> bool {
        self.stream.as_ref().is_some_and(|s| s.try_borrow().is_ok_and(|s| s.is_open()))
    }

    /// Whether a request of this connection was taken, now or before.
    pub fn was_asked(&self) -> bool {
        self.stream.as_ref().is_some_and(|s| s.try_borrow().is_ok_and(|s| s.handler.asked))
    }

    /// Lets `work` use the stream.
    fn with_stream<R>(
        &mut self,
        work: impl FnOnce(&mut Self, &mut Stream) -> Result<R, Problem>,
    ) -> Result<R, Problem> {
        let Some(shared) = self.stream.clone() else {
            return Err(Problem::Misuse("Response has already been finished".into()));
        };
        let Ok(mut stream) = shared.try_borrow_mut() else {
            return Err(Problem::Misuse("Socket is in use".into()));
        };
        work(self, &mut stream)
    }

    /// A failed read or write: the request cannot be used any more.
    fn failed(&mut self, error: io::Error) -> Problem {
        self.faulty = true;
        Problem::Io(error)
    }

    /// The client takes nothing of the response.
    pub fn stalled(&mut self) -> Problem {
        self.failed(io::Error::other("Timeout while sending the response"))
    }

    /// The text that is raised in the handler for a problem. If the request was refused, the refusal is sent.
    pub fn raised(&mut self, problem: Problem) -> Cow<'static, str> {
        match problem {
            Problem::Misuse(text) => text,
            Problem::Refused(words) => {
                self.blameless = Some(Blameless::Refused(words.clone()));
                let _ = self.send_out();
                words.into()
            }
            Problem::Io(error) => {
                let text = error_text::reason(&error);
                self.blameless = Some(Blameless::Lost(text.clone()));
                text.into()
            }
        }
    }

    /// Takes back the output that waits, see [`HttpConnection::defer`].
    fn recall(&mut self) {
        if self.response.is_deferred() {
            let recalled = self.with_stream(|_, stream| Ok(stream.recall()));
            self.response.restore(recalled.ok().flatten());
        }
    }

    /// Whether a part of the final response was sent: it cannot be replaced any more.
    pub fn has_left(&mut self) -> bool {
        self.recall();
        self.response.has_left()
    }

    fn check_usable(&self) -> Result<(), Problem> {
        match self.faulty {
            true => Err(Problem::Misuse(FAULTY.into())),
            false => Ok(()),
        }
    }

    /// Marks the request as used.
    pub fn touch(&mut self) -> Result<(), Problem> {
        self.check_usable()?;
        self.fresh = false;
        Ok(())
    }

    /// Sends the response's status.
    pub fn send_status(&mut self, status: &[u8]) -> Result<(), Problem> {
        self.touch()?;
        if status.starts_with(b"101") && !self.has_whole_body() {
            return Err(Problem::Misuse(UNREAD_BODY.into()));
        }
        Ok(self.response.status(status, &self.options.static_headers)?)
    }

    /// Whether the request has no body, or all of it was read.
    fn has_whole_body(&self) -> bool {
        self.intake.is_received() && self.intake.ready().is_empty()
    }

    /// Answers the client's expectation (RFC 9110 10.1.1); not if it sends the body already.
    fn promise_continue(&mut self) {
        if std::mem::take(&mut self.expects_continue) {
            self.response.send_continue();
        }
    }

    /// Sends a header line of the response.
    pub fn send_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Problem> {
        self.touch()?;
        let shown = || name.escape_ascii();
        let problem = |text| match text {
            INVALID_NAME => {
                format!("{text} \"{}\": remove blanks, colons and control characters", shown())
                    .into()
            }
            INVALID_VALUE => format!(
                "{text}: {}. Remove or encode line ends and other control characters",
                shown()
            )
            .into(),
            text => text.into(),
        };
        self.response.header(name, value).map_err(problem)
    }

    fn finish_headers(&mut self) -> Result<(), Problem> {
        if self.response.is_in_body() {
            return Ok(());
        }
        self.look_ahead();
        let response = &mut self.response;
        Ok(date::with_now(|now| response.finish_headers(now))?)
    }

    /// Ends the header section and sends it; returns the output that is still queued.
    pub fn flush_headers(&mut self) -> Result<usize, Problem> {
        self.touch()?;
        self.finish_headers()?;
        self.send_out()
    }

    /// Sends a piece of the response's body; returns the output that is still queued.
    pub fn send_data(&mut self, piece: &[u8]) -> Result<usize, Problem> {
        self.touch()?;
        if !self.response.has_status() {
            return Err(Problem::Misuse("HTTP status has not been sent yet".into()));
        }
        self.finish_unless_finished()?;
        self.recall();
        match self.response.data(piece, self.options.output_chunk) {
            Ok(PieceTaken::Ignored) if self.response.takes_ignored(self.options.output_chunk) => {
                self.check_client()?;
                self.defer(true)
            }
            Ok(PieceTaken::Ignored | PieceTaken::Joined) => self.defer(false),
            Ok(PieceTaken::Complete) => self.defer(true),
            Ok(PieceTaken::Large) => self.with_stream(|this, stream| {
                let sent = stream.send_nb(&this.response.parts(piece));
                this.response.sent();
                sent.map_err(|error| this.failed(error))
            }),
            Err(text) => {
                self.defer(false)?;
                Err(self.explain(text, piece.len()))
            }
        }
    }

    /// Lets output wait for the end of the response. Where that is not possible, `complete` output is sent.
    /// Returns the output that is still queued.
    fn defer(&mut self, complete: bool) -> Result<usize, Problem> {
        let waits = self.with_stream(|this, stream| {
            let outcome = stream.defer(this.response.defer());
            Ok(outcome.map_err(|waiting| this.response.restore(Some(waiting))).is_ok())
        })?;
        if complete && !waits { self.send_out() } else { Ok(0) }
    }

    fn finish_unless_finished(&mut self) -> Result<(), Problem> {
        if self.response.is_finished() {
            return Err(Problem::Misuse("Response has already been finished".into()));
        }
        self.finish_headers()
    }

    /// Sends what there is to be sent, joined data included; returns the output still queued.
    pub fn flush(&mut self) -> Result<usize, Problem> {
        self.check_usable()?;
        self.recall();
        self.response.flush();
        if self.response.out().is_empty() {
            self.check_client()?;
        }
        self.send_out()
    }

    /// Ends the response and sends it; returns the output that is still queued.
    pub fn finish(&mut self) -> Result<usize, Problem> {
        self.touch()?;
        self.recall();
        let outcome = if self.response.is_in_body() {
            self.response.finish(None)
        } else {
            self.look_ahead();
            let response = &mut self.response;
            date::with_now(|now| response.finish(now))
        };
        outcome.map_err(|text| self.explain(text, 0))?;
        self.send_out()
    }

    /// A misuse, with the figures if it concerns the length of the body, of which the handler has just
    /// tried to send so many bytes `more`.
    fn explain(&self, text: Misuse, more: usize) -> Problem {
        let Some((announced, sent)) = self.response.length() else { return text.into() };
        let sent = sent.saturating_add(more as u64);
        match text {
            LENGTH_EXCEEDED => {
                format!("{text}: Content-Length is {announced}, but {sent} bytes were to be sent")
            }
            LENGTH_NOT_USED => {
                format!("{text}: Content-Length is {announced}, but only {sent} bytes were sent")
            }
            _ => return text.into(),
        }
        .into()
    }

    /// Sends what the response has ready; returns the output that is still queued.
    pub fn send_out(&mut self) -> Result<usize, Problem> {
        self.recall();
        self.with_stream(|this, stream| {
            let sent = stream.send_nb(&[this.response.out()]);
            this.response.out_sent();
            sent.map_err(|error| this.failed(error))
        })
    }
}

/// A request, as the log names it: method and target.
impl Undertaking for RefCell<HttpConnection> {
    fn describe(&self) -> Option<Vec<u8>> {
        let connection = self.try_borrow().ok()?;
        let head = &connection.head;
        let part = |span: Span| span.of(&connection.bytes);
        head.has_request_line()
            .then(|| ascii(&[part(head.method), b" ", part(head.target)].concat()))
    }

    /// Method and path: what follows there may be confidential.
    fn note(&self, text: &mut [u8]) -> usize {
        let Ok(connection) = self.try_borrow() else { return 0 };
        let head = &connection.head;
        if !head.has_request_line() {
            return 0;
        }
        let path = head.target.of(&connection.bytes);
        let path = &path[..path.len().min(text.len())];
        let path = &path[..memchr::memchr(b'?', path).unwrap_or(path.len())];
        let mut length = 0;
        for part in [head.method.of(&connection.bytes), b" ", path] {
            let size = part.len().min(text.len() - length);
            text[length..length + size].copy_from_slice(&part[..size]);
            length += size;
        }
        length
    }
}
