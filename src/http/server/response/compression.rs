//! Compression of response bodies: whether a response is compressed, and how its head says so.
//!
//! Source: RFC 9110 8.4, 12.5.3 and 12.5.5.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use flate2::Compression as Level;
use flate2::write::GzEncoder;

use super::{LENGTH_EXCEEDED, LENGTH_NOT_USED};
use crate::http::wire::accept_encoding::AcceptEncoding;
use crate::http::wire::header_lines::{Misuse, push_header};
use crate::http::wire::list::{elements, trim};
use crate::sys::os::output_slot::Encode;

/// The content coding.
const CODING: &str = "gzip";

/// Types that become much smaller, beside text and what ends with `+json` or `+xml`.
const TYPES: [&str; 9] = [
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/xml",
    "application/wasm",
    "application/x-ndjson",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
];

/// The option `compress` of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressing {
    /// From 1, fast, to 9, small.
    pub level: u32,
    /// Bodies that are known to be shorter, in bytes, stay as they are.
    pub minimum: u64,
    /// The media types that are compressed; `None`: those that become much smaller.
    pub types: Option<Vec<String>>,
}

impl Default for Compressing {
    fn default() -> Self {
        Compressing { level: 5, minimum: 256, types: None }
    }
}

impl Compressing {
    fn has_type(&self, media_type: &[u8]) -> bool {
        let essence = media_type.split(|byte| *byte == b';').next().unwrap_or_default();
        let essence = String::from_utf8_lossy(trim(essence)).to_ascii_lowercase();
        match &self.types {
            Some(types) => types.contains(&essence),
            // Events are to arrive one by one, and most proxies and clients wait for more of a compressed stream.
            None if essence == "text/event-stream" => false,
            None => {
                essence.starts_with("text/")
                    || essence.ends_with("+json")
                    || essence.ends_with("+xml")
                    || TYPES.contains(&essence.as_str())
            }
        }
    }

    /// Whether a response with these header lines is one of those that are compressed for clients that accept it.
    /// `length` is the announced length.
    pub fn suits(&self, lines: &[u8], status: u16, length: Option<u64>) -> bool {
        let is_complete = !matches!(status, 100..=199 | 204 | 205 | 206);
        // A 304 response does not have the type of the response that it replaces (RFC 9110 15.4.5).
        let has_type = |value| self.has_type(value);
        is_complete
            && (status == 304 || field(lines, b"content-type").is_some_and(has_type))
            && field(lines, b"content-encoding").is_none()
            && field(lines, b"content-range").is_none()
            && !values(lines, b"cache-control").any(|value| has(value, b"no-transform"))
            && length.is_none_or(|length| length >= self.minimum)
    }

    /// Of a response that [suits](Compressing::suits), whose header lines stand in `head` from `start` on: they say that it
    /// varies with Accept-Encoding and, if the client `accepts` it, that it is compressed. Returns what compresses the
    /// body then.
    pub fn begin(
        &self,
        head: &mut Vec<u8>,
        start: usize,
        status: u16,
        length: Option<u64>,
        accepts: bool,
    ) -> Option<Encoder> {
        let lines = head.get(start..).unwrap_or_default();
        if !values(lines, b"vary").any(|value| has(value, b"accept-encoding") || has(value, b"*")) {
            push_header(head, b"Vary", b"Accept-Encoding");
        }
        if !accepts {
            return None;
        }
        rewrite(head, start);
        if status == 304 {
            return None;
        }
        push_header(head, b"Content-Encoding", CODING.as_bytes());
        let gzip = GzEncoder::new(Vec::new(), Level::new(self.level));
        Some(Encoder { gzip, announced: length, taken: 0, has_rest: false })
    }
}

/// Whether the value of Accept-Encoding accepts the coding.
pub fn accepts(accept_encoding: &[u8]) -> bool {
    AcceptEncoding::new(accept_encoding).choose([CODING]).is_some()
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split_inclusive(|byte| *byte == b'\n')
}

