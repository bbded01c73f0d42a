//! The decoder of a request's body (pure): input of the connection in, bytes for whoever reads the body out.

use crate::http::wire::chunked::{ChunkedDecoder, ChunkedError, ChunkedEvent, ChunkedLimits};
use crate::http::wire::framing::Framing;
use crate::http::wire::refusal::Refusal;

/// The memory that is kept for the next body, in bytes.
const KEEP: usize = 64 * 1024;

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
    /// Decoded and not yet read, behind `start`.
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
        self.due = match framing {
            Framing::Empty => Due::Nothing,
            Framing::Length(length) => Due::Length(length),
            Framing::Chunked => {
                Due::Chunked(Box::new(ChunkedDecoder::new(ChunkedLimits::new(limit))))
            }
        };
    }

    /// Whether all of the body was received; decoded bytes may still wait.
    pub fn is_received(&self) -> bool {
        matches!(self.due, Due::Nothing)
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
        self.discards = true;
    }

    /// Makes room for all of the body, unless a client only claims to send so much.
    pub fn reserve(&mut self) {
        if let (Due::Length(left), false) = (&self.due, self.discards) {
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
        self.due = Due::Nothing;
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
        let (mut used, mut outcome) = (0, Ok(()));
        while self.decoded.len() < goal {
            let rest = input.get(used..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            used += match &mut self.due {
                Due::Nothing => break,
                Due::Length(left) => {
                    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    let size = size.min(goal - self.decoded.len());
                    if !self.discards {
                        self.decoded.extend_from_slice(rest.get(..size).unwrap_or_default());
                    }
                    *left -= size as u64;
                    if *left == 0 {
                        self.due = Due::Nothing;
                    }
                    size
                }
                Due::Chunked(decoder) => match decoder.decode(rest) {
                    Ok((used, event)) => {
                        match event {
                            ChunkedEvent::Data(data) if !self.discards => {
                                self.decoded.extend_from_slice(data)
                            }
                            ChunkedEvent::Data(_) | ChunkedEvent::More => {}
                            ChunkedEvent::End => self.due = Due::Nothing,
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
        if outcome.is_ok() && matches!(&self.due, Due::Chunked(decoder) if decoder.is_end()) {
            self.due = Due::Nothing;
        }
        self.received += used as u64;
        (used, outcome)
    }
}

fn refuse(error: ChunkedError) -> Refusal {
    Refusal::of_body(error.status(), error)
}

#[cfg(test)]
mod tests {
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
