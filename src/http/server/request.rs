//! The head of a request, checked: its target, its host, and how its body is framed.

use std::borrow::Cow;
use std::net::SocketAddr;

use crate::http::wire::content_coding::ContentCoding;
use crate::http::wire::framing::{self, Framing};
use crate::http::wire::head::{Head, Known, Span, Version};
use crate::http::wire::list::{elements, has_element};
use crate::http::wire::names::Names;
use crate::http::wire::refusal::Refusal;
use crate::http::wire::uri::{Target, is_host};
use crate::server::ipc::request_names::RequestNames;
use crate::server::ipc::request_record::Opening;
use crate::server::log_text::ascii;

/// A request. Spans are positions in `bytes`.
#[derive(Debug, Default)]
pub struct Request {
    /// Positions in `bytes`; while the head is incomplete, in the stream's input.
    pub head: Head,
    /// The head of the request.
    pub bytes: Vec<u8>,
    /// Where its fields are.
    pub names: Names,
    /// The host the request is for, empty if HTTP/1.0 names none.
    pub host: Span,
    /// The path, `None` for `OPTIONS *`.
    pub path: Option<Span>,
    /// The query with its question mark.
    pub query: Span,
}

/// How the body of a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyAnnounced {
    /// How it is framed.
    pub framing: Framing,
    /// The client waits for `100 Continue` before it sends it.
    pub expects_continue: bool,
    /// How it is compressed, if that is the server's business.
    pub coding: Option<ContentCoding>,
}

impl Request {
    /// Keeps the head, the first `size` bytes of `input`.
    pub fn copy_head(&mut self, input: &[u8], size: usize) {
        self.bytes.clear();
        self.bytes.extend_from_slice(input.get(..size).unwrap_or_default());
    }

    /// Gives up the memory of a large head.
    pub fn release(&mut self, keep: usize) {
        if self.bytes.capacity() > keep {
            self.bytes = Vec::new();
        }
    }

    fn values(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.head.of_kind(known).map(|field| field.value.of(&self.bytes))
    }

