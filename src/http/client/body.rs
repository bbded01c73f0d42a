//! The body of a response: how it is framed, and its bytes.
//!
//! Source: RFC 9112 6.3.

use std::borrow::Cow;
use std::fmt;

use super::head::{ResponseHead, unfold};
use crate::http::wire::chunked::{ChunkedDecoder, ChunkedEvent, ChunkedLimits};
use crate::http::wire::framing::{Coding, repeated_content_length, transfer_coding};
use crate::http::wire::head::Version;
use crate::http::wire::list;

/// Why a body is refused. The connection must then be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The Content-Length fields are malformed or contradict each other.
    Length,
    /// The Transfer-Encoding is not exactly `chunked`.
    Coding,
    /// The response has both a length and a transfer coding, as in response smuggling.
    Ambiguous,
    /// The chunked coding is malformed, or exceeds its limits.
    Chunked,
    /// The connection ended before the body did.
    Truncated,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyError::Length => "invalid Content-Length in response",
            BodyError::Coding => "unsupported Transfer-Encoding in response",
            BodyError::Ambiguous => "response with both Transfer-Encoding and Content-Length",
            BodyError::Chunked => "invalid chunked coding in response",
            BodyError::Truncated => "connection closed before the response was complete",
        })
    }
}

/// The next piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the body, at least one.
    Data(&'a [u8]),
    /// More input is needed.
    More,
    /// The body is complete.
    End,
}

/// How many bytes of input a body occupies, and its content.
pub type Whole<'a> = (usize, Cow<'a, [u8]>);

/// A body being received.
#[derive(Debug, Default)]
pub enum ResponseBody {
    /// There is none, or it is complete.
    #[default]
    End,
    /// This many bytes are missing.
    Length(u64),
    /// Chunked coding.
    Chunked(Box<ChunkedDecoder>),
    /// Everything until the server closes the connection.
    UntilClose,
}

/// What the header fields say about the body, and about the connection after it.
#[derive(Debug)]
pub struct ResponseFraming {
    /// The body.
    pub body: ResponseBody,
    /// Whether the connection can carry another exchange when the body is complete.
    pub persistent: bool,
}

impl ResponseFraming {
    /// Decides by the rules of RFC 9112 6.3, in their order, and 9.3.
    ///
    /// `to_head`: the request was HEAD. `input` is what the head was parsed from.
    pub fn of(
        head: &ResponseHead,
        input: &[u8],
        to_head: bool,
    ) -> Result<ResponseFraming, BodyError> {
        let announced = Announced::read(head, input)?;
        let persistent = match head.version {
            Version::Http11 => !announced.close,
            Version::Http10 => announced.keep_alive && !announced.close,
        };
        let bodyless = matches!(head.status, 100..=199 | 204 | 304);
        if bodyless || to_head {
            // 6.3, 1. A server that announces a body with 1xx or 204 may actually send it.
            let odd = matches!(head.status, 100..=199 | 204)
                && (announced.coding == Coding::Chunked || announced.length.unwrap_or(0) > 0);
            return Ok(ResponseFraming { body: ResponseBody::End, persistent: persistent && !odd });
        }
        let body = match (announced.coding, announced.length) {
            // 6.3, 4; 6.1: the framing of a chunked HTTP/1.0 message is faulty.
            (Coding::Chunked, None) if head.version == Version::Http11 => {
                ResponseBody::Chunked(Box::new(ChunkedDecoder::new(ChunkedLimits::new(u64::MAX))))
            }
            (Coding::Chunked, None) => return Err(BodyError::Coding),
            // 6.3, 3: the coding counts, and the connection is closed after the response.
            (Coding::Chunked, Some(_)) if head.lenient && head.version == Version::Http11 => {
                let decoder = ChunkedDecoder::new(ChunkedLimits::new(u64::MAX));
                let body = ResponseBody::Chunked(Box::new(decoder));
                return Ok(ResponseFraming { body, persistent: false });
            }
            (Coding::Chunked, Some(_)) => return Err(BodyError::Ambiguous),
            // 6.3, 6
            (Coding::Identity, Some(0)) => ResponseBody::End,
            (Coding::Identity, Some(length)) => ResponseBody::Length(length),
            // 6.3, 8
            (Coding::Identity, None) => {
                return Ok(ResponseFraming { body: ResponseBody::UntilClose, persistent: false });
            }
        };
        Ok(ResponseFraming { body, persistent })
    }
}