/// The value of a line if it is of that field, whose name is in lower case.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (before, after) = line.split_at_checked(name.len())?;
    let value = after.strip_prefix(b":")?;
    before.eq_ignore_ascii_case(name).then(|| trim(value.strip_suffix(b"\r\n").unwrap_or(value)))
}

fn values<'a>(head: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    lines(head).filter_map(move |line| value(line, name))
}

fn field<'a>(head: &'a [u8], name: &'a [u8]) -> Option<&'a [u8]> {
    values(head, name).next()
}

fn has(list: &[u8], element: &[u8]) -> bool {
    elements(list).any(|other| other.eq_ignore_ascii_case(element))
}

/// Without Content-Length, and with a weak ETag: the bytes are not those that it names.
fn rewrite(head: &mut Vec<u8>, start: usize) {
    let mut rest = Vec::with_capacity(head.len() - start + 2);
    for line in lines(&head[start..]) {
        if value(line, b"content-length").is_some() {
            continue;
        }
        match value(line, b"etag") {
            Some(tag) if tag.starts_with(b"\"") => {
                push_header(&mut rest, b"ETag", &[b"W/", tag].concat());
            }
            _ => rest.extend_from_slice(line),
        }
    }
    head.truncate(start);
    head.extend_from_slice(&rest);
}

/// A body that is being compressed.
#[derive(Debug)]
pub struct Encoder {
    gzip: GzEncoder<Vec<u8>>,
    /// Its length before, where that was announced.
    announced: Option<u64>,
    taken: u64,
    /// It may have kept something of what it has taken.
    has_rest: bool,
}

impl Encoder {
    /// The announced length, and how much of it has come.
    pub fn length(&self) -> Option<(u64, u64)> {
        self.announced.map(|announced| (announced, self.taken))
    }

    /// Takes a piece; what of the compressed body is ready, perhaps nothing yet.
    ///
    /// # Errors
    /// More comes than was announced.
    pub fn take(&mut self, piece: &[u8]) -> Result<Vec<u8>, Misuse> {
        let taken = self.taken + piece.len() as u64;
        if self.announced.is_some_and(|announced| taken > announced) {
            return Err(LENGTH_EXCEEDED);
        }
        (self.taken, self.has_rest) = (taken, true);
        Ok(self.ready(|gzip| gzip.write_all(piece)))
    }

    /// Whether a flush gives anything.
    pub fn has_rest(&self) -> bool {
        self.has_rest
    }

    /// What of the compressed body makes all that was taken readable.
    pub fn flush(&mut self) -> Vec<u8> {
        self.has_rest = false;
        self.ready(GzEncoder::flush)
    }

    /// The end of the compressed body.
    ///
    /// # Errors
    /// Less came than was announced.
    pub fn finish(&mut self) -> Result<Vec<u8>, Misuse> {
        if self.announced.is_some_and(|announced| self.taken < announced) {
            return Err(LENGTH_NOT_USED);
        }
        self.has_rest = false;
        Ok(self.ready(GzEncoder::try_finish))
    }

    /// Writing to memory does not fail.
    fn ready(&mut self, write: impl FnOnce(&mut GzEncoder<Vec<u8>>) -> io::Result<()>) -> Vec<u8> {
        let _ = write(&mut self.gzip);
        std::mem::take(self.gzip.get_mut())
    }
}

