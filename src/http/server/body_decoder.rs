//! The decoder of a request's body (pure): input of the connection in, bytes of the body out.

use crate::http::wire::chunked::{ChunkedDecoder, ChunkedError, ChunkedEvent, ChunkedLimits};
use crate::http::wire::content_coding::{ContentCoding, ContentDecoder};
use crate::http::wire::framing::Framing;
use crate::http::wire::refusal::Refusal;

/// The memory that is kept for the next body, in bytes.
const KEEP: usize = 64 * 1024;

/// How much of a compressed body is taken out of its framing at once.
const PIECE: usize = 16 * 1024;

/// How much memory an announced length alone can claim.
const ROOM: usize = 1 << 20;

/// What is left to be received.
#[derive(Debug, Default)]
enum Due {
    #[default]
    Nothing,
    Length(u64),
    Chunked(Box<ChunkedDecoder>),
}

/// A body, as far as it was decoded.
#[derive(Debug, Default)]
pub struct BodyDecoder {
    due: Due,
    /// What decompresses it; none any more once all was.
    content: Option<Box<ContentDecoder>>,
    /// Decoded and not yet read, after `start`.
    decoded: Vec<u8>,
    start: usize,
    /// Whether the body is thrown away as it comes.
    discards: bool,
    /// Bytes of input that were used.
    received: u64,
}

impl BodyDecoder {
    /// Prepares for the body of the next request, which has at most `limit` bytes.
    pub fn begin(&mut self, framing: Framing, limit: u64) {
        self.decoded.clear();
        self.decoded.shrink_to(KEEP);
        self.start = 0;
        self.discards = false;
        self.received = 0;
        self.content = None;
        self.due = match framing {
            Framing::Empty => Due::Nothing,
            Framing::Length(length) => Due::Length(length),
            Framing::Chunked => {
                Due::Chunked(Box::new(ChunkedDecoder::new(ChunkedLimits::new(limit))))
            }
        };
    }

    /// The body has that content coding, and is read without it: at most `limit` bytes.
    pub fn decompress(&mut self, coding: ContentCoding, limit: u64) {
        if !self.is_received() {
            self.content = Some(Box::new(ContentDecoder::new(coding, limit)));
        }
    }

    /// Whether all of the body was received and decompressed; decoded bytes may still wait.
    pub fn is_received(&self) -> bool {
        matches!(self.due, Due::Nothing) && self.content.is_none()
    }

    /// Whether nothing of it is left to be decompressed.
    pub fn is_plain(&self) -> bool {
        self.content.is_none()
    }

    /// Decoded bytes that wait for a reader.
    pub fn ready(&self) -> &[u8] {
        self.decoded.get(self.start..).unwrap_or_default()
    }

    /// Drops `n` of the bytes that wait.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start >= self.decoded.len() {
            self.decoded.clear();
            self.start = 0;
        }
    }

    /// Throws away what waits and what is still to come.
    pub fn discard(&mut self) {
        self.consume(self.decoded.len());
        self.content = None;
        self.discards = true;
    }

    /// Makes room for all of the body, unless a client only claims to send so much.
    pub fn reserve(&mut self) {
        if let (Due::Length(left), None, false) = (&self.due, &self.content, self.discards) {
            self.decoded.reserve(usize::try_from(*left).unwrap_or(usize::MAX).min(ROOM));
        }
    }

    /// How many bytes of input are due, unless the body is chunked.
    pub fn left(&self) -> Option<u64> {
        match self.due {
            Due::Nothing => Some(0),
            Due::Length(left) => Some(left),
            Due::Chunked(_) => None,
        }
    }

    /// The rest of the body is somebody else's business.
    pub fn give_up(&mut self) {
        (self.due, self.content) = (Due::Nothing, None);
    }

    /// How many bytes of input were used for this body.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether `goal` bytes are ready, or all.
    pub fn has(&self, goal: usize) -> bool {
        self.is_received() || self.decoded.len() >= goal
    }

    /// Decodes until `goal` bytes are ready or the input is used up. Returns how many bytes of input were used,
    /// also if the rest cannot be decoded.
    pub fn decode(&mut self, input: &[u8], goal: usize) -> (usize, Result<(), Refusal>) {
        let BodyDecoder { due, content, decoded, .. } = self;
        let (used, outcome) = match content {
            None if self.discards => due.take(input, None, usize::MAX),
            None => due.take(input, Some(decoded), goal),
            Some(content) => {
                let (used, outcome) = decompress(due, content, input, decoded, goal);
                if outcome == Ok(true) {
                    self.content = None;
                }
                (used, outcome.map(|_| ()))
            }
        };
        self.received += used as u64;
        (used, outcome)
    }
}

impl Due {
    /// Takes the body out of its framing, until `out` has `goal` bytes or the input is used up.
    fn take(
        &mut self,
        input: &[u8],
        mut out: Option<&mut Vec<u8>>,
        goal: usize,
    ) -> (usize, Result<(), Refusal>) {
        let (mut used, mut outcome) = (0, Ok(()));
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let room = goal.saturating_sub(out.as_ref().map_or(0, |out| out.len()));
            if rest.is_empty() || room == 0 {
                break;
            }
            let mut keep = |data: &[u8]| out.iter_mut().for_each(|out| out.extend_from_slice(data));
            used += match self {
                Due::Nothing => break,
                Due::Length(left) => {
                    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    let size = size.min(room);
                    keep(rest.get(..size).unwrap_or_default());
                    *left -= size as u64;
                    if *left == 0 {
                        *self = Due::Nothing;
                    }
                    size
                }
                Due::Chunked(decoder) => match decoder.decode(rest) {
                    Ok((used, event)) => {
                        match event {
                            ChunkedEvent::Data(data) => keep(data),
                            ChunkedEvent::More => {}
                            ChunkedEvent::End => *self = Due::Nothing,
                        }
                        used
                    }
                    Err(error) => {
                        outcome = Err(refuse(error));
                        break;
                    }
                },
            };
        }
        // The end of a chunked body may need no further byte.
        if outcome.is_ok() && matches!(self, Due::Chunked(decoder) if decoder.is_end()) {
            *self = Due::Nothing;
        }
        (used, outcome)
    }
}