/// The fields that frame a response.
#[derive(Debug)]
struct Announced {
    length: Option<u64>,
    coding: Coding,
    close: bool,
    keep_alive: bool,
}

impl Announced {
    fn read(head: &ResponseHead, input: &[u8]) -> Result<Announced, BodyError> {
        let (mut lengths, mut codings) = (Vec::new(), Vec::new());
        let (mut close, mut keep_alive) = (false, false);
        for field in &head.fields {
            let value = input.get(field.value.clone()).unwrap_or_default();
            let name = input.get(field.name.clone()).unwrap_or_default();
            if name.eq_ignore_ascii_case(b"content-length") {
                // Recipients read a folded value in different ways.
                if field.folded {
                    return Err(BodyError::Length);
                }
                lengths.push(value);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if field.folded {
                    return Err(BodyError::Coding);
                }
                codings.push(value);
            } else if name.eq_ignore_ascii_case(b"connection") {
                for option in list::elements(&unfold(value)) {
                    close |= option.eq_ignore_ascii_case(b"close");
                    keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
        }
        let length = repeated_content_length(lengths.into_iter()).map_err(|_| BodyError::Length)?;
        if length == Some(u64::MAX) {
            return Err(BodyError::Length);
        }
        let coding = transfer_coding(codings.into_iter()).map_err(|_| BodyError::Coding)?;
        Ok(Announced { length, coding, close, keep_alive })
    }
}

impl ResponseBody {
    /// The next piece in `input`, and how many bytes of input it consumes.
    pub fn take<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Piece<'a>), BodyError> {
        match self {
            ResponseBody::End => Ok((0, Piece::End)),
            _ if input.is_empty() => Ok((0, Piece::More)),
            ResponseBody::UntilClose => Ok((input.len(), Piece::Data(input))),
            ResponseBody::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= length as u64;
                if *left == 0 {
                    *self = ResponseBody::End;
                }
                Ok((length, Piece::Data(input.get(..length).unwrap_or_default())))
            }
            ResponseBody::Chunked(decoder) => match decoder.decode(input) {
                Ok((used, ChunkedEvent::Data(data))) => Ok((used, Piece::Data(data))),
                Ok((used, ChunkedEvent::More)) => Ok((used, Piece::More)),
                Ok((used, ChunkedEvent::End)) => {
                    *self = ResponseBody::End;
                    Ok((used, Piece::End))
                }
                Err(_) => Err(BodyError::Chunked),
            },
        }
    }

