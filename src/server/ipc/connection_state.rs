//! The state of a connection: all that follows it from process to process, as one value (pure).
//!
//! A process that gives a connection up makes this value of it: a worker whose connection turned cold, or that
//! ends; the supervisor that revokes a lease or hands a connection to a worker. Any process of this
//! program that has the descriptor and this value can go on with the connection. What a new feature has
//! to know of a connection wherever it is becomes a field here, and [`VERSION`] is raised.

use std::fmt;
use std::net::SocketAddr;

use super::addresses::{address_of, numbers_of};
use super::attributes::Attributes;
use super::numbers::{ABSENT, Malformed, append, optional, present, split};
use super::standing::Standing;
use crate::io::Awaits;
use crate::io::tls::progress::RecordProgress;

/// The version of the encoding.
pub const VERSION: u8 = 8;

/// How many bytes the encoding takes beside the data and the attributes.
pub const OVERHEAD: usize = 1 + 8 * NUMBERS;

const NUMBERS: usize = 21;

/// The state of a connection that is in nobody's hands.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConnectionState {
    /// What is to be done with it next.
    pub stage: Stage,
    /// When it stops waiting for input, in milliseconds of the shared clock; none: never.
    pub deadline: Option<u64>,
    /// Since when it waits for a worker, in milliseconds of the shared clock.
    pub queued: Option<u64>,
    /// What has to come before the received input suffices.
    pub awaits: Awaits,
    /// How far it has got with its messages.
    pub standing: Standing,
    /// The client's address, if it is known; otherwise the kernel tells it.
    pub peer: Option<SocketAddr>,
    /// The record of the request whose response is being sent, see [`super::access_queue::Unsent`].
    pub record: Option<u64>,
    /// How far its records have come, if it has TLS that moves ([`Attributes::secured`]).
    pub records: Option<RecordProgress>,
    /// What a proxy has told of it, and what its handler keeps of it.
    pub attributes: Attributes,
    /// Records that are not sent yet, and the beginning of one that was received; then output that is not sent yet, see
    /// [`Unsent::bytes`], then received input that no handler has used.
    /// What is too long for a message is in a file in memory instead ([`super::channel::Parcel::input`]), unless the
    /// output is a file.
    pub data: Vec<u8>,
}

/// What is to be done with a connection next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for its client's input.
    #[default]
    Waiting,
    /// Calling a handler for the first time.
    New,
    /// Calling a handler: its input is complete.
    Ready,
    /// Sending its output.
    Sending(Unsent),
    /// Discarding its input until its client closes, or until a time of the shared clock in milliseconds.
    /// If the client has not received all output by then, it may go on as long as it takes some within
    /// `stall` milliseconds (none: whenever).
    Lingering {
        /// Until when.
        until: u64,
        /// The longest time without progress.
        stall: Option<u64>,
    },
}

/// Output that a client has not taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsent {
    /// So many bytes, with which the data begins, but for records.
    pub bytes: u64,
    /// After them a file, which comes with the connection, from its position to this one.
    pub file: Option<u64>,
    /// What becomes of the connection when they are sent.
    pub then: Then,
    /// For how many milliseconds the client may take nothing; none: forever.
    pub stall: Option<u64>,
}

/// What becomes of a connection when its output is sent. Times are milliseconds from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is closed.
    Close,
    /// It is parked, for so long if there is a limit.
    Park(Option<u64>),
    /// Its input is discarded for so long.
    Linger(u64),
}

/// Why bytes are not the state of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They are of another version of the encoding.
    Version(u8),
    /// They are cut off, or no encoding at all.
    Malformed,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Version(version) => {
                write!(f, "connection state of version {version}, where {VERSION} is known")
            }
            DecodeError::Malformed => f.write_str("malformed connection state"),
        }
    }
}

impl From<Malformed> for DecodeError {
    fn from(_: Malformed) -> Self {
        DecodeError::Malformed
    }
}

