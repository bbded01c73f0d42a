//! The body of a request on its way in: from the connection's input, decoded, to whoever reads it.

use std::io;

use crate::http::wire::chunked::{ChunkedDecoder, ChunkedError, ChunkedEvent, ChunkedLimits};
use crate::http::wire::framing::Framing;
use crate::http::wire::refusal::Refusal;
use crate::io::stream::{Fill, Stream};

/// How much is decoded ahead of the reader.
pub const AHEAD: usize = 64 * 1024;

/// How much memory an announced length alone can claim.
const ROOM: usize = 1 << 20;

/// The largest rest of a body, in bytes, that is discarded so that its connection can be kept: as much
/// as Go's server takes.
pub const SKIPPED: u64 = 256 * 1024;

/// How often more is received of a larger rest, at the end of a turn.
const DISPOSALS: usize = 16;

/// Why a body cannot be received.
#[derive(Debug)]
pub enum BodyFailure {
    /// The client broke the protocol or a limit.
    Refused(Refusal),
    /// The connection failed.
    Io(io::Error),
}

impl From<io::Error> for BodyFailure {
    fn from(error: io::Error) -> Self {
        BodyFailure::Io(error)
    }
}

/// What is left to be received.
#[derive(Debug, Default)]
enum Due {
    #[default]
    Nothing,
    Length(u64),
    Chunked(Box<ChunkedDecoder>),
}

/// What there is for a reader of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// Decoded bytes.
    Ready,
    /// Nothing now: wait for input.
    Block,
    /// Nothing any more: the body has ended.
    End,
}

/// The body of the current request.
#[derive(Debug, Default)]
pub struct Intake {
    due: Due,
    /// Decoded and not yet read, behind `start`.
    decoded: Vec<u8>,
    start: usize,
    /// Whether the body is thrown away as it comes.
    discards: bool,
    /// Bytes of input that were used.
    received: u64,
}

impl Intake {
    /// Prepares for the body of the next request, which has at most `limit` bytes.
    pub fn begin(&mut self, framing: Framing, limit: u64) {
        self.decoded.clear();
        self.decoded.shrink_to(AHEAD);
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

    /// Makes at least a byte of the body ready, if that goes without blocking.
    ///
    /// # Errors
    /// A refusal if the body breaks the rules or ends early, or the connection's error.
    pub fn supply(&mut self, stream: &mut Stream) -> Result<Supply, BodyFailure> {
        loop {
            if !self.ready().is_empty() {
                return Ok(Supply::Ready);
            }
            if self.is_received() {
                return Ok(Supply::End);
            }
            self.decode(stream, AHEAD)?;
            if self.ready().is_empty() && !self.is_received() && !receive(stream)? {
                return Ok(Supply::Block);
            }
        }
    }

    /// Receives all that is there without blocking, whatever the amount; whether more may come.
    ///
    /// # Errors
    /// As [`Intake::supply`].
    pub fn absorb(&mut self, stream: &mut Stream) -> Result<bool, BodyFailure> {
        if let (Due::Length(left), false) = (&self.due, self.discards) {
            // Room for all of it, unless a client only claims to send so much.
            self.decoded.reserve(usize::try_from(*left).unwrap_or(usize::MAX).min(ROOM));
        }
        loop {
            self.decode(stream, usize::MAX)?;
            if self.is_received() {
                return Ok(false);
            }
            if !receive(stream)? {
                return Ok(true);
            }
        }
    }

    /// Receives what is there of the body, within limits, for whoever may still read it.
    ///
    /// # Errors
    /// As [`Intake::supply`].
    pub fn look_ahead(&mut self, stream: &mut Stream) -> Result<(), BodyFailure> {
        loop {
            self.decode(stream, AHEAD)?;
            let enough = self.is_received() || self.decoded.len() >= AHEAD;
            if enough || !receive(stream)? {
                return Ok(());
            }
        }
    }

    /// Discards what is there of the body, within limits. How many bytes of input are then left of it:
    /// none if it has ended, unknown if it is chunked.
    ///
    /// # Errors
    /// As [`Intake::supply`].
    pub fn dispose(&mut self, stream: &mut Stream) -> Result<Option<u64>, BodyFailure> {
        self.discard();
        for _ in 0..DISPOSALS {
            self.decode(stream, usize::MAX)?;
            if self.left().is_some_and(|left| left <= SKIPPED) || !receive(stream)? {
                break;
            }
        }
        self.decode(stream, usize::MAX)?;
        Ok(self.left())
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

    /// Decodes input of the connection until `goal` bytes are ready or the input is used up.
    fn decode(&mut self, stream: &mut Stream, goal: usize) -> Result<(), BodyFailure> {
        while self.decoded.len() < goal && !stream.input().is_empty() {
            let input = stream.input();
            let used = match &mut self.due {
                Due::Nothing => return Ok(()),
                Due::Length(left) => {
                    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    let size = size.min(goal - self.decoded.len());
                    if !self.discards {
                        self.decoded.extend_from_slice(input.get(..size).unwrap_or_default());
                    }
                    *left -= size as u64;
                    if *left == 0 {
                        self.due = Due::Nothing;
                    }
                    size
                }
                Due::Chunked(decoder) => {
                    let (used, event) = decoder.decode(input).map_err(refuse)?;
                    match event {
                        ChunkedEvent::Data(data) if !self.discards => {
                            self.decoded.extend_from_slice(data)
                        }
                        ChunkedEvent::Data(_) | ChunkedEvent::More => {}
                        ChunkedEvent::End => self.due = Due::Nothing,
                    }
                    used
                }
            };
            stream.consume(used);
            self.received += used as u64;
        }
        // The end of a chunked body may need no further byte.
        if matches!(&self.due, Due::Chunked(decoder) if decoder.is_end()) {
            self.due = Due::Nothing;
        }
        Ok(())
    }
}

/// Receives once; false if nothing is there now.
fn receive(stream: &mut Stream) -> Result<bool, BodyFailure> {
    match stream.fill()? {
        Fill::Data(_) => Ok(true),
        Fill::Block => Ok(false),
        Fill::Eof => {
            Err(BodyFailure::Refused(Refusal::bad_request("Unexpected EOF in request body")))
        }
    }
}

fn refuse(error: ChunkedError) -> BodyFailure {
    BodyFailure::Refused(Refusal::of_body(error.status(), error))
}
