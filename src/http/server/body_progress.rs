//! Whether the body of a request is there completely, before the handler is called (option
//! `request_buffering`).

use crate::http::wire::chunked::{ChunkedDecoder, ChunkedEvent, ChunkedLimits};
use crate::http::wire::framing::{self, Framing};
use crate::http::wire::head::{Head, Known, Version};
use crate::http::wire::list::elements;

/// How far a body that is waited for has been seen.
#[derive(Debug, Default)]
pub struct BodyProgress {
    decoder: Option<Box<ChunkedDecoder>>,
    /// Bytes after the head that the decoder has seen.
    seen: usize,
    /// The body is too large, or not what it should be.
    given_up: bool,
    /// The client knows that it may send the body.
    promised: bool,
    /// The head was checked: the request is not refused before its body is there.
    pub checked: bool,
    /// How many bytes were missing at the last look, where that is known.
    pub missing: Option<u64>,
}

/// Which bodies are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Up to that many bytes.
    pub limit: u64,
    /// Also those whose length is not announced, or whose client asks before it sends them.
    pub all: bool,
}

impl BodyProgress {
    /// Whether more of the body has to be waited for. `input` begins with the complete head, which
    /// has `size` bytes.
    ///
    /// A body that is not wanted is not waited for, nor one that is framed wrongly or comes
    /// with an unknown expectation: the handler, or a refusal, deals with those.
    pub fn lacks(&mut self, head: &Head, input: &[u8], size: usize, wanted: Wanted) -> bool {
        let Wanted { limit, all } = wanted;
        let values = |known: Known| head.of_kind(known).map(|field| field.value.of(input));
        let known = |expectation: &[u8]| expectation.eq_ignore_ascii_case(b"100-continue");
        let mut expectations = values(Known::Expect).flat_map(elements);
        if head.version == Version::Http11 && !expectations.all(|text| all && known(text)) {
            return false;
        }
        let framing = framing::content_length(values(Known::ContentLength)).and_then(|length| {
            let coding = framing::transfer_coding(values(Known::TransferEncoding))?;
            framing::decide(head.version, length, coding)
        });
        let body = input.get(size..).unwrap_or_default();
        match framing {
            Ok(Framing::Length(length)) => {
                let missing = length.saturating_sub(body.len() as u64);
                self.missing = Some(missing);
                length <= limit && missing > 0
            }
            Ok(Framing::Chunked) => all && !self.given_up && self.lacks_chunks(body, limit),
            Ok(Framing::Empty) | Err(_) => false,
        }
    }

    /// Whether the client is to be told, before the body is waited for, that it may send it
    /// (RFC 9110 10.1.1): once, and only if nothing of the body is there.
    pub fn owes_continue(&mut self, head: &Head, received: usize, size: usize) -> bool {
        let waits = head.version == Version::Http11
            && received == size
            && head.of_kind(Known::Expect).next().is_some();
        waits && !std::mem::replace(&mut self.promised, true)
    }

    fn lacks_chunks(&mut self, body: &[u8], limit: u64) -> bool {
        let decoder = self
            .decoder
            .get_or_insert_with(|| Box::new(ChunkedDecoder::new(ChunkedLimits::new(limit))));
        loop {
            match decoder.decode(body.get(self.seen..).unwrap_or_default()) {
                Ok((used, ChunkedEvent::Data(_))) => self.seen += used,
                Ok((used, ChunkedEvent::More)) => {
                    self.seen += used;
                    return true;
                }
                Ok((_, ChunkedEvent::End)) => return false,
                Err(_) => {
                    self.given_up = true;
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::head::HeadLimits;

    /// For each number of bytes of `request` that have come: whether more is waited for.
    fn waits(request: &str, limit: u64) -> Vec<bool> {
        waits_for(request, Wanted { limit, all: true })
    }

    fn waits_for(request: &str, wanted: Wanted) -> Vec<bool> {
        let (mut head, mut progress) = (Head::default(), BodyProgress::default());
        let size = request.find("\r\n\r\n").unwrap() + 4;
        head.advance(request.as_bytes(), &HeadLimits { head: 1000, fields: 10 }).unwrap();
        let pieces = size..=request.len();
        pieces.map(|end| progress.lacks(&head, &request.as_bytes()[..end], size, wanted)).collect()
    }

    #[test]
    fn a_body_of_known_length_is_waited_for() {
        let request = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(waits(request, 3), [true, true, true, false]);
        assert_eq!(waits(request, 2), [false; 4]);
    }

    #[test]
    fn a_chunked_body_is_waited_for_as_far_as_it_is_allowed() {
        let request = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        let mut expected = [true; 12];
        expected[11] = false;
        assert_eq!(waits(request, 1), expected);
        assert!(waits(request, 0)[4..].iter().all(|waits| !waits));
    }

    #[test]
    fn a_client_that_asks_is_told_once_that_it_may_send_the_body() {
        let request = "POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(waits(request, 3), [true]);
        let (mut head, mut progress, size) =
            (Head::default(), BodyProgress::default(), request.len());
        head.advance(request.as_bytes(), &HeadLimits { head: 1000, fields: 10 }).unwrap();
        assert!(!progress.owes_continue(&head, size + 1, size));
        assert!(progress.owes_continue(&head, size, size));
        assert!(!progress.owes_continue(&head, size, size));
    }

    #[test]
    fn unless_told_so_only_bodies_that_come_by_themselves_and_say_how_long_they_are() {
        let wanted = Wanted { limit: 100, all: false };
        let request = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n");
        assert_eq!(waits_for(&request("Content-Length: 3\r\n"), wanted), [true]);
        assert_eq!(waits_for(&request("Transfer-Encoding: chunked\r\n"), wanted), [false]);
        let expects = "Expect: 100-continue\r\nContent-Length: 3\r\n";
        assert_eq!(waits_for(&request(expects), wanted), [false]);
    }

    #[test]
    fn others_are_not_waited_for() {
        for fields in ["", "Content-Length: x\r\n", "Expect: wonders\r\nContent-Length: 3\r\n"] {
            assert_eq!(waits(&format!("POST / HTTP/1.1\r\n{fields}\r\n"), 9), [false], "{fields}");
        }
    }
}