impl fmt::Debug for ConnectionState {
    /// What a client has sent is not for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConnectionState { stage, deadline, data, .. } = self;
        write!(f, "{{ {stage:?}, deadline: {deadline:?}, data: {} bytes }}", data.len())
    }
}

/// Stands for [`ConnectionState::records`] where there is none.
const NO_RECORDS: u64 = 2;

impl ConnectionState {
    /// The output that is to be sent, if there is some.
    pub fn unsent(&self) -> Option<Unsent> {
        match self.stage {
            Stage::Sending(unsent) => Some(unsent),
            _ => None,
        }
    }

    /// How many bytes its encoding takes.
    pub fn size(&self) -> usize {
        OVERHEAD + self.attributes.size() + self.data.len()
    }

    /// Appends its encoding.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        let [stage, size, then, time, stall] = self.stage.numbers();
        let sent_file = optional(self.unsent().and_then(|unsent| unsent.file));
        let (awaits, count) = match self.awaits {
            Awaits::More => (0, 0),
            Awaits::EmptyLine(most) => (1, most),
            Awaits::Bytes(size) => (2, size),
            Awaits::ProxyHeader => (3, 0),
        };
        let [high, low, port] = self.peer.map_or([0, 0, ABSENT], numbers_of);
        let (deadline, queued) = (optional(self.deadline), optional(self.queued));
        let record = optional(self.record);
        let standing = self.standing.word();
        let records = self.records.map_or(NO_RECORDS, |it| u64::from(it.peer_ended));
        let RecordProgress { receiving, sending, unsent, sealed, received, .. } =
            self.records.unwrap_or_default();
        bytes.reserve(self.size());
        bytes.push(VERSION);
        let numbers: [u64; NUMBERS] = [
            stage, size, then, time, stall, awaits, count, deadline, queued, standing, high, low,
            port, record, sent_file, receiving, sending, unsent, sealed, received, records,
        ];
        append(bytes, &numbers);
        self.attributes.encode(bytes);
        bytes.extend_from_slice(&self.data);
    }

    /// The state that was encoded in the bytes.
    ///
    /// # Errors
    /// Another version, or no encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let rest = match bytes {
            [VERSION, rest @ ..] => rest,
            [version, ..] => return Err(DecodeError::Version(*version)),
            [] => return Err(DecodeError::Malformed),
        };
        let (numbers, data) = split::<NUMBERS>(rest)?;
        let [
            stage,
            size,
            then,
            time,
            stall,
            awaits,
            count,
            deadline,
            queued,
            standing,
            high,
            low,
            port,
            record,
            sent_file,
            receiving,
            sending,
            unsent,
            sealed,
            received,
            records,
        ] = numbers;
        let peer_ended = match records {
            0 => Some(false),
            1 => Some(true),
            NO_RECORDS => None,
            _ => return Err(DecodeError::Malformed),
        };
        let records = peer_ended.map(|peer_ended| RecordProgress {
            receiving,
            sending,
            unsent,
            sealed,
            received,
            peer_ended,
        });
        let (attributes, data) = Attributes::decode(data)?;
        let awaits = match awaits {
            0 => Awaits::More,
            1 => Awaits::EmptyLine(count),
            2 => Awaits::Bytes(count),
            3 => Awaits::ProxyHeader,
            _ => return Err(DecodeError::Malformed),
        };
        Ok(ConnectionState {
            stage: Stage::of([stage, size, then, time, stall], present(sent_file))?,
            deadline: present(deadline),
            queued: present(queued),
            awaits,
            standing: Standing::of(standing),
            peer: address_of([high, low, port])?,
            record: present(record),
            records,
            attributes,
            data: data.to_vec(),
        })
    }
}

impl Stage {
    /// Kind, size, kind of what follows, time, stall.
    fn numbers(self) -> [u64; 5] {
        match self {
            Stage::Waiting => [0; 5],
            Stage::New => [4, 0, 0, 0, 0],
            Stage::Ready => [1, 0, 0, 0, 0],
            Stage::Sending(Unsent { bytes, then, stall, file: _ }) => {
                let (then, time) = match then {
                    Then::Close => (0, 0),
                    Then::Park(time) => (1, optional(time)),
                    Then::Linger(time) => (2, time),
                };
                [2, bytes, then, time, optional(stall)]
            }
            Stage::Lingering { until, stall } => [3, 0, 0, until, optional(stall)],
        }
    }

