//! From a connection's input to a request: the head is received, checked and taken.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use super::{HttpConnection, Incomplete, Opened, Reader};
use crate::http::server::body_ahead::Wanted;
use crate::http::server::response;
use crate::http::wire::date;
use crate::http::wire::framing::{self, Framing};
use crate::http::wire::head::{Field, HeadProgress, Known, Span, Version};
use crate::http::wire::list::elements;
use crate::http::wire::refusal::Refusal;
use crate::http::wire::uri::{Target, is_host};
use crate::io::Awaits;
use crate::io::stream::{Fill, Stream};
use crate::sys::os::alarm;

impl HttpConnection {
    /// Turns to the connection `stream` and looks for its next request, receiving once or more.
    pub fn open(&mut self, stream: Rc<RefCell<Stream>>) -> Opened {
        self.views_given = 0;
        let opened = match stream.try_borrow_mut() {
            Ok(mut stream) => {
                self.resume(&mut stream);
                self.receive_head(&mut stream)
            }
            Err(_) => Opened::Gone,
        };
        self.stream = Some(stream);
        opened
    }

    /// Goes on with the request that [`HttpConnection::suspend`] has left, if there is one.
    fn resume(&mut self, stream: &mut Stream) {
        let begun =
            stream.handler.incomplete.take().and_then(|kept| kept.downcast::<Incomplete>().ok());
        match begun {
            Some(begun) => {
                (self.head, self.ahead, self.until) = (begun.head, begun.ahead, Some(begun.until));
            }
            None => {
                self.head.clear();
                (self.ahead, self.until) = (None, None);
            }
        }
    }

    /// Until when an incomplete head is waited for. `decide` is asked if that was not decided before, here or
    /// in another process.
    pub fn head_until(&self, decide: impl FnOnce() -> Option<Instant>) -> Option<Instant> {
        if let Some(until) = self.until {
            return until;
        }
        let stream = self.stream.as_ref().and_then(|stream| stream.try_borrow().ok());
        let decided = stream.filter(|stream| stream.input.is_preloaded());
        decided.and_then(|stream| stream.handler.parked_until).or_else(decide)
    }

    fn receive_head(&mut self, stream: &mut Stream) -> Opened {
        loop {
            let (mut waiting, mut head) = (Opened::Partial, 0);
            match self.head.advance(stream.input(), &self.options.head) {
                Ok(HeadProgress::Complete(size))
                    if stream.is_eof() || !self.lacks(stream, size) =>
                {
                    return self.begin(stream, size);
                }
                Ok(HeadProgress::Complete(size)) => (waiting, head) = (Opened::Buffering, size),
                Ok(HeadProgress::Partial) => {}
                Err(refusal) => return self.refuse_head(stream, &refusal),
            }
            let begun = self.head.has_begun(stream.input());
            match stream.fill() {
                Ok(Fill::Data(_)) => {}
                Ok(Fill::Block) => {
                    if waiting == Opened::Buffering {
                        self.promise_buffering(stream, head);
                    }
                    // What is there is of no use until more comes: it must not count as ready.
                    stream.input.hold(self.awaits(waiting, begun, stream.input().len()));
                    return if begun { waiting } else { Opened::Idle };
                }
                Ok(Fill::Eof) if waiting == Opened::Buffering => {}
                Ok(Fill::Eof) if begun => {
                    return self
                        .refuse_head(stream, &Refusal::bad_request("Unexpected EOF in request"));
                }
                Ok(Fill::Eof) | Err(_) => return Opened::Gone,
            }
        }
    }

    /// What has to come before it is of use to look at the input again.
    fn awaits(&self, waiting: Opened, begun: bool, received: usize) -> Awaits {
        match waiting {
            Opened::Buffering => {
                let missing = self.missing();
                missing.map_or(Awaits::More, |missing| Awaits::Bytes(received as u64 + missing))
            }
            Opened::Partial if begun => Awaits::EmptyLine(self.options.head.head as u64 + 1),
            _ => Awaits::More,
        }
    }