/// Takes a compressed body out of its framing and decompresses it, until `out` has `goal` bytes or the input is used
/// up; whether that was all.
fn decompress(
    due: &mut Due,
    content: &mut ContentDecoder,
    input: &[u8],
    out: &mut Vec<u8>,
    goal: usize,
) -> (usize, Result<bool, Refusal>) {
    let mut used = 0;
    loop {
        if let Err(refusal) = content.decode(out, goal) {
            return (used, Err(refusal));
        }
        let rest = input.get(used..).unwrap_or_default();
        let (is_all, is_full) = (matches!(due, Due::Nothing), out.len() >= goal);
        if is_all {
            return (used, content.end(is_full));
        }
        if is_full || rest.is_empty() {
            return (used, Ok(false));
        }
        let (more, outcome) = due.take(rest, Some(content.input()), PIECE);
        used += more;
        if let Err(refusal) = outcome {
            return (used, Err(refusal));
        }
    }
}

fn refuse(error: ChunkedError) -> Refusal {
    Refusal::of_body(error.status(), error)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn decoder(framing: Framing) -> BodyDecoder {
        let mut decoder = BodyDecoder::default();
        decoder.begin(framing, 100);
        decoder
    }

    #[test]
    fn a_body_of_known_length_ends_there() {
        let mut body = decoder(Framing::Length(5));
        assert_eq!(body.decode(b"abc", 2), (2, Ok(())));
        assert_eq!(
            (body.ready(), body.left(), body.has(2), body.has(3)),
            (&b"ab"[..], Some(3), true, false)
        );
        body.consume(1);
        assert_eq!(body.decode(b"cdeGET", usize::MAX), (3, Ok(())));
        assert_eq!((body.ready(), body.is_received(), body.received()), (&b"bcde"[..], true, 5));
    }

    #[test]
    fn chunks_are_decoded_wherever_the_input_is_split() {
        let input = b"3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n";
        for split in 0..input.len() {
            let mut body = decoder(Framing::Chunked);
            let (first, second) = input.split_at(split);
            assert_eq!(body.decode(first, usize::MAX), (split, Ok(())));
            assert!(!body.is_received() && body.left().is_none());
            assert_eq!(body.decode(second, usize::MAX), (second.len(), Ok(())));
            assert_eq!((body.ready(), body.is_received()), (&b"abcd"[..], true));
        }
    }

    #[test]
    fn a_compressed_body_is_decompressed_wherever_the_input_is_split() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(b"hello").unwrap();
        let gzip = gzip.finish().unwrap();
        let size = gzip.len();
        let (first, second) = gzip.split_at(7);
        let head = |part: &[u8]| format!("{:x}\r\n", part.len()).into_bytes();
        let parts = [&head(first), first, b"\r\n", &head(second), second, b"\r\n0\r\n\r\n"];
        let chunked = (Framing::Chunked, parts.concat());
        for (framing, body) in [(Framing::Length(size as u64), gzip), chunked] {
            let input = [&body[..], b"GET"].concat();
            for split in 0..=body.len() {
                let mut decoder = decoder(framing);
                decoder.decompress(ContentCoding::Gzip, 5);
                let mut out = Vec::new();
                let mut used = 0;
                for end in [split, input.len()] {
                    loop {
                        let (more, outcome) = decoder.decode(&input[used..end], 2);
                        assert_eq!(outcome, Ok(()));
                        used += more;
                        out.extend_from_slice(decoder.ready());
                        let is_over = decoder.ready().is_empty();
                        decoder.consume(decoder.ready().len());
                        if is_over {
                            break;
                        }
                    }
                }
                assert_eq!((&out[..], used), (&b"hello"[..], body.len()));
                assert_eq!((decoder.is_received(), decoder.received()), (true, body.len() as u64));
            }
        }
    }

    #[test]
    fn a_compressed_body_that_nobody_wants_is_not_decompressed() {
        let mut body = decoder(Framing::Length(4));
        body.decompress(ContentCoding::Gzip, 5);
        body.discard();
        assert_eq!(body.decode(b"abcdGET", usize::MAX), (4, Ok(())));
        assert!(body.is_received());
    }

    #[test]
    fn what_was_decoded_before_a_mistake_is_used() {
        let mut body = decoder(Framing::Chunked);
        let (used, outcome) = body.decode(b"1\r\na\r\nx", usize::MAX);
        assert_eq!((used, body.ready()), (4, &b"a"[..]));
        assert!(outcome.is_err() && !body.is_received());
    }

    #[test]
    fn a_body_that_is_discarded_leaves_nothing() {
        let mut body = decoder(Framing::Length(4));
        assert_eq!(body.decode(b"ab", usize::MAX).0, 2);
        body.discard();
        assert_eq!(body.decode(b"cd", usize::MAX).0, 2);
        assert!(body.ready().is_empty() && body.is_received());
    }
}