impl Encode for Mutex<Encoder> {
    fn take_rest(&self) -> Vec<u8> {
        self.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn begin(lines: &str, status: u16, length: Option<u64>, accepts: bool) -> (String, bool) {
        let mut head = lines.replace('\n', "\r\n").into_bytes();
        let compressing = Compressing::default();
        let suits = compressing.suits(&head, status, length);
        let encoder = suits.then(|| compressing.begin(&mut head, 0, status, length, accepts));
        let encoder = encoder.flatten();
        (String::from_utf8(head).unwrap().replace("\r\n", "\n"), encoder.is_some())
    }

    #[test]
    fn the_head_says_that_the_body_is_compressed() {
        let (head, compresses) = begin(
            "HTTP/1.1 200 OK\nContent-Type: text/html; charset=utf-8\nContent-Length: 1000\nETag: \"a\"\n",
            200,
            Some(1000),
            true,
        );
        let expected = "HTTP/1.1 200 OK\nContent-Type: text/html; charset=utf-8\nETag: W/\"a\"\n\
                        Vary: Accept-Encoding\nContent-Encoding: gzip\n";
        assert!(compresses);
        assert_eq!(head, expected);
    }

    #[test]
    fn what_could_be_compressed_varies_also_for_who_does_not_accept_it() {
        let (head, compresses) =
            begin("A: b\nContent-Type: application/problem+json\nVary: Cookie\n", 200, None, false);
        assert!(!compresses);
        assert_eq!(
            head,
            "A: b\nContent-Type: application/problem+json\nVary: Cookie\nVary: Accept-Encoding\n"
        );
        let varies = "Content-Type: text/css\nVary: Cookie, accept-encoding\n";
        assert_eq!(begin(varies, 200, None, false).0, varies);
    }

    #[test]
    fn rfc_9110_15_4_5_304_says_of_the_response_what_that_would_say() {
        let head = "ETag: \"a\"\n";
        let varies = format!("{head}Vary: Accept-Encoding\n");
        assert_eq!(begin(head, 304, None, false), (varies.clone(), false));
        assert_eq!(begin(head, 304, None, true), (varies.replace("\"a", "W/\"a"), false));
        let other = "ETag: \"a\"\nCache-Control: no-transform\n";
        assert_eq!(begin(other, 304, None, true), (other.to_owned(), false));
    }

    #[test]
    fn what_is_small_compressed_partial_or_of_another_type_stays() {
        let text = "Content-Type: text/plain\n";
        for (lines, status, length) in [
            (text.to_owned(), 200, Some(255)),
            (text.to_owned(), 206, None),
            (text.to_owned(), 204, None),
            (format!("{text}Content-Encoding: br\n"), 200, None),
            (format!("{text}Content-Range: bytes 0-1/2\n"), 200, None),
            (format!("{text}Cache-Control: private, no-transform\n"), 200, None),
            (format!("{text}Cache-Control: private\nCache-Control: No-Transform\n"), 200, None),
            ("Content-Type: image/png\n".to_owned(), 200, None),
            ("Content-Type: text/event-stream\n".to_owned(), 200, None),
            ("A: b\n".to_owned(), 200, None),
        ] {
            assert_eq!(begin(&lines, status, length, true), (lines, false));
        }
        for (lines, status) in [(text, 200), (text, 404), ("CONTENT-TYPE:image/svg+xml\n", 200)] {
            assert!(begin(lines, status, None, true).1, "{lines}");
        }
    }

    #[test]
    fn a_body_is_readable_up_to_each_flush_and_has_the_announced_length() {
        let mut head = b"Content-Type: text/plain\r\n".to_vec();
        let compressing = Compressing { minimum: 0, ..Compressing::default() };
        let mut encoder = compressing.begin(&mut head, 0, 200, Some(12), true).unwrap();
        let mut sent = encoder.take(b"hello ").unwrap();
        sent.extend(encoder.flush());
        let mut text = [0; 6];
        GzDecoder::new(&sent[..]).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello ");
        assert_eq!(encoder.length(), Some((12, 6)));
        assert_eq!(encoder.finish(), Err(LENGTH_NOT_USED));
        sent.extend(encoder.take(b"world!").unwrap());
        assert_eq!(encoder.take(b"!"), Err(LENGTH_EXCEEDED));
        sent.extend(encoder.finish().unwrap());
        let mut text = String::new();
        GzDecoder::new(&sent[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello world!");
    }
}
