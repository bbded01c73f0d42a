//! From frames to messages: assembly, limits, and what the protocol forbids (RFC 6455 5.4 to 5.6, 8.1).

use super::close::{self, Failure};
use super::deflate::{self, Inflater};
use super::frame::{self, FrameHeader, HeaderProgress, Opcode};
use super::mask;
use super::text::TextCheck;

/// Memory that is kept from message to message.
const KEEP: usize = 64 * 1024;

/// Which side of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It masks what it sends (RFC 6455 5.1).
    Client,
    /// It gets what is masked.
    Server,
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// What a reader has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderEvent {
    /// A message: [`MessageReader::message`].
    Message(MessageKind),
    /// A ping, with its payload in [`MessageReader::control`].
    Ping,
    /// A pong, likewise.
    Pong,
    /// The peer closes the connection, and may say why.
    Close(Option<u16>),
    /// The rest of the input is no whole frame: wait until it has that many bytes.
    Needs(u64),
}

/// What a message may be.
#[derive(Clone, Copy, Debug)]
pub struct MessageRules {
    /// The side that reads.
    pub side: Side,
    /// The longest message, in bytes.
    pub limit: usize,
    /// Messages may be compressed.
    pub inflates: bool,
}

/// A message whose first frames have come.
#[derive(Clone, Copy, Debug)]
struct Begun {
    kind: MessageKind,
    is_compressed: bool,
    text: TextCheck,
}

/// Reads the frames of one connection.
#[derive(Debug, Default)]
pub struct MessageReader {
    begun: Option<Begun>,
    message: Vec<u8>,
    packed: Vec<u8>,
    control: Vec<u8>,
}

impl MessageReader {
    /// The last message.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// The payload of the last control frame. Of a close frame: the reason.
    pub fn control(&self) -> &[u8] {
        &self.control
    }

    /// Reads frames from `input` until something is to be done. Tells how many bytes were used.
    ///
    /// # Errors
    /// The peer has violated the protocol, or a rule: the connection is to be closed with that code.
    pub fn next(
        &mut self,
        input: &[u8],
        rules: &MessageRules,
        inflater: &mut Inflater,
    ) -> Result<(usize, ReaderEvent), Failure> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let header = match frame::parse(rest)? {
                HeaderProgress::Complete(header) => header,
                HeaderProgress::Needs(size) => return Ok((used, ReaderEvent::Needs(size as u64))),
            };
            self.check(&header, rules)?;
            let all = header.length.saturating_add(header.size as u64);
            let payload = usize::try_from(all).ok().and_then(|all| rest.get(header.size..all));
            let Some(payload) = payload else { return Ok((used, ReaderEvent::Needs(all))) };
            used += header.size + payload.len();
            if let Some(event) = self.take(&header, payload, rules, inflater)? {
                return Ok((used, event));
            }
        }
    }

    /// What a header alone can violate.
    fn check(&self, header: &FrameHeader, rules: &MessageRules) -> Result<(), Failure> {
        match (rules.side, header.key) {
            (Side::Server, None) => return Err(Failure::protocol("frame without a mask")),
            (Side::Client, Some(_)) => return Err(Failure::protocol("masked frame")),
            _ => {}
        }
        match (header.opcode, &self.begun) {
            (opcode, _) if opcode.is_control() => return Ok(()),
            (Opcode::Continuation, None) => {
                return Err(Failure::protocol("continuation of no message"));
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Failure::protocol("message within a message"));
            }
            _ => {}
        }
        if header.is_compressed && (!rules.inflates || header.opcode == Opcode::Continuation) {
            return Err(Failure::protocol("reserved bits"));
        }
        let (before, is_compressed) = match self.begun {
            Some(begun) => (self.parts().len() as u64, begun.is_compressed),
            None => (0, header.is_compressed),
        };
        let limit = if is_compressed { deflate::bound(rules.limit) } else { rules.limit };
        if header.length > (limit as u64).saturating_sub(before) {
            return Err(Failure { code: close::TOO_LONG, reason: "message too long" });
        }
        Ok(())
    }

    /// What has come of the message that has begun.
    fn parts(&self) -> &Vec<u8> {
        match self.begun {
            Some(Begun { is_compressed: true, .. }) => &self.packed,
            _ => &self.message,
        }
    }

    fn take(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        rules: &MessageRules,
        inflater: &mut Inflater,
    ) -> Result<Option<ReaderEvent>, Failure> {
        let key = header.key.unwrap_or_default();
        let kind = match header.opcode {
            Opcode::Text => MessageKind::Text,
            Opcode::Binary => MessageKind::Binary,
            Opcode::Continuation => {
                return self.proceed(header.is_last, payload, key, rules, inflater);
            }
            _ => return self.take_control(header.opcode, payload, key).map(Some),
        };
        self.message.clear();
        self.packed.clear();
        self.message.shrink_to(KEEP);
        self.packed.shrink_to(KEEP);
        let (is_compressed, text) = (header.is_compressed, TextCheck::default());
        self.begun = Some(Begun { kind, is_compressed, text });
        self.proceed(header.is_last, payload, key, rules, inflater)
    }

    /// The next frame of the message.
    fn proceed(
        &mut self,
        is_last: bool,
        payload: &[u8],
        key: [u8; 4],
        rules: &MessageRules,
        inflater: &mut Inflater,
    ) -> Result<Option<ReaderEvent>, Failure> {
        let Some(mut begun) = self.begun else { return Ok(None) };
        if begun.is_compressed {
            mask::append(&mut self.packed, payload, key);
            if !is_last {
                return Ok(None);
            }
            inflater.inflate(&self.packed, &mut self.message, rules.limit)?;
        } else {
            mask::append(&mut self.message, payload, key);
        }
        if begun.kind == MessageKind::Text {
            let new = match begun.is_compressed {
                true => self.message.as_slice(),
                false => self.message.get(self.message.len() - payload.len()..).unwrap_or_default(),
            };
            if !begun.text.push(new) || is_last && !begun.text.is_complete() {
                return Err(Failure { code: close::INVALID_DATA, reason: "text is not UTF-8" });
            }
        }
        self.begun = (!is_last).then_some(begun);
        Ok(is_last.then_some(ReaderEvent::Message(begun.kind)))
    }

    fn take_control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        key: [u8; 4],
    ) -> Result<ReaderEvent, Failure> {
        self.control.clear();
        mask::append(&mut self.control, payload, key);
        match opcode {
            Opcode::Ping => Ok(ReaderEvent::Ping),
            Opcode::Pong => Ok(ReaderEvent::Pong),
            _ => {
                let (code, reason) = close::parse(&self.control)?;
                let reason = reason.len();
                self.control.drain(..self.control.len() - reason);
                Ok(ReaderEvent::Close(code))
            }
        }
    }

    /// Gives up the message that has begun, as a frame: before the rest of the input, another reader goes on
    /// with it. None if no message has begun.
    pub fn put_back(&mut self, side: Side) -> Option<Vec<u8>> {
        let Begun { kind, is_compressed, .. } = self.begun?;
        let opcode = match kind {
            MessageKind::Text => Opcode::Text,
            MessageKind::Binary => Opcode::Binary,
        };
        let key = (side == Side::Server).then_some([0; 4]);
        let mut out = Vec::with_capacity(frame::MAX_FRAME_HEADER + self.parts().len());
        frame::append_header(&mut out, opcode, (false, is_compressed), self.parts().len(), key);
        out.extend_from_slice(self.parts());
        self.begun = None;
        Some(out)
    }
}