    /// All values of a field, as one list (RFC 9110 5.3); empty if there is none.
    pub fn joined(&mut self, name: &[u8]) -> Cow<'_, [u8]> {
        let Request { names, head, bytes, .. } = self;
        match names.first(&head.fields, bytes, name) {
            None => Cow::default(),
            Some((value, true)) => Cow::Borrowed(value),
            Some((_, false)) => {
                let values = names.values(&head.fields, bytes, name);
                let values = values.filter(|value| !value.is_empty());
                Cow::Owned(values.collect::<Vec<_>>().join(&b", "[..]))
            }
        }
    }

    /// The names and values of all fields, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let text = |span: Span| span.of(&self.bytes);
        self.head.fields.iter().map(move |field| (text(field.name), text(field.value)))
    }

    /// Whether a head in these bytes, complete or not, asks for a head only.
    pub fn is_head(&self, bytes: &[u8]) -> bool {
        self.head.has_request_line() && self.head.method.of(bytes) == b"HEAD"
    }

    /// Whether the client wants no further request on the connection, or cannot (RFC 9112 9.3: HTTP/1.0 keeps
    /// a connection only on request).
    pub fn closes(&self) -> bool {
        let asks = |option: &[u8]| {
            let mut values = self.values(Known::Connection);
            values.any(|value| has_element(value, option))
        };
        let keeps = self.head.version == Version::Http11 || asks(b"keep-alive");
        asks(b"close") || !keeps
    }

    /// Checks the header fields and the target, in the order in which refusals take precedence, for a server
    /// that takes bodies up to `limit` bytes, and perhaps `decompresses` them.
    ///
    /// # Errors
    /// The refusal of the request.
    pub fn check(&mut self, limit: u64, decompresses: bool) -> Result<BodyAnnounced, Refusal> {
        let length = framing::content_length(self.values(Known::ContentLength))?;
        if length.is_some_and(|length| length > limit) {
            return Err(Refusal::content_too_large("Announced request body size is too big"));
        }
        let coding = framing::transfer_coding(self.values(Known::TransferEncoding))?;
        let framing = framing::decide(self.head.version, length, coding)?;
        let mut coding = None;
        if decompresses && framing != Framing::Empty {
            coding = ContentCoding::of(&self.joined(b"content-encoding"))?;
        }

        // RFC 9110 10.1.1: in HTTP/1.0 the expectation is to be ignored.
        let mut expects_continue = false;
        if self.head.version == Version::Http11 {
            let mut expectations = self.values(Known::Expect).flat_map(elements).peekable();
            let expects = expectations.peek().is_some();
            if !expectations.all(|text| text.eq_ignore_ascii_case(b"100-continue")) {
                return Err(Refusal::expectation_failed("Unexpected Expect header"));
            }
            expects_continue = expects && framing != Framing::Empty;
        }

        const NO_HOST: Refusal = Refusal::bad_request("No valid host header");
        let (bytes, head) = (&self.bytes[..], &self.head);
        let mut hosts = head.of_kind(Known::Host);
        self.host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.value,
            (None, _) if head.version == Version::Http10 => Span::default(),
            _ => return Err(NO_HOST),
        };
        let host = self.host.of(bytes);
        if !is_host(host) || host.is_empty() && head.version == Version::Http11 {
            return Err(NO_HOST);
        }

        match Target::parse(head.method.of(bytes), head.target.of(bytes)) {
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
        Ok(BodyAnnounced { framing, expects_continue, coding })
    }

    /// Method and target, for the log.
    pub fn describe(&self) -> Option<Vec<u8>> {
        let part = |span: Span| span.of(&self.bytes);
        let line = || ascii(&[part(self.head.method), b" ", part(self.head.target)].concat());
        self.head.has_request_line().then(line)
    }

    /// What the logs are told when a handler is called for the request of this client. `details`: there is an
    /// access log that also has fields of the request.
    #[inline]
    pub fn opening<'a>(
        &'a self,
        client: Option<SocketAddr>,
        names: RequestNames<'a>,
        details: bool,
    ) -> Opening<'a> {
        let mut opening = Opening { client, names, ..Opening::default() };
        if !self.head.has_request_line() {
            return opening;
        }
        opening.version = Some(u8::from(self.head.version == Version::Http11));
        opening.line = self.head.method.to(self.head.target).of(&self.bytes);
        if details {
            for field in &self.head.fields {
                let name = field.name.of(&self.bytes);
                let text = match name.len() {
                    7 if name.eq_ignore_ascii_case(b"referer") => &mut opening.referer,
                    10 if name.eq_ignore_ascii_case(b"user-agent") => &mut opening.user_agent,
                    _ => continue,
                };
                *text = field.value.of(&self.bytes);
            }
        }
        opening
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::head::HeadLimits;

    fn request(text: &str) -> Request {
        let mut request = Request::default();
        request.head.advance(text.as_bytes(), &HeadLimits { head: 1000, fields: 10 }).unwrap();
        request.copy_head(text.as_bytes(), text.len());
        request
    }

    #[test]
    fn a_request_says_what_it_is_for_and_how_its_body_comes() {
        let fields = "Host: a:1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
        let mut request = request(&format!("PUT /b%20c?d=e HTTP/1.1\r\n{fields}"));
        let announced =
            BodyAnnounced { framing: Framing::Length(3), expects_continue: true, coding: None };
        assert_eq!(request.check(3, true).ok(), Some(announced));
        assert_eq!(
            request.check(2, true).unwrap_err().words(),
            "Announced request body size is too big"
        );
        assert_eq!(request.host.of(&request.bytes), b"a:1");
        assert_eq!(request.path.unwrap().of(&request.bytes), b"b%20c");
        assert_eq!(request.query.of(&request.bytes), b"?d=e");
        assert_eq!(request.describe().unwrap(), b"PUT /b%20c?d=e");
        let opening = request.opening(None, RequestNames::None, false);
        assert_eq!(opening.line, b"PUT /b%20c?d=e");
    }

    #[test]
    fn the_access_log_has_fields_of_the_request() {
        let request = request("GET / HTTP/1.0\r\nUser-Agent: a\r\nREFERER: b\r\n\r\n");
        let opening = request.opening(None, RequestNames::None, true);
        assert_eq!((opening.user_agent, opening.referer), (&b"a"[..], &b"b"[..]));
        assert_eq!(
            (opening.version, request.opening(None, RequestNames::None, false).referer),
            (Some(0), &b""[..])
        );
        assert_eq!(Request::default().opening(None, RequestNames::None, true), Opening::default());
    }

    #[test]
    fn http_1_0_keeps_a_connection_only_on_request() {
        let closes = |version: &str, field: &str| {
            request(&format!("GET / HTTP/{version}\r\n{field}\r\n")).closes()
        };
        assert!(!closes("1.1", "") && closes("1.1", "Connection: x, Close\r\n"));
        assert!(closes("1.0", "") && !closes("1.0", "Connection: Keep-Alive\r\n"));
    }

    #[test]
    fn the_coding_of_a_body_is_the_server_s_business_where_it_is_asked_for() {
        let with = |lines: &str, decompresses: bool| {
            let mut request = request(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
            request.check(9, decompresses).map(|it| it.coding).map_err(|refusal| refusal.code())
        };
        let gzip = "Content-Length: 3\r\nContent-Encoding: gzip\r\n";
        assert_eq!(with(gzip, true), Ok(Some(ContentCoding::Gzip)));
        assert_eq!(with(gzip, false), Ok(None));
        let twice = format!("{gzip}content-encoding: deflate\r\n");
        assert_eq!((with(&twice, true), with(&twice, false)), (Err(415), Ok(None)));
        assert_eq!(with("Content-Length: 0\r\nContent-Encoding: br\r\n", true), Ok(None));
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        for (text, words) in [
            ("GET / HTTP/1.1\r\n\r\n", "No valid host header"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "No valid host header"),
            ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", "Invalid request target"),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT is not supported"),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", "Unexpected Expect header"),
        ] {
            assert_eq!(request(text).check(9, true).unwrap_err().words(), words);
        }
    }
}
