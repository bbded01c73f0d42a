//! The body of a request on its way in: received from the stream, decoded, for one reader.

use std::io;

use super::body_decoder::BodyDecoder;
use super::options::Options;
use super::request::BodyAnnounced;
use crate::http::form::reader::{Form, FormStep};
use crate::http::wire::framing::Framing;
use crate::http::wire::refusal::Refusal;
use crate::io::stream::{Fill, Stream};

/// How much is decoded ahead of the reader.
const BUFFER: usize = 64 * 1024;

/// The largest rest of a body, in bytes, that is discarded so that its connection can be kept: as much
/// as Go's server takes.
const SKIPPED: u64 = 256 * 1024;

/// The most that can be skipped of a body.
const MOST: u64 = u32::MAX as u64;

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

/// The reader of the request's body: there is one at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reader {
    /// None yet.
    #[default]
    Nobody,
    /// All of it as one string.
    Whole,
    /// A callback that gets its chunks.
    Stream,
    /// The parser of forms.
    Form,
    /// `monologue`: it is thrown away.
    Discard,
}

/// The body of the current request.
#[derive(Debug, Default)]
pub struct RequestBody {
    decoder: BodyDecoder,
    /// Who reads it.
    pub reader: Reader,
    /// The form in it, while it is read.
    pub form: Option<Form>,
    /// The handler has turned to the body.
    pub is_used: bool,
    /// The client waits for `100 Continue` before it sends it.
    expects_continue: bool,
}

impl RequestBody {
    /// Prepares for the body of the next request. `is_coming`: there is input after the head.
    pub fn begin(&mut self, announced: BodyAnnounced, options: &Options, is_coming: bool) {
        self.decoder.begin(announced.framing, options.body);
        if let (Some(coding), Some(limit)) = (announced.coding, options.decompress) {
            self.decoder.decompress(coding, limit);
        }
        // A client that sends its body does not wait any more (RFC 9110 10.1.1).
        self.expects_continue = announced.expects_continue && !is_coming;
    }

    /// The previous request's body is over, whatever comes next.
    pub fn reset(&mut self) {
        (self.reader, self.form) = (Reader::Nobody, None);
        (self.is_used, self.expects_continue) = (false, false);
    }

    /// No body, and no more memory than the next one may need.
    pub fn release(&mut self) {
        self.form = None;
        self.decoder.begin(Framing::Empty, 0);
    }

    /// Whether all of the body was received and decompressed; decoded bytes may still wait.
    pub fn is_received(&self) -> bool {
        self.decoder.is_received()
    }

    /// Whether the request has no body, or all of it was read.
    pub fn is_read(&self) -> bool {
        self.is_received() && self.ready().is_empty()
    }

    /// Decoded bytes that wait for a reader.
    pub fn ready(&self) -> &[u8] {
        self.decoder.ready()
    }

    /// Drops `n` of the bytes that wait.
    pub fn consume(&mut self, n: usize) {
        self.decoder.consume(n);
    }

    /// How many bytes of input were used for this body.
    pub fn received(&self) -> u64 {
        self.decoder.received()
    }

    /// Chooses the reader.
    pub fn set_reader(&mut self, reader: Reader) {
        if reader == Reader::Discard {
            self.decoder.discard();
        }
        self.reader = reader;
    }

    /// Whether nobody has turned to the body yet, and all of it, up to 64 KiB, is among so many bytes of input. Then
    /// nothing can be wrong with it.
    pub fn is_at_hand(&self, input: usize) -> bool {
        let received = input.min(BUFFER) as u64;
        let is_untouched = self.reader == Reader::Nobody && !self.is_used;
        is_untouched
            && self.decoder.is_plain()
            && self.decoder.left().is_some_and(|left| left <= received)
    }

    /// Takes the whole body, which is ready.
    pub fn take_all(&mut self, reader: Reader) {
        self.reader = reader;
        self.consume(self.ready().len());
    }

    /// Lets the form, if there is one, go on with what is ready.
    ///
    /// # Errors
    /// What is wrong with the form.
    pub fn step_form(&mut self) -> Result<FormStep, Refusal> {
        let Some(form) = &mut self.form else { return Ok(FormStep::Done) };
        let (used, step) = form.step(self.decoder.ready(), self.decoder.is_received())?;
        self.decoder.consume(used);
        Ok(step)
    }

