//! One connection while it is served: a request, its response, and the non-blocking steps between them.
//!
//! No Lua type is known here. Nothing here waits: a step that cannot go on says for what it has to
//! wait, and the Lua code around it does. The connection puts its parts together: what they decide by
//! themselves is theirs.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::compression;
use super::failure;
use super::held_stream::HeldStream;
use super::identity::Identity;
use super::incoming::{Incoming, Opened};
use super::options::Options;
use super::origin;
use super::request::Request;
use super::request_body::{BodyFailure, Reader, RequestBody, Supply};
use super::response::ResponseStage;
use super::response_output::ResponseOutput;
use super::response_timer::ResponseTimer;
use super::usability::{Problem, Usability};
use crate::http::wire::date;
use crate::http::wire::header_lines::Misuse;
use crate::http::wire::refusal::Refusal;
use crate::io::sigterm;
use crate::io::stream::{FileTail, Stream};
use crate::server::ipc::held_state::{HeldState, MessageFraming};
use crate::server::worker::context::{self, Undertaking};
use crate::server::worker::request_log;
use crate::sys::os::monotonic::MonotonicTime;

/// Memory of each buffer that is kept for the next request.
const KEEP: usize = 128 * 1024;

/// The scheme of a request's URI unless a proxy tells another one: without TLS, which may end elsewhere, and with it.
const SCHEMES: [&str; 2] = ["http", "https"];

/// The rest of a body must not be taken for the protocol behind it (RFC 9110 7.8).
const UNREAD_BODY: Misuse = "Status 101 cannot be sent before the request body has been read";

/// How a response ends that was to be completed by a message, and was not.
const NO_CONTENT: &[u8] = b"204 No Content";

const COMPRESSED_HOLD: Misuse = "hold: this response is being compressed: send Cache-Control: no-transform, or hold it before any data";

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

/// The state of one connection while it is served.
pub struct HttpConnection {
    /// The options of the handler.
    pub options: Rc<Options>,
    /// The stream.
    pub stream: HeldStream,
    /// The current request.
    pub request: Request,
    /// The next one, while it is incomplete.
    pub incoming: Incoming,
    /// The request's body.
    pub body: RequestBody,
    /// The response.
    pub output: ResponseOutput,
    /// Whether the request can be used.
    pub usability: Usability,
    /// The timer of its handler.
    pub timer: ResponseTimer,
    /// Which views of the request its handler was given, once and again, a bit for each.
    pub views_given: u32,
    /// Whether a trusted proxy sends the requests.
    pub is_believed: bool,
    /// The connection has TLS.
    is_secure: bool,
    /// What names the request, once somebody has asked: see [`HttpConnection::identity`].
    pub identity: Identity,
    /// How the response goes on when the handler has returned, if it is held.
    pub hold: Option<Box<HeldState>>,
}