    fn of(
        [stage, bytes, then, time, stall]: [u64; 5],
        file: Option<u64>,
    ) -> Result<Self, DecodeError> {
        let stall = present(stall);
        let sending = |then| Stage::Sending(Unsent { bytes, file, then, stall });
        Ok(match (stage, then) {
            (0, _) => Stage::Waiting,
            (1, _) => Stage::Ready,
            (4, _) => Stage::New,
            (2, 0) => sending(Then::Close),
            (2, 1) => sending(Then::Park(present(time))),
            (2, 2) => sending(Then::Linger(time)),
            (3, _) => Stage::Lingering { until: time, stall },
            _ => return Err(DecodeError::Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::proxied::{Proxied, Told};

    const HEADER: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";

    fn states() -> Vec<ConnectionState> {
        let of = |stage| ConnectionState { stage, ..ConnectionState::default() };
        let sending =
            |then, stall| of(Stage::Sending(Unsent { bytes: 1 << 33, file: stall, then, stall }));
        let peer = |address: &str| ConnectionState {
            peer: Some(address.parse().unwrap()),
            ..ConnectionState::default()
        };
        vec![
            ConnectionState {
                stage: Stage::Ready,
                deadline: Some(5),
                queued: Some(6),
                awaits: Awaits::EmptyLine(9),
                standing: Standing { asked: true, skip: 9 },
                peer: Some("192.0.2.1:80".parse().unwrap()),
                record: Some(3),
                attributes: Attributes {
                    proxied: Proxied::By(Told::read(HEADER).unwrap()),
                    session: Some((*b"chat").into()),
                    away: Some(5),
                    tls: Some((*b"tcp :: 443").into()),
                    secured: Some((*b"sealed").into()),
                },
                records: Some(RecordProgress {
                    receiving: 1,
                    sending: 1 << 40,
                    unsent: 3,
                    sealed: 4,
                    received: 5,
                    peer_ended: true,
                }),
                data: b"GET /".to_vec(),
            },
            ConnectionState { awaits: Awaits::Bytes(1 << 33), ..of(Stage::Waiting) },
            ConnectionState {
                awaits: Awaits::ProxyHeader,
                attributes: Attributes { proxied: Proxied::Expected, ..Attributes::default() },
                ..of(Stage::Waiting)
            },
            peer("[2001:db8::1%7]:65535"),
            peer("[::ffff:192.0.2.1]:1"),
            sending(Then::Park(None), Some(5)),
            sending(Then::Park(Some(8)), None),
            sending(Then::Linger(9), Some(60_000)),
            sending(Then::Close, None),
            of(Stage::Lingering { until: 17, stall: None }),
            of(Stage::New),
        ]
    }

    fn encoded(state: &ConnectionState) -> Vec<u8> {
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_state_survives_its_encoding() {
        for state in states() {
            let bytes = encoded(&state);
            assert_eq!(bytes.len(), state.size());
            assert_eq!(ConnectionState::decode(&bytes), Ok(state));
        }
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        for state in states() {
            let mut bytes = encoded(&state);
            bytes[0] = VERSION + 1;
            let refusal = ConnectionState::decode(&bytes).unwrap_err();
            assert_eq!(refusal, DecodeError::Version(VERSION + 1));
            assert!(refusal.to_string().contains("version 9"));
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for state in states() {
            let bytes = encoded(&state);
            for length in 0..OVERHEAD {
                let cut = ConnectionState::decode(&bytes[..length]);
                assert_eq!(cut, Err(DecodeError::Malformed), "{length} bytes");
            }
        }
    }

    #[test]
    fn what_a_client_has_sent_is_not_shown() {
        assert!(!format!("{:?}", states()[0]).contains("GET"));
    }
}
