//! Refusals: complete error responses to requests that never reach the handler.

use std::borrow::Cow;

/// Why a request is refused: a status and, optionally, an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status code and reason phrase, e.g. `400 Bad Request`.
    pub status: &'static str,
    /// An explanation for people; empty if the status suffices.
    pub sentence: Cow<'static, str>,
    /// Further header lines, complete.
    fields: &'static str,
}

impl Refusal {
    /// The status code.
    pub fn code(&self) -> u16 {
        self.status.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    const fn new(status: &'static str, sentence: &'static str) -> Self {
        Refusal { status, sentence: Cow::Borrowed(sentence), fields: "" }
    }

    /// 400: the request does not follow RFC 9112.
    pub const fn bad_request(sentence: &'static str) -> Self {
        Refusal::new("400 Bad Request", sentence)
    }

    /// 408: the client was too slow.
    pub const fn timeout(sentence: &'static str) -> Self {
        Refusal::new("408 Request Timeout", sentence)
    }

    /// 413: the body is larger than allowed.
    pub const fn content_too_large(sentence: &'static str) -> Self {
        Refusal::new("413 Content Too Large", sentence)
    }

    /// 414: the request line is longer than allowed.
    pub const fn uri_too_long() -> Self {
        Refusal::new("414 URI Too Long", "")
    }

    /// 415: the handler asks for a form, but the body is not one.
    pub const fn unsupported_media_type(sentence: &'static str) -> Self {
        Refusal::new("415 Unsupported Media Type", sentence)
    }

    /// 415: the body has a content coding that is not decoded; the response says which are (RFC 9110 12.5.3).
    pub const fn unsupported_coding() -> Self {
        let (status, sentence) = ("415 Unsupported Media Type", "Unsupported Content-Encoding");
        let fields = "Accept-Encoding: gzip, deflate\r\n";
        Refusal { status, sentence: Cow::Borrowed(sentence), fields }
    }

    /// 417: an expectation other than `100-continue`.
    pub const fn expectation_failed(sentence: &'static str) -> Self {
        Refusal::new("417 Expectation Failed", sentence)
    }

    /// 431: header fields too large or too many.
    pub const fn fields_too_large(sentence: &'static str) -> Self {
        Refusal::new("431 Request Header Fields Too Large", sentence)
    }

    /// 500: the handler failed before it sent a status.
    pub const fn internal_error() -> Self {
        Refusal::new("500 Internal Server Error", "")
    }

    /// 501: a transfer coding that is not implemented.
    pub const fn not_implemented(sentence: &'static str) -> Self {
        Refusal::new("501 Not Implemented", sentence)
    }

    /// 505: not HTTP/1.x.
    pub const fn version_not_supported() -> Self {
        Refusal::new("505 HTTP Version Not Supported", "")
    }

    /// The refusal for an error of a body parser: 400, 413 or 431, and the reason.
    pub fn of_body(status: u16, sentence: impl ToString) -> Self {
        let refusal = match status {
            413 => Refusal::content_too_large(""),
            431 => Refusal::fields_too_large(""),
            _ => Refusal::bad_request(""),
        };
        Refusal { sentence: Cow::Owned(sentence.to_string()), ..refusal }
    }

    /// The text to raise in the handler: the explanation, or the status if there is none.
    pub fn words(&self) -> &str {
        if self.sentence.is_empty() { self.status } else { &self.sentence }
    }

    /// Appends the whole response to `out`; without a body in answer to HEAD (RFC 9110 9.3.2).
    ///
    /// `static_headers` are complete header lines, `date` the value of Date.
    pub fn write(&self, out: &mut Vec<u8>, static_headers: &[u8], date: Option<&[u8]>, head: bool) {
        let blank = if self.sentence.is_empty() { "" } else { "\n" };
        let body = [self.status, "\n", blank, &self.sentence, blank];
        let Refusal { status, fields, .. } = *self;
        ErrorResponse { status, fields, media_type: "text/plain" }.write(
            out,
            static_headers,
            date,
            &body,
            head,
        );
    }
}

/// A complete response of the server's own, after which the connection is closed: all but its body.
#[derive(Clone, Copy, Debug)]
pub struct ErrorResponse<'a> {
    /// Status code and reason phrase.
    pub status: &'a str,
    /// Further header lines, complete.
    pub fields: &'a str,
    /// Its Content-Type.
    pub media_type: &'a str,
}

impl ErrorResponse<'_> {
    /// Appends the response to `out`, as [`Refusal::write`].
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        static_headers: &[u8],
        date: Option<&[u8]>,
        body: &[&str],
        head: bool,
    ) {
        for part in ["HTTP/1.1 ", self.status, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(static_headers);
        if let Some(date) = date {
            for part in [b"Date: ".as_slice(), date, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        let length: usize = body.iter().map(|part| part.len()).sum();
        let length = length.to_string();
        let lines = ["Connection: close\r\n", self.fields, "Content-Type: ", self.media_type];
        for part in lines.into_iter().chain(["\r\nContent-Length: ", &length, "\r\n\r\n"]) {
            out.extend_from_slice(part.as_bytes());
        }
        for part in body.iter().filter(|_| !head) {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(refusal: Refusal, head: bool) -> String {
        let mut out = Vec::new();
        refusal.write(&mut out, b"X-A: b\r\n", None, head);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_refusal_is_a_complete_plain_text_response_that_closes() {
        assert_eq!(
            written(Refusal::bad_request("No valid host header"), false),
            "HTTP/1.1 400 Bad Request\r\nX-A: b\r\nConnection: close\r\nContent-Type: text/plain\r\n\
             Content-Length: 38\r\n\r\n400 Bad Request\n\nNo valid host header\n"
        );
        assert_eq!(Refusal::uri_too_long().code(), 414);
        assert!(written(Refusal::uri_too_long(), false).ends_with("17\r\n\r\n414 URI Too Long\n"));
    }

    #[test]
    fn head_gets_no_body() {
        assert!(written(Refusal::uri_too_long(), true).ends_with("Content-Length: 17\r\n\r\n"));
    }
}