    /// The whole body, if `input` contains all of it, and how many bytes it occupies.
    pub fn complete(mut self, input: &[u8]) -> Result<Option<Whole<'_>>, BodyError> {
        let (mut used, mut content) = (0, Cow::Borrowed(&b""[..]));
        loop {
            let (count, piece) = self.take(input.get(used..).unwrap_or_default())?;
            used += count;
            match piece {
                Piece::Data(data) if content.is_empty() => content = Cow::Borrowed(data),
                Piece::Data(data) => content.to_mut().extend_from_slice(data),
                Piece::End => return Ok(Some((used, content))),
                Piece::More => return Ok(None),
            }
        }
    }

    /// Handles EOF: an error unless the body may end there.
    pub fn eof(&mut self) -> Result<(), BodyError> {
        match self {
            ResponseBody::End => Ok(()),
            ResponseBody::UntilClose => {
                *self = ResponseBody::End;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// Whether the body is complete.
    pub fn is_end(&self) -> bool {
        matches!(self, ResponseBody::End)
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::LIMITS;
    use super::*;
    use crate::http::wire::head::HeadProgress;
    use proptest::prelude::*;

    fn framing(status: &str, fields: &[&str], to_head: bool) -> Result<ResponseFraming, BodyError> {
        let input = format!("HTTP/{status} X\r\n{}\r\n\r\n", fields.join("\r\n"));
        let input = input.replace("\r\n\r\n\r\n", "\r\n\r\n");
        let mut head = ResponseHead::default();
        let progress = head.advance(input.as_bytes(), &LIMITS);
        assert!(matches!(progress, Ok(HeadProgress::Complete(_))), "{input:?}: {progress:?}");
        ResponseFraming::of(&head, input.as_bytes(), to_head)
    }

    /// The kind of the body and whether the connection persists.
    fn kind(status: &str, fields: &[&str]) -> Result<(String, bool), BodyError> {
        framing(status, fields, false).map(|framing| {
            let kind = match framing.body {
                ResponseBody::End => "none".to_owned(),
                ResponseBody::Length(length) => length.to_string(),
                ResponseBody::Chunked(_) => "chunked".to_owned(),
                ResponseBody::UntilClose => "until close".to_owned(),
            };
            (kind, framing.persistent)
        })
    }

    fn is(kind: &str, persistent: bool) -> Result<(String, bool), BodyError> {
        Ok((kind.to_owned(), persistent))
    }

    #[test]
    fn rfc_9112_6_3_1_some_responses_have_no_body() {
        for status in ["1.1 100", "1.1 204", "1.1 304"] {
            assert_eq!(kind(status, &[]), is("none", true));
        }
        assert_eq!(kind("1.1 304", &["Content-Length: 5"]), is("none", true));
        let framing = framing("1.1 200", &["Content-Length: 5"], true).unwrap();
        assert!(framing.body.is_end() && framing.persistent);
    }

    #[test]
    fn a_body_announced_where_none_may_be_spoils_the_connection() {
        for field in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            assert_eq!(kind("1.1 204", &[field]), is("none", false));
        }
        assert_eq!(kind("1.1 204", &["Content-Length: 0"]), is("none", true));
    }

    #[test]
    fn rfc_9112_6_3_3_a_length_beside_a_coding_is_refused() {
        let both = ["Transfer-Encoding: chunked", "Content-Length: 5"];
        assert_eq!(kind("1.1 200", &both), Err(BodyError::Ambiguous));
    }

    #[test]
    fn rfc_9112_6_3_4_chunked_alone_is_understood() {
        assert_eq!(kind("1.1 200", &["Transfer-Encoding: Chunked"]), is("chunked", true));
        for value in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "", "chunked;q=1"] {
            let field = format!("Transfer-Encoding: {value}");
            assert_eq!(kind("1.1 200", &[&field]), Err(BodyError::Coding), "{value}");
        }
        assert_eq!(kind("1.0 200", &["Transfer-Encoding: chunked"]), Err(BodyError::Coding));
        assert_eq!(kind("1.1 200", &["Transfer-Encoding:\r\n chunked"]), Err(BodyError::Coding));
    }

    #[test]
    fn rfc_9112_6_3_5_odd_lengths_are_refused() {
        for value in ["", "+5", "-5", "0x5", "5,6", "5 5", "5a", "99999999999999999999"] {
            let field = format!("Content-Length: {value}");
            assert_eq!(kind("1.1 200", &[&field]), Err(BodyError::Length), "{value}");
        }
        let differing = ["Content-Length: 5", "Content-Length: 6"];
        assert_eq!(kind("1.1 200", &differing), Err(BodyError::Length));
        assert_eq!(kind("1.1 200", &["Content-Length: 1\r\n 2"]), Err(BodyError::Length));
        assert_eq!(kind("1.1 200", &["Content-Length: 5", "Content-Length: 5"]), is("5", true));
        assert_eq!(kind("1.1 200", &["Content-Length: 0"]), is("none", true));
    }

    #[test]
    fn rfc_9112_6_3_8_else_the_body_goes_on_until_the_connection_closes() {
        assert_eq!(kind("1.1 200", &[]), is("until close", false));
        assert_eq!(kind("1.0 200", &["Connection: keep-alive"]), is("until close", false));
    }

    #[test]
    fn rfc_9112_9_3_persistence() {
        let length = "Content-Length: 1";
        assert_eq!(kind("1.1 200", &[length]), is("1", true));
        assert_eq!(kind("1.1 200", &[length, "Connection: x, Close"]), is("1", false));
        assert_eq!(kind("1.0 200", &[length]), is("1", false));
        assert_eq!(kind("1.0 200", &[length, "Connection: Keep-Alive"]), is("1", true));
    }

    #[test]
    fn a_body_is_no_longer_than_announced() {
        let mut body = ResponseBody::Length(3);
        assert_eq!(body.take(b"ab"), Ok((2, Piece::Data(b"ab"))));
        assert_eq!(body.take(b""), Ok((0, Piece::More)));
        assert_eq!(body.take(b"cde"), Ok((1, Piece::Data(b"c"))));
        assert_eq!(body.take(b"de"), Ok((0, Piece::End)));
    }

    #[test]
    fn a_body_that_is_all_there_is_taken_at_once() {
        let whole = |body: ResponseBody, input: &'static [u8]| {
            body.complete(input).map(|found| found.map(|(length, _)| length))
        };
        assert_eq!(whole(ResponseBody::End, b"abc"), Ok(Some(0)));
        assert_eq!(whole(ResponseBody::Length(3), b"abcd"), Ok(Some(3)));
        assert_eq!(whole(ResponseBody::Length(3), b"ab"), Ok(None));
        assert_eq!(whole(ResponseBody::UntilClose, b"abc"), Ok(None));
        let chunked =
            || ResponseBody::Chunked(Box::new(ChunkedDecoder::new(ChunkedLimits::new(u64::MAX))));
        assert_eq!(whole(chunked(), b"1\r\na\r\n"), Ok(None));
        assert_eq!(whole(chunked(), b"x"), Err(BodyError::Chunked));
    }

    #[test]
    fn the_end_of_the_connection_ends_only_bodies_without_length() {
        assert_eq!(ResponseBody::UntilClose.eof(), Ok(()));
        assert_eq!(ResponseBody::End.eof(), Ok(()));
        assert_eq!(ResponseBody::Length(1).eof(), Err(BodyError::Truncated));
        let decoder = ChunkedDecoder::new(ChunkedLimits::new(u64::MAX));
        assert_eq!(ResponseBody::Chunked(Box::new(decoder)).eof(), Err(BodyError::Truncated));
    }

    proptest! {
        #[test]
        fn any_split_of_a_chunked_body_gives_the_same_bytes(
            chunks in prop::collection::vec("[a-z]{1,9}", 0..5),
            size in 1usize..9,
        ) {
            let mut input: String =
                chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
            input.push_str("0\r\n\r\nrest");
            let decoder = ChunkedDecoder::new(ChunkedLimits::new(u64::MAX));
            let whole = ResponseBody::Chunked(Box::new(decoder)).complete(input.as_bytes());
            let (length, content) = whole.unwrap().unwrap();
            prop_assert_eq!(content.into_owned(), chunks.concat().into_bytes());
            prop_assert_eq!(length, input.len() - 4);
            let decoder = ChunkedDecoder::new(ChunkedLimits::new(u64::MAX));
            let mut body = ResponseBody::Chunked(Box::new(decoder));
            let (mut received, mut used) = (Vec::new(), 0);
            while !body.is_end() {
                let window = &input.as_bytes()[used..(used + size).min(input.len())];
                let (n, piece) = body.take(window).unwrap();
                if let Piece::Data(data) = piece {
                    received.extend_from_slice(data);
                }
                used += n;
            }
            prop_assert_eq!(received, chunks.concat().into_bytes());
            prop_assert_eq!(&input[used..], "rest");
        }
    }
}