    /// How many bytes are missing of a body that is waited for, where that is known.
    pub fn missing(&self) -> Option<u64> {
        self.ahead.as_ref()?.missing
    }

    /// Whether the body is to be waited for, behind a head of `size` bytes.
    fn lacks(&mut self, stream: &Stream, size: usize) -> bool {
        let limit = self.options.buffering.min(self.options.body);
        let wanted = Wanted { limit, all: self.options.buffers_all };
        let frames =
            |field: &Field| matches!(field.known, Known::ContentLength | Known::TransferEncoding);
        if limit == 0 || !self.head.fields.iter().any(frames) {
            return false;
        }
        let mut ahead = self.ahead.take().unwrap_or_default();
        let lacks = ahead.lacks(&self.head, stream.input(), size, wanted)
            && (ahead.checked || self.is_acceptable(stream, size));
        ahead.checked |= lacks;
        self.ahead = Some(ahead);
        lacks
    }

    /// Whether the request with a head of `size` bytes is served when its body is there: nobody waits for
    /// the body of one that is refused.
    fn is_acceptable(&mut self, stream: &Stream, size: usize) -> bool {
        self.copy_head(stream, size);
        self.check_head(false).is_ok()
    }

    fn copy_head(&mut self, stream: &Stream, size: usize) {
        self.bytes.clear();
        self.bytes.extend_from_slice(stream.input().get(..size).unwrap_or_default());
    }

    /// Tells a client that asks, before its body is waited for behind a head of `size` bytes, that
    /// it may send it. A failure shows when the client does not.
    fn promise_buffering(&mut self, stream: &mut Stream, size: usize) {
        let ahead = self.ahead.get_or_insert_default();
        if ahead.owes_continue(&self.head, stream.input().len(), size) {
            let _ = stream.send_nb(&[response::CONTINUE]);
        }
    }

    /// Takes the head out of the input and checks it.
    fn begin(&mut self, stream: &mut Stream, size: usize) -> Opened {
        self.copy_head(stream, size);
        stream.consume(size);
        stream.handler.asked = true;
        (self.reader, self.form) = (Reader::Nobody, None);
        self.names.clear();
        (self.fresh, self.faulty, self.expects_continue) = (true, false, false);
        self.body_used = false;
        (self.blameless, self.half_closed) = (None, None);
        match self.check_head(stream.handler.is_last()) {
            Ok(framing) => {
                // A client that sends its body does not wait any more (RFC 9110 10.1.1).
                self.expects_continue &= stream.input().is_empty();
                self.intake.begin(framing, self.options.body);
                self.arm();
                Opened::Ready
            }
            Err(refusal) => {
                self.refuse(&refusal);
                Opened::Refused
            }
        }
    }

    /// Sets the timer for the handler, unless the application has set an earlier one.
    fn arm(&mut self) {
        let Some(limit) = self.options.response_timeout else { return };
        let nanoseconds = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let (deadline, earlier) =
            (alarm::about_now().saturating_add(nanoseconds), alarm::deadline());
        if earlier == 0 || deadline < earlier {
            alarm::set(deadline);
            self.armed = true;
        }
    }

    /// The handler is over: its timer is off.
    pub fn disarm(&mut self) {
        if std::mem::take(&mut self.armed) {
            alarm::disarm();
        }
    }

    fn refuse_head(&mut self, stream: &mut Stream, refusal: &Refusal) -> Opened {
        let head_request =
            self.head.has_request_line() && self.head.method.of(stream.input()) == b"HEAD";
        self.response.begin(self.head.version, head_request, true);
        self.refuse(refusal);
        Opened::Refused
    }

