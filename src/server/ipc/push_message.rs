//! What the push process is told, by any process of the server, and what it tells the supervisor: pure encoding
//! and decoding.

use super::batch::Batch;
use super::connection_state::ConnectionState;
use super::message::{Garbage, Message};
use super::numbers::{Malformed, append, only, optional, present, split};
use super::texts::{append_optional, append_text, split_optional, split_text};

/// The longest text that stands in a message. A longer one comes as a file ([`super::overflow`]).
pub const LONGEST_TEXT: usize = 60 * 1024;

/// What the push process is told. Supervisors are named by their process ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToPush {
    /// A connection is to be held: its supervisor, its pool there, its state, and its encoded
    /// [`HeldState`](super::held_state::HeldState). With its descriptor, and the file with its data if there is one.
    Hold(i32, u64, Box<ConnectionState>, Vec<u8>),
    /// The connection that is away under this name is over, or hears nothing any more.
    Leave(u64),
    /// A message for all that hear this topic.
    Publish(Publication),
    /// How many connections hear this topic? The answer is a number on the socket that comes with the message.
    Count(Vec<u8>),
    /// This generation serves: at most that many connections may be held, and these are the topics with a history. With the
    /// channel for [`FromPush`].
    Serve(i32, Option<u64>, Vec<TopicSpec>),
    /// A generation is replaced: for each of its pools, the one that replaces it.
    Replaced(i32, Vec<Option<u64>>),
    /// No worker is left of a generation that was replaced: it ends when it has what is for it.
    Gone(i32),
    /// The server shuts down: all connections that are held, or will be, end.
    Drain,
    /// The same, and nobody will be held any more.
    End,
}

/// A message for a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// The topic.
    pub topic: Vec<u8>,
    /// By which clients say what they have.
    pub id: Option<Vec<u8>>,
    /// The message, or nothing if it comes as a file.
    pub data: Vec<u8>,
    /// The length of that file.
    pub in_file: Option<u64>,
}

/// What a publication counts beside its texts, in bytes: the kernel, too, needs memory for each message.
const PUBLICATION: usize = 512;

impl Publication {
    /// How much of what may wait it takes, in bytes.
    pub fn cost(&self) -> u64 {
        let id = self.id.as_ref().map_or(0, Vec::len);
        (PUBLICATION + self.topic.len() + id + self.data.len()) as u64 + self.in_file.unwrap_or(0)
    }
}

/// A topic whose messages are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: Vec<u8>,
    /// How many messages are kept.
    pub history: u64,
}

/// What the push process tells the supervisors of generations.
#[derive(Debug, PartialEq, Eq)]
pub enum FromPush {
    /// Connections whose response is over, with their descriptors.
    Connections(Batch),
    /// A record for the access log.
    Record(Vec<u8>),
    /// All held connections have ended ([`ToPush::End`]).
    Ended,
}

impl Message for ToPush {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            ToPush::Hold(supervisor, pool, state, held) => {
                bytes.push(b'h');
                append(&mut bytes, &[number(*supervisor), *pool]);
                append_text(&mut bytes, held);
                state.encode(&mut bytes);
            }
            ToPush::Publish(Publication { topic, id, data, in_file }) => {
                bytes.push(b'p');
                append(&mut bytes, &[optional(*in_file)]);
                append_text(&mut bytes, topic);
                append_optional(&mut bytes, id.as_deref());
                bytes.extend_from_slice(data);
            }
            ToPush::Count(topic) => {
                bytes.push(b'c');
                bytes.extend_from_slice(topic);
            }
            ToPush::Serve(supervisor, most, topics) => {
                bytes.push(b's');
                append(&mut bytes, &[number(*supervisor), optional(*most)]);
                for TopicSpec { name, history } in topics {
                    append(&mut bytes, &[*history]);
                    append_text(&mut bytes, name);
                }
            }
            ToPush::Replaced(supervisor, pools) => {
                bytes.push(b'r');
                append(&mut bytes, &[number(*supervisor)]);
                pools.iter().for_each(|pool| append(&mut bytes, &[optional(*pool)]));
            }
            ToPush::Gone(supervisor) => {
                bytes.push(b'g');
                append(&mut bytes, &[number(*supervisor)]);
            }
            ToPush::Leave(name) => {
                bytes.push(b'l');
                append(&mut bytes, &[*name]);
            }
            ToPush::Drain => bytes.push(b'd'),
            ToPush::End => bytes.push(b'e'),
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        Ok(match bytes {
            [b'h', rest @ ..] => {
                let ([supervisor, pool], rest) = split::<2>(rest)?;
                let (held, state) = split_text(rest)?;
                let state = ConnectionState::decode(state)?;
                ToPush::Hold(process(supervisor)?, pool, Box::new(state), held.to_vec())
            }
            [b'p', rest @ ..] => {
                let ([in_file], rest) = split::<1>(rest)?;
                let (topic, rest) = split_text(rest)?;
                let (id, data) = split_optional(rest)?;
                let (topic, id) = (topic.to_vec(), id.map(<[u8]>::to_vec));
                let (data, in_file) = (data.to_vec(), present(in_file));
                ToPush::Publish(Publication { topic, id, data, in_file })
            }
            [b'c', topic @ ..] => ToPush::Count(topic.to_vec()),
            [b's', rest @ ..] => {
                let ([supervisor, most], mut rest) = split::<2>(rest)?;
                let mut topics = Vec::new();
                while !rest.is_empty() {
                    let ([history], name) = split::<1>(rest)?;
                    let (name, after) = split_text(name)?;
                    topics.push(TopicSpec { name: name.to_vec(), history });
                    rest = after;
                }
                ToPush::Serve(process(supervisor)?, present(most), topics)
            }
            [b'r', rest @ ..] => {
                let ([supervisor], pools) = split::<1>(rest)?;
                let (pools, []) = pools.as_chunks::<8>() else { return Err(Garbage) };
                let pools = pools.iter().map(|pool| present(u64::from_le_bytes(*pool))).collect();
                ToPush::Replaced(process(supervisor)?, pools)
            }
            [b'g', rest @ ..] => ToPush::Gone(process(only::<1>(rest)?[0])?),
            [b'l', rest @ ..] => ToPush::Leave(only::<1>(rest)?[0]),
            [b'd'] => ToPush::Drain,
            [b'e'] => ToPush::End,
            _ => return Err(Garbage),
        })
    }
}

