//! What follows a held connection beside its [state](super::connection_state): what it hears, and how its
//! response goes on (pure).

use super::numbers::{Malformed, append, optional, present, split};
use super::texts::{append_optional, append_text, split_optional, split_text};

/// The version of the encoding.
const VERSION: u64 = 1;

/// How messages stand on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageFraming {
    /// Each is a chunk (RFC 9112 7.1).
    #[default]
    Chunked,
    /// They follow one another until the connection ends.
    Plain,
    /// One is the body of a response whose head is still to be sent.
    Whole,
    /// Each is a frame of a WebSocket (RFC 6455 5.2). What its client sends is for a worker.
    WebSocket,
}

/// A held connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldState {
    /// How messages are written.
    pub framing: MessageFraming,
    /// When it ends by itself, in milliseconds of the shared clock; none: never.
    pub deadline: Option<u64>,
    /// What it hears.
    pub topics: Vec<Vec<u8>>,
    /// The id of the last message that the client has.
    pub last_id: Option<Vec<u8>>,
    /// The record of its request, for the access log; empty if there is none.
    pub record: Vec<u8>,
    /// What many connections have in common.
    pub rules: Rules,
}

/// How a held connection is treated. Times are milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The first message completes the response.
    pub once: bool,
    /// The connection goes on after the response.
    pub keeps: bool,
    /// It is the end of a socket pair, whose other end a worker has: that has the client.
    pub relayed: bool,
    /// How many bytes may wait for a client that is slow.
    pub limit: u64,
    /// Beyond that its oldest messages are dropped, and not the client.
    pub drops_oldest: bool,
    /// What is sent when nothing was for that time; on a WebSocket a ping, which is to be answered within it.
    pub heartbeat: Option<(u64, Vec<u8>)>,
    /// What is sent before the end when the server shuts down.
    pub farewell: Option<Vec<u8>>,
    /// What is sent in the place of messages that the client has missed and that are not known any more.
    pub on_gap: Option<Vec<u8>>,
    /// With [`MessageFraming::Whole`]: the head of the response with a message, and that without. Without Date,
    /// Content-Length and the end.
    pub heads: [HeldHead; 2],
    /// How long the connection waits for its next request.
    pub idle: Option<u64>,
    /// How long its client may take to end its side.
    pub drain: u64,
    /// How long the client may take nothing.
    pub stall: Option<u64>,
}

/// The head of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldHead {
    /// Its lines.
    pub lines: Vec<u8>,
    /// It has a Date already.
    pub has_date: bool,
    /// Its status has no body, and no length.
    pub is_bodyless: bool,
}

impl HeldState {
    /// Its encoding: what is its own, then the rules.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let framing = match self.framing {
            MessageFraming::Chunked => 0,
            MessageFraming::Plain => 1,
            MessageFraming::Whole => 2,
            MessageFraming::WebSocket => 3,
        };
        append(&mut bytes, &[VERSION, framing, optional(self.deadline), self.topics.len() as u64]);
        self.topics.iter().for_each(|topic| append_text(&mut bytes, topic));
        append_optional(&mut bytes, self.last_id.as_deref());
        append_text(&mut bytes, &self.record);
        self.rules.encode(&mut bytes);
        bytes
    }

    /// The state in the bytes. Also returns the bytes of the rules, which are the same for the same rules.
    ///
    /// # Errors
    /// Another version, or no encoding.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let ([version, framing, deadline, count], mut rest) = split::<4>(bytes)?;
        let framing = match framing {
            0 => MessageFraming::Chunked,
            1 => MessageFraming::Plain,
            2 => MessageFraming::Whole,
            3 => MessageFraming::WebSocket,
            _ => return Err(Malformed),
        };
        if version != VERSION {
            return Err(Malformed);
        }
        let mut topics = Vec::new();
        for _ in 0..count {
            let topic;
            (topic, rest) = split_text(rest)?;
            topics.push(topic.to_vec());
        }
        let (last_id, rest) = split_optional(rest)?;
        let (record, encoded_rules) = split_text(rest)?;
        let state = HeldState {
            framing,
            deadline: present(deadline),
            topics,
            last_id: last_id.map(<[u8]>::to_vec),
            record: record.to_vec(),
            rules: Rules::decode(encoded_rules)?,
        };
        Ok((state, encoded_rules))
    }
}

