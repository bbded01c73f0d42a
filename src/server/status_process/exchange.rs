//! Requests and responses on one connection of the status process, as bytes: no body is ever taken, and
//! requests are answered one after the other.

use crate::http::wire::head::{Field, Head, HeadLimits, HeadProgress, Known, Version};
use crate::http::wire::list::elements;
use crate::http::wire::refusal::Refusal;
use crate::http::wire::uri::Target;

/// Requests for the status have short heads.
const LIMITS: HeadLimits = HeadLimits { head: 8 * 1024, fields: 64 };

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRequest<'a> {
    /// The path without its leading slash, and without what follows a question mark.
    pub path: &'a [u8],
    /// The value of the header field Accept.
    pub accept: &'a [u8],
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusResponse {
    /// Status code and reason phrase.
    pub status: &'static str,
    /// The media type of the body.
    pub media_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl StatusResponse {
    /// A line of text.
    pub fn line(status: &'static str, text: &str) -> Self {
        let body = format!("{text}\n").into_bytes();
        StatusResponse { status, media_type: "text/plain; charset=utf-8", body }
    }
}

/// One connection, as bytes.
#[derive(Debug, Default)]
pub struct Exchange {
    input: Vec<u8>,
    head: Head,
    output: Vec<u8>,
    sent: usize,
    ends: bool,
    /// The next request is the last one.
    is_last: bool,
    /// A request was answered.
    has_answered: bool,
}

impl Exchange {
    /// Takes what the client has sent, and answers each request that is complete.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        mut answer: impl FnMut(StatusRequest<'_>) -> StatusResponse,
    ) {
        if self.ends {
            return;
        }
        self.input.extend_from_slice(bytes);
        while !self.ends {
            match self.head.advance(&self.input, &LIMITS) {
                Ok(HeadProgress::Partial) => return,
                Ok(HeadProgress::Complete(size)) => {
                    self.respond(&mut answer);
                    self.input.drain(..size);
                    self.head.clear();
                }
                Err(refusal) => {
                    refusal.write(&mut self.output, b"", None, false);
                    self.ends = true;
                }
            }
        }
        self.input.clear();
    }

    fn respond(&mut self, answer: &mut impl FnMut(StatusRequest<'_>) -> StatusResponse) {
        self.has_answered = true;
        let (head, input) = (&self.head, &self.input[..]);
        let method = head.method.of(input);
        let is_head = method == b"HEAD";
        let of = |known| head.fields.iter().filter(move |field: &&Field| field.known == known);
        let has_body = of(Known::TransferEncoding).next().is_some()
            || of(Known::ContentLength).any(|field| field.value.of(input) != b"0");
        let closes = of(Known::Connection)
            .flat_map(|field| elements(field.value.of(input)))
            .any(|option| option.eq_ignore_ascii_case(b"close"));
        let is_hostless = head.version == Version::Http11 && of(Known::Host).count() != 1;
        if is_hostless {
            Refusal::bad_request("No valid host header").write(
                &mut self.output,
                b"",
                None,
                is_head,
            );
            self.ends = true;
            return;
        }
        self.ends = self.is_last || closes || has_body || head.version == Version::Http10;
        let mut extra = "";
        let response = if is_head || method == b"GET" {
            let path = match Target::parse(method, head.target.of(input)) {
                Ok(Target::Resource { path, .. }) => path,
                _ => b"",
            };
            let named = |field: &&Field| field.name.of(input).eq_ignore_ascii_case(b"accept");
            let accept = head.fields.iter().find(named).map(|field| field.value.of(input));
            answer(StatusRequest { path, accept: accept.unwrap_or_default() })
        } else {
            extra = "Allow: GET, HEAD\r\n";
            StatusResponse::line("405 Method Not Allowed", "Only GET and HEAD are allowed")
        };
        let StatusResponse { status, media_type, body } = response;
        let connection = if self.ends { "Connection: close\r\n" } else { "" };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\
             Cache-Control: no-store\r\n{extra}{connection}\r\n"
        );
        self.output.extend_from_slice(head.as_bytes());
        if !is_head {
            self.output.extend_from_slice(&body);
        }
    }

    /// What is to be sent.
    pub fn output(&self) -> &[u8] {
        self.output.get(self.sent..).unwrap_or_default()
    }

    /// So many bytes of it were sent.
    pub fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
    }

    /// A request that has begun is the last one, and so is the first one of a connection that has had none.
    /// True if nothing is to come, and nothing to be sent.
    pub fn end(&mut self) -> bool {
        self.is_last = true;
        self.has_answered && self.input.is_empty() && self.output.is_empty()
    }

    /// Nothing more is read: the connection ends when everything is sent.
    pub fn ends(&self) -> bool {
        self.ends
    }

    /// Whether a request has begun that is not complete.
    pub fn has_begun(&self) -> bool {
        !self.input.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(pieces: &[&str]) -> (String, bool) {
        let mut exchange = Exchange::default();
        for piece in pieces {
            exchange.receive(piece.as_bytes(), |request| {
                let (path, accept) = (request.path, request.accept);
                let text = [path, b" ", accept].concat();
                StatusResponse::line("200 OK", &String::from_utf8_lossy(&text))
            });
        }
        (String::from_utf8(exchange.output().to_vec()).unwrap(), exchange.ends())
    }

    #[test]
    fn requests_are_answered_one_after_the_other_however_they_arrive() {
        let text = "GET /a?b HTTP/1.1\r\nHost: x\r\naccept: y\r\n\r\n\
                    HEAD /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /d HTTP/1.1\r\n";
        let whole = exchange(&[text]);
        let bytes: Vec<&str> = text.split_inclusive("").collect();
        assert_eq!(exchange(&bytes), whole);
        let (output, ends) = whole;
        assert!(ends);
        assert_eq!(output.matches("HTTP/1.1 200 OK\r\n").count(), 2);
        assert!(output.contains("no-store\r\n\r\na y\nHTTP/1.1"), "{output}");
        assert!(output.ends_with(
            "Content-Length: 3\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        ));
    }

    #[test]
    fn a_target_may_be_an_absolute_uri() {
        let (output, _) = exchange(&["GET http://x/live?b HTTP/1.1\r\nHost: x\r\n\r\n"]);
        assert!(output.ends_with("\r\n\r\nlive \n"), "{output}");
    }

    #[test]
    fn old_clients_and_bodies_end_the_connection() {
        for text in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /",
            "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            let (output, ends) = exchange(&[text]);
            assert!(ends && output.contains("Connection: close\r\n"), "{output}");
            assert_eq!(output.matches("HTTP/1.1 ").count(), 1);
        }
        assert!(!exchange(&["GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"]).1);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "x".repeat(9000));
        for (text, status) in [
            ("POST /live HTTP/1.1\r\nHost: x\r\n\r\n", "405 Method Not Allowed\r\n"),
            ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request\r\n"),
            ("nonsense\r\n\r\n", "400 Bad Request\r\n"),
            ("GET / HTTP/2.0\r\n\r\n", "505 HTTP Version Not Supported\r\n"),
            (&long, "431 Request Header Fields Too Large\r\n"),
        ] {
            let (output, _) = exchange(&[text]);
            assert!(output.starts_with(&format!("HTTP/1.1 {status}")), "{text}: {output}");
        }
        assert!(
            exchange(&["POST / HTTP/1.1\r\nHost: x\r\n\r\n"]).0.contains("Allow: GET, HEAD\r\n")
        );
    }

    #[test]
    fn the_first_request_is_answered_also_at_the_end() {
        let answer = |_: StatusRequest<'_>| StatusResponse::line("200 OK", "x");
        let mut exchange = Exchange::default();
        assert!(!exchange.end(), "its request may be on its way");
        exchange.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", answer);
        assert!(exchange.ends() && !exchange.output().is_empty());
        let mut persistent = Exchange::default();
        persistent.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", answer);
        persistent.sent(persistent.output().len());
        assert!(!persistent.ends() && persistent.end());
    }

    #[test]
    fn output_is_sent_in_pieces() {
        let mut exchange = Exchange::default();
        exchange.receive(b"GET / HTTP/1.0\r\n\r\n", |_| StatusResponse::line("200 OK", "x"));
        let length = exchange.output().len();
        exchange.sent(10);
        assert_eq!(exchange.output().len(), length - 10);
        exchange.sent(length - 10);
        assert!(exchange.output().is_empty() && exchange.ends());
    }
}