impl Message for FromPush {
    fn encode(&self) -> Vec<u8> {
        match self {
            FromPush::Connections(batch) => batch.encode(),
            FromPush::Record(record) => [b"R", record.as_slice()].concat(),
            FromPush::Ended => vec![b'E'],
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        if let Some(batch) = Batch::decode(bytes)? {
            return Ok(FromPush::Connections(batch));
        }
        match bytes {
            [b'R', record @ ..] => Ok(FromPush::Record(record.to_vec())),
            [b'E'] => Ok(FromPush::Ended),
            _ => Err(Garbage),
        }
    }
}

/// The answer to [`ToPush::Count`].
pub fn encode_count(count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, &[count]);
    bytes
}

/// The number of such an answer.
///
/// # Errors
/// It is none.
pub fn decode_count(bytes: &[u8]) -> Result<u64, Malformed> {
    only::<1>(bytes).map(|[count]| count)
}

fn number(process: i32) -> u64 {
    u64::from(process.unsigned_abs())
}

fn process(number: u64) -> Result<i32, Garbage> {
    i32::try_from(number).map_err(|_| Garbage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_their_encoding() {
        let state = ConnectionState { data: b"GET".to_vec(), ..ConnectionState::default() };
        let topic = |name: &[u8], history| TopicSpec { name: name.to_vec(), history };
        for message in [
            ToPush::Hold(7, 2, Box::new(state), b"held".to_vec()),
            ToPush::Publish(Publication {
                topic: b"news".to_vec(),
                id: Some(b"1".to_vec()),
                data: b"\0text".to_vec(),
                in_file: None,
            }),
            ToPush::Publish(Publication { in_file: Some(1 << 40), ..Publication::default() }),
            ToPush::Publish(Publication::default()),
            ToPush::Count(b"news".to_vec()),
            ToPush::Leave(1 << 40),
            ToPush::Serve(1, Some(7), vec![topic(b"a", 100), topic(b"b", 1)]),
            ToPush::Serve(i32::MAX, None, vec![]),
            ToPush::Replaced(3, vec![Some(0), None, Some(9)]),
            ToPush::Gone(4),
            ToPush::Drain,
            ToPush::End,
        ] {
            assert_eq!(ToPush::decode(&message.encode()), Ok(message));
        }
        for message in [
            FromPush::Connections(Batch::default()),
            FromPush::Record(b"record".to_vec()),
            FromPush::Ended,
        ] {
            assert_eq!(FromPush::decode(&message.encode()), Ok(message));
        }
        assert_eq!(decode_count(&encode_count(9)), Ok(9));
    }

    #[test]
    fn anything_else_is_garbage() {
        for bytes in [&b""[..], b"x", b"h123", b"p1234567", b"s", b"r12345678x", b"dd"] {
            assert_eq!(ToPush::decode(bytes), Err(Garbage), "{bytes:?}");
            assert_eq!(FromPush::decode(bytes), Err(Garbage), "{bytes:?}");
        }
    }
}