const ONCE: u64 = 1;
const KEEPS: u64 = 2;
const DROPS_OLDEST: u64 = 4;
const RELAYED: u64 = 8;

impl Rules {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
        let flags = flag(self.once, ONCE)
            | flag(self.keeps, KEEPS)
            | flag(self.drops_oldest, DROPS_OLDEST)
            | flag(self.relayed, RELAYED);
        let beat = self.heartbeat.as_ref();
        append(bytes, &[flags, self.limit, optional(beat.map(|(time, _)| *time))]);
        append(bytes, &[optional(self.idle), self.drain, optional(self.stall)]);
        append_text(bytes, beat.map_or(&[][..], |(_, text)| text));
        append_optional(bytes, self.farewell.as_deref());
        append_optional(bytes, self.on_gap.as_deref());
        for head in &self.heads {
            append(bytes, &[u64::from(head.has_date), u64::from(head.is_bodyless)]);
            append_text(bytes, &head.lines);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let ([flags, limit, beat, idle, drain, stall], rest) = split::<6>(bytes)?;
        let (beat_text, rest) = split_text(rest)?;
        let (farewell, rest) = split_optional(rest)?;
        let (on_gap, mut rest) = split_optional(rest)?;
        let mut heads: [HeldHead; 2] = Default::default();
        for head in &mut heads {
            let ([has_date, is_bodyless], lines) = split::<2>(rest)?;
            let (lines, after) = split_text(lines)?;
            *head = HeldHead {
                lines: lines.to_vec(),
                has_date: has_date != 0,
                is_bodyless: is_bodyless != 0,
            };
            rest = after;
        }
        if !rest.is_empty() {
            return Err(Malformed);
        }
        Ok(Rules {
            once: flags & ONCE != 0,
            keeps: flags & KEEPS != 0,
            relayed: flags & RELAYED != 0,
            limit,
            drops_oldest: flags & DROPS_OLDEST != 0,
            heartbeat: present(beat).map(|time| (time, beat_text.to_vec())),
            farewell: farewell.map(<[u8]>::to_vec),
            on_gap: on_gap.map(<[u8]>::to_vec),
            heads,
            idle: present(idle),
            drain,
            stall: present(stall),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states() -> Vec<HeldState> {
        let rules = Rules {
            once: true,
            keeps: true,
            relayed: true,
            limit: 1 << 40,
            drops_oldest: true,
            heartbeat: Some((15_000, b":\n\n".to_vec())),
            farewell: Some(b"bye".to_vec()),
            on_gap: Some(Vec::new()),
            heads: [
                HeldHead {
                    lines: b"HTTP/1.1 200 OK\r\n".to_vec(),
                    has_date: true,
                    is_bodyless: false,
                },
                HeldHead {
                    lines: b"HTTP/1.1 204 \r\n".to_vec(),
                    has_date: false,
                    is_bodyless: true,
                },
            ],
            idle: Some(1),
            drain: 2,
            stall: Some(3),
        };
        let all = HeldState {
            framing: MessageFraming::Whole,
            deadline: Some(7),
            topics: vec![b"news".to_vec(), b"\0\xff".to_vec()],
            last_id: Some(b"17".to_vec()),
            record: b"record".to_vec(),
            rules,
        };
        vec![
            all,
            HeldState::default(),
            HeldState { framing: MessageFraming::Plain, ..HeldState::default() },
            HeldState { framing: MessageFraming::WebSocket, ..HeldState::default() },
        ]
    }

    #[test]
    fn a_state_survives_its_encoding() {
        for state in states() {
            let bytes = state.encode();
            let (decoded, rules) = HeldState::decode(&bytes).unwrap();
            assert_eq!((decoded, bytes.ends_with(rules)), (state, true));
        }
    }

    #[test]
    fn what_is_cut_off_or_of_another_version_is_refused() {
        for state in states() {
            let mut bytes = state.encode();
            for length in 0..bytes.len() {
                assert_eq!(HeldState::decode(&bytes[..length]), Err(Malformed), "{length} bytes");
            }
            bytes[0] += 1;
            assert_eq!(HeldState::decode(&bytes), Err(Malformed));
        }
    }
}