    /// Checks the header fields and the target, in the order in which refusals take precedence.
    /// The `last` request of a connection is answered with `Connection: close`.
    fn check_head(&mut self, last: bool) -> Result<Framing, Refusal> {
        let (bytes, head) = (&self.bytes[..], &self.head);
        let all = |known: Known| {
            let fields = head.fields.iter().filter(move |field| field.known == known);
            fields.map(|field| field.value.of(bytes))
        };
        let method = head.method.of(bytes);
        let asks = |option: &[u8]| {
            all(Known::Connection).flat_map(elements).any(|o| o.eq_ignore_ascii_case(option))
        };
        // RFC 9112 9.3: HTTP/1.0 keeps a connection only on request.
        let keeps = head.version == Version::Http11 || asks(b"keep-alive");
        let close = last || asks(b"close") || !keeps;
        self.response.begin(head.version, method == b"HEAD", close);

        let length = framing::content_length(all(Known::ContentLength))?;
        if length.is_some_and(|length| length > self.options.body) {
            return Err(Refusal::content_too_large("Announced request body size is too big"));
        }
        let coding = framing::transfer_coding(all(Known::TransferEncoding))?;
        let framing = framing::decide(head.version, length, coding)?;

        // RFC 9110 10.1.1: in HTTP/1.0 the expectation is to be ignored.
        if head.version == Version::Http11 {
            let mut expectations = all(Known::Expect).flat_map(elements).peekable();
            let expects = expectations.peek().is_some();
            if !expectations.all(|text| text.eq_ignore_ascii_case(b"100-continue")) {
                return Err(Refusal::expectation_failed("Unexpected Expect header"));
            }
            self.expects_continue = expects && framing != Framing::Empty;
        }

        const NO_HOST: Refusal = Refusal::bad_request("No valid host header");
        let mut hosts = head.fields.iter().filter(|field| field.known == Known::Host);
        self.host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.value,
            (None, _) if head.version == Version::Http10 => Span::default(),
            _ => return Err(NO_HOST),
        };
        let host = self.host.of(bytes);
        if !is_host(host) || host.is_empty() && head.version == Version::Http11 {
            return Err(NO_HOST);
        }

        match Target::parse(method, head.target.of(bytes)) {
            Ok(Target::Resource { host, path, query }) => {
                self.path = Some(Span::locate(bytes, path));
                self.query = Span::locate(bytes, query);
                if let Some(host) = host {
                    self.host = Span::locate(bytes, host);
                }
            }
            Ok(Target::Asterisk) => (self.path, self.query) = (None, Span::default()),
            // RFC 9110 9.1: a method that a server does not implement; no handler can make a tunnel.
            Ok(Target::Authority) => {
                return Err(Refusal::not_implemented("CONNECT is not supported"));
            }
            Err(_) => return Err(Refusal::bad_request("Invalid request target")),
        }
        Ok(framing)
    }

    /// Answers with a refusal: the response is finished with it and the connection will be closed.
    pub fn refuse(&mut self, refusal: &Refusal) {
        let fixed = &self.options.static_headers;
        self.response.replace(|out, head_request| {
            date::with_now(|now| {
                let now = now.filter(|_| !fixed.has_date());
                refusal.write(out, fixed.lines(), now, head_request);
            });
        });
    }

    /// Refuses a connection on which there is no complete request.
    pub fn refuse_wait(&mut self, sentence: &'static str) {
        let stream = self.stream.take();
        if let Some(mut stream) = stream.as_ref().and_then(|stream| stream.try_borrow_mut().ok()) {
            self.refuse_head(&mut stream, &Refusal::timeout(sentence));
        }
        self.stream = stream;
    }

    /// Gives up the connection; its stream keeps the incomplete request, which is waited for until then.
    pub fn suspend(&mut self, until: Option<Instant>) -> Option<Rc<RefCell<Stream>>> {
        let stream = self.stream.take()?;
        let (head, ahead) = (std::mem::take(&mut self.head), self.ahead.take());
        if let Ok(mut stream) = stream.try_borrow_mut() {
            stream.handler.incomplete = Some(Box::new(Incomplete { head, ahead, until }));
        }
        Some(stream)
    }
}