    /// Whether to send 100 (Continue): once, and not to a client that sends the body already.
    pub fn take_expectation(&mut self) -> bool {
        std::mem::take(&mut self.expects_continue)
    }

    /// Whether the client waits for that, and the handler wants its body.
    pub fn is_wanted(&self) -> bool {
        self.expects_continue && self.is_used && self.reader != Reader::Discard
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
            self.decode(stream, BUFFER)?;
            if self.ready().is_empty() && !self.is_received() && !receive(stream)? {
                return Ok(Supply::Block);
            }
        }
    }

    /// Receives all that is there without blocking, whatever the amount; whether more may come.
    ///
    /// # Errors
    /// As [`RequestBody::supply`].
    pub fn absorb(&mut self, stream: &mut Stream) -> Result<bool, BodyFailure> {
        self.decoder.reserve();
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

    /// Before the response leaves: whether, as far as can be foreseen, the rest of the body can be skipped, so
    /// that the connection can be kept. Receives what is there, within limits.
    pub fn can_be_left(&mut self, stream: &mut Stream) -> bool {
        if self.reader == Reader::Discard {
            let left = self.dispose(stream);
            return self.skippable(left, SKIPPED).is_some();
        }
        // The handler may still read on, so nothing of the body is discarded.
        let left = self.receive_ahead(stream).ok().and_then(|()| self.decoder.left());
        let left = left.map(|left| left.saturating_sub(stream.duplex.input().len() as u64));
        // A handler that has begun with the body usually reads all of it. Should it stop, a rest of known length can
        // be skipped, a chunked one cannot.
        self.skippable(left, if self.is_used { MOST } else { SKIPPED }).is_some()
    }

    /// Nobody reads the rest: it is skipped if that costs little, or, once the `head_has_left`, if it is
    /// possible. Returns false if the connection has to end instead.
    pub fn leave(&mut self, stream: &mut Stream, head_has_left: bool) -> bool {
        let left = self.dispose(stream);
        let skipped = self.skippable(left, if head_has_left { MOST } else { SKIPPED });
        if let Some(skip) = skipped {
            stream.duplex.input.set_skip(skip);
            self.decoder.give_up();
        }
        skipped.is_some()
    }

    /// Whether so much of a body can be skipped, `limit` bytes at most: how much. A client that was not
    /// told to go on may send its next request instead (RFC 9110 10.1.1).
    fn skippable(&self, left: Option<u64>, limit: u64) -> Option<u32> {
        let left = left.filter(|left| !self.expects_continue && *left <= limit)?;
        u32::try_from(left).ok()
    }

    /// Receives what is there of the body, within limits, for a reader that may still come.
    fn receive_ahead(&mut self, stream: &mut Stream) -> Result<(), BodyFailure> {
        loop {
            self.decode(stream, BUFFER)?;
            if self.decoder.has(BUFFER) || !receive(stream)? {
                return Ok(());
            }
        }
    }

    /// Discards what is there of the body, within limits. How many bytes of input are then left of it:
    /// none if it has ended, unknown if it is chunked or cannot be received.
    fn dispose(&mut self, stream: &mut Stream) -> Option<u64> {
        self.decoder.discard();
        for _ in 0..DISPOSALS {
            self.decode(stream, usize::MAX).ok()?;
            let is_near = self.decoder.left().is_some_and(|left| left <= SKIPPED);
            if is_near || !receive(stream).ok()? {
                break;
            }
        }
        self.decode(stream, usize::MAX).ok()?;
        self.decoder.left()
    }

    /// Decodes input of the connection until `goal` bytes are ready or the input is used up.
    fn decode(&mut self, stream: &mut Stream, goal: usize) -> Result<(), BodyFailure> {
        let (used, outcome) = self.decoder.decode(stream.duplex.input(), goal);
        stream.duplex.consume(used);
        outcome.map_err(BodyFailure::Refused)
    }
}

/// Receives once; false if nothing is there now.
fn receive(stream: &mut Stream) -> Result<bool, BodyFailure> {
    match stream.duplex.fill()? {
        Fill::Data(_) => Ok(true),
        Fill::Block => Ok(false),
        Fill::Eof => {
            Err(BodyFailure::Refused(Refusal::bad_request("Unexpected EOF in request body")))
        }
    }
}