impl HttpConnection {
    /// The scheme of a request's URI, unless a proxy tells another one.
    pub fn scheme(&self) -> &'static str {
        SCHEMES[usize::from(self.is_secure)]
    }

    /// A connection object that serves no connection yet.
    pub fn new(options: Rc<Options>) -> Self {
        HttpConnection {
            options,
            stream: HeldStream::default(),
            request: Request::default(),
            incoming: Incoming::default(),
            body: RequestBody::default(),
            output: ResponseOutput::default(),
            usability: Usability::default(),
            timer: ResponseTimer::default(),
            views_given: 0,
            is_believed: false,
            is_secure: false,
            identity: Identity::default(),
            hold: None,
        }
    }

    // The request.

    /// Turns to the connection `stream` and looks for its next request, receiving once or more.
    pub fn open(&mut self, stream: Rc<RefCell<Stream>>) -> Opened {
        self.views_given = 0;
        self.identity.forget();
        let opened = match stream.try_borrow_mut() {
            Ok(mut stream) => self.receive(&mut stream),
            Err(_) => Opened::Gone,
        };
        self.stream.set(stream);
        opened
    }

    fn receive(&mut self, stream: &mut Stream) -> Opened {
        self.is_believed = origin::is_believed(&self.options, stream);
        self.is_secure = stream.session().is_some();
        self.incoming.resume(&mut self.request, stream);
        match self.incoming.receive(&mut self.request, stream, &self.options) {
            Ok(Opened::Ready) => self.begin(stream),
            Ok(opened) => opened,
            Err(refusal) => {
                self.refuse_head(stream.input(), &refusal);
                Opened::Refused
            }
        }
    }

    /// Checks the head that has come, and prepares for what follows.
    fn begin(&mut self, stream: &mut Stream) -> Opened {
        stream.handler.asked = true;
        let request = &mut self.request;
        request.names.clear();
        self.body.reset();
        self.usability = Usability::default();
        self.hold = None;
        let closes = stream.handler.is_last() || request.closes();
        self.output.begin(request.head.version, request.is_head(&request.bytes), closes);
        if let Some(compressing) = &self.options.compress {
            let accepted = request.joined(b"accept-encoding");
            let accepts = compression::accepts(&accepted);
            self.output.response.coding.offer(compressing.clone(), accepts);
        }
        let mut checked = request.check(self.options.body, self.options.decompress.is_some());
        if self.options.trusted.is_some()
            && let Err(refusal) = origin::told(request, &self.options, self.is_believed)
        {
            checked = checked.and(Err(refusal));
        }
        match checked {
            Ok(_) if self.options.development.is_some() && self.cannot_serve(stream) => {
                Opened::Refused
            }
            Ok(announced) => {
                self.body.begin(announced, &self.options, !stream.input().is_empty());
                self.timer.set(self.options.response_timeout);
                Opened::Ready
            }
            Err(refusal) => {
                self.refuse(&refusal);
                Opened::Refused
            }
        }
    }

    /// What names the request, which the logs are told, too.
    pub fn identity(&mut self) -> &Identity {
        if self.identity.make(&self.request, self.is_believed) {
            request_log::name(self.identity.names());
        }
        &self.identity
    }

    /// Method, target and id of the request, for the log.
    pub fn describe(&mut self) -> Option<Vec<u8>> {
        let mut text = self.request.describe()?;
        let names = self.identity().names();
        names.with_id(|id| text.extend_from_slice(&[b" [", id, b"]"].concat()));
        Some(text)
    }

    /// Refuses a request whose head, at the beginning of the input, is incomplete or cannot be read.
    fn refuse_head(&mut self, input: &[u8], refusal: &Refusal) {
        // For the logs.
        self.request.copy_head(input, input.len().min(self.options.head.head));
        self.output.begin(self.request.head.version, self.request.is_head(input), true);
        self.refuse(refusal);
    }

    /// In development, whether the application has failed to start. Then this request is answered with the reason.
    #[cold]
    fn cannot_serve(&mut self, stream: &Stream) -> bool {
        let failure = self.options.development.as_ref().and_then(|it| it.failure());
        let Some(report) = failure else { return false };
        let parts = (&mut self.request, &mut self.output);
        failure::answer(report.as_bytes(), &self.options, parts, Some(stream));
        true
    }

    /// Answers an error of the application with this text.
    pub fn answer_error(&mut self, text: &[u8]) {
        let stream = self.stream.borrow();
        let parts = (&mut self.request, &mut self.output);
        failure::answer(text, &self.options, parts, stream.as_deref());
    }

    /// Answers with a refusal: the response is finished with it and the connection will be closed.
    pub fn refuse(&mut self, refusal: &Refusal) {
        self.output.refuse(&self.options, refusal);
    }

    /// Refuses a connection on which there is no complete request.
    pub fn refuse_wait(&mut self, sentence: &'static str) {
        let stream = self.stream.get().cloned();
        if let Some(Ok(stream)) = stream.as_ref().map(|stream| stream.try_borrow()) {
            self.refuse_head(stream.input(), &Refusal::timeout(sentence));
        }
    }

    /// Gives up the connection; its stream keeps the incomplete request, which is waited for until then.
    pub fn suspend(&mut self, until: Option<MonotonicTime>) -> Option<Rc<RefCell<Stream>>> {
        let stream = self.stream.take()?;
        if let Ok(mut stream) = stream.try_borrow_mut() {
            self.incoming.suspend(&mut self.request, &mut stream, until);
        }
        Some(stream)
    }

    // Its body.

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
        let received = self.stream.borrow().map_or(0, |stream| stream.input().len());
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
    fn prepare_head(&mut self) {
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

    /// Nobody reads the rest of the body: it is skipped if that costs little, so that the connection can
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

    /// Sends the response's status.
    pub fn send_status(&mut self, status: &[u8]) -> Result<(), Problem> {
        self.usability.touch()?;
        if status.starts_with(b"101") && !self.body.is_read() {
            return Err(UNREAD_BODY.into());
        }
        Ok(self.output.response.status(status, &self.options.static_headers)?)
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
        self.recall();
        let response = &mut self.output.response;
        if response.stage().is_over() {
            return Err(response.stage().over().into());
        }
        // What is published comes as it is.
        if self.output.response.coding.is_active() {
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
        Ok(())
    }

    /// The handler has returned, and the response goes on in another process: whether the connection may have further
    /// requests behind it.
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

    // The end.

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

    /// Ends the turn: the object can serve another connection.
    pub fn close(&mut self) {
        self.stream.take();
        self.hold = None;
        self.timer.clear();
        self.output.response.release(KEEP);
        self.body.release();
        self.request.release(KEEP);
        context::end();
    }
}

/// A request, as the log names it.
impl Undertaking for RefCell<HttpConnection> {
    fn describe(&self) -> Option<Vec<u8>> {
        self.try_borrow_mut().ok()?.describe()
    }
}
