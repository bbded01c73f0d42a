//! One connection while it is served: it receives requests, and begins and ends their [exchanges](HttpExchange).
//!
//! No Lua type is known here. Nothing here waits: a step that cannot go on says for what it has to
//! wait, and the Lua code around it does. The connection puts its parts together: what they decide by
//! themselves is theirs.

use std::cell::RefCell;
use std::rc::Rc;

use super::exchange::{HttpExchange, KEEP};
use super::failure;
use super::identity::Identity;
use super::incoming::{Incoming, Opened};
use super::options::Options;
use super::origin;
use super::request::Request;
use super::response::compression;
use super::response_timer::ResponseTimer;
use crate::http::wire::refusal::Refusal;
use crate::io::stream::Stream;
use crate::server::worker::context::{self, Undertaking};
use crate::server::worker::request_log;
use crate::sys::os::monotonic::MonotonicTime;

/// The scheme of a request's URI unless a proxy tells another one: without TLS, which may end elsewhere, and with it.
const SCHEMES: [&str; 2] = ["http", "https"];

/// The state of one connection while it is served.
pub struct HttpConnection {
    /// The body of the current request, and its response.
    pub exchange: HttpExchange,
    /// The current request.
    pub request: Request,
    /// The next one, while it is incomplete.
    pub incoming: Incoming,
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
}

impl HttpConnection {
    /// The scheme of a request's URI, unless a proxy tells another one.
    pub fn scheme(&self) -> &'static str {
        SCHEMES[usize::from(self.is_secure)]
    }

    /// A connection object that serves no connection yet.
    pub fn new(options: Rc<Options>) -> Self {
        HttpConnection {
            exchange: HttpExchange::new(options),
            request: Request::default(),
            incoming: Incoming::default(),
            timer: ResponseTimer::default(),
            views_given: 0,
            is_believed: false,
            is_secure: false,
            identity: Identity::default(),
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
        self.exchange.stream.set(stream);
        opened
    }

    fn receive(&mut self, stream: &mut Stream) -> Opened {
        self.is_believed = origin::is_believed(&self.exchange.options, stream);
        self.is_secure = stream.duplex.session().is_some();
        self.incoming.resume(&mut self.request, stream);
        match self.incoming.receive(&mut self.request, stream, &self.exchange.options) {
            Ok(Opened::Ready) => self.begin(stream),
            Ok(opened) => opened,
            Err(refusal) => {
                self.refuse_head(stream.duplex.input(), &refusal);
                Opened::Refused
            }
        }
    }

    /// Checks the head that has come, and prepares for what follows.
    fn begin(&mut self, stream: &mut Stream) -> Opened {
        stream.handler.asked = true;
        let HttpConnection { request, exchange, .. } = self;
        request.names.clear();
        let closes = stream.handler.is_last() || request.closes();
        exchange.begin(request.head.version, request.is_head(&request.bytes), closes);
        let options = &exchange.options;
        if let Some(compressing) = &options.compress {
            let accepted = request.joined(b"accept-encoding");
            let accepts = compression::accepts(&accepted);
            exchange.output.response.coding.offer(compressing.clone(), accepts);
        }
        let mut checked = request.check(options.body, options.decompress.is_some());
        if options.trusted.is_some()
            && let Err(refusal) = origin::told(request, options, self.is_believed)
        {
            checked = checked.and(Err(refusal));
        }
        match checked {
            Ok(_) if self.exchange.options.development.is_some() && self.cannot_serve(stream) => {
                Opened::Refused
            }
            Ok(announced) => {
                let HttpExchange { body, options, .. } = &mut self.exchange;
                body.begin(announced, options, !stream.duplex.input().is_empty());
                self.timer.set(options.response_timeout);
                Opened::Ready
            }
            Err(refusal) => {
                self.exchange.refuse(&refusal);
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
        self.request.copy_head(input, input.len().min(self.exchange.options.head.head));
        self.exchange.output.begin(self.request.head.version, self.request.is_head(input), true);
        self.exchange.refuse(refusal);
    }

    /// In development, whether the application has failed to start. Then this request is answered with the reason.
    #[cold]
    fn cannot_serve(&mut self, stream: &Stream) -> bool {
        let failure = self.exchange.options.development.as_ref().and_then(|it| it.failure());
        let Some(report) = failure else { return false };
        let parts = (&mut self.request, &mut self.exchange.output);
        failure::answer(report.as_bytes(), &self.exchange.options, parts, Some(stream));
        true
    }

    /// Answers an error of the application with this text.
    pub fn answer_error(&mut self, text: &[u8]) {
        let stream = self.exchange.stream.borrow();
        let parts = (&mut self.request, &mut self.exchange.output);
        failure::answer(text, &self.exchange.options, parts, stream.as_deref());
    }

    /// Refuses a connection on which there is no complete request.
    pub fn refuse_wait(&mut self, sentence: &'static str) {
        let stream = self.exchange.stream.get().cloned();
        if let Some(Ok(stream)) = stream.as_ref().map(|stream| stream.try_borrow()) {
            self.refuse_head(stream.duplex.input(), &Refusal::timeout(sentence));
        }
    }

    /// Gives up the connection; its stream keeps the incomplete request, which is waited for until then.
    pub fn suspend(&mut self, until: Option<MonotonicTime>) -> Option<Rc<RefCell<Stream>>> {
        let stream = self.exchange.stream.take()?;
        if let Ok(mut stream) = stream.try_borrow_mut() {
            self.incoming.suspend(&mut self.request, &mut stream, until);
        }
        Some(stream)
    }

    /// Ends the turn: the object can serve another connection.
    pub fn close(&mut self) {
        self.exchange.end();
        self.timer.clear();
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
