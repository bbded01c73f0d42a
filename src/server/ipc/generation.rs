//! What the generations of a server tell each other at a reload: pure encoding and decoding.
//!
//! A generation is one run of the script: a supervisor with its workers. The first process, which the
//! outside knows, is also the supervisor of the first generation; the supervisors of later generations are
//! its children, each with a link to it. A generation that is replaced tells its successor directly
//! ([`FromPredecessor`]).

use super::batch::Batch;
use super::connection_state::VERSION as STATE_VERSION;
use super::message::{Garbage, Message};
use super::numbers::{append, only, optional, present, split};

/// The version of these messages. A generation of another version cannot take over.
const VERSION: u64 = 5;

/// Stands for the status process where a socket's pool is told.
pub const STATUS_PROCESS: u64 = u64::MAX - 1;

/// What a generation tells its successor.
#[derive(Debug, PartialEq, Eq)]
pub enum FromPredecessor {
    /// Comes first; with the standard error of the server, the file by which the successor can say that it has the
    /// sockets ([`crate::sys::os::worker_signals::take_ports`]), the way to the push process
    /// ([`super::push_line`]), the file with the key of TLS sessions ([`crate::io::tls::vault`]) if it has one, and the
    /// file of the metrics if there is one.
    Hello(Hello),
    /// A listening socket, which comes with the message.
    Socket(PassedSocket),
    /// Where a job stands, by its key.
    Job(JobState, Vec<u8>),
    /// The successor serves from now on.
    Serve,
    /// Connections, with their descriptors.
    Connections(Batch),
    /// All connections that waited have been passed on; others follow when handlers end.
    Passed(PassedCounts),
}

/// How the messages begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// When the shared clock was started, in nanoseconds of the monotonic clock.
    pub clock: u64,
    /// The number of listening sockets that follow.
    pub sockets: u64,
    /// The process group of the server.
    pub group: u64,
    /// The log has told that handlers run as root.
    pub warned: bool,
    /// Whether there is a key of TLS sessions.
    pub has_key: bool,
}

/// A listening socket of the predecessor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedSocket {
    /// Whether the server has opened it itself.
    pub is_own: bool,
    /// The workers of its pool.
    pub workers: u64,
    /// What the script calls it ([`crate::server::listen::listener::Listener::key`]).
    pub key: Vec<u8>,
}

/// How much was passed on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassedCounts {
    /// So many connections.
    pub connections: u64,
    /// When that began, in milliseconds of the shared clock.
    pub since: u64,
}

/// Where an interval or main listener of the predecessor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Its handler runs.
    Running,
    /// It is due at this time, in milliseconds of the shared clock.
    Due(u64),
    /// Its handler has ended.
    Ended,
}

/// What a later generation tells the first process.
#[derive(Debug, PartialEq, Eq)]
pub enum ToFirst {
    /// Each pool has workers that are prepared. For each socket of the predecessor, the pool that has it.
    Ready(Vec<Option<u64>>),
    /// This generation serves now: no connection reaches the old one any more. True: the old one has not
    /// handed over.
    Serving(bool),
    /// Reload, within so many milliseconds if there is a limit. The message may carry the socket of a
    /// worker that asks.
    Reload(Option<u64>),
    /// The server shuts down; true: at once.
    Stopping(bool),
    /// Answers [`FromFirst::Ping`].
    Alive,
}

/// What the first process tells a later generation.
#[derive(Debug, PartialEq, Eq)]
pub enum FromFirst {
    /// A candidate is loaded: the message carries the channel to it. It is told the listening sockets.
    Introduce,
    /// The candidate is ready: it gets everything. What [`ToFirst::Ready`] said.
    Succeed(Vec<Option<u64>>),
    /// The candidate is ready, and its predecessor does not react: it serves all the same.
    ServeAlone,
    /// The first process has received this signal.
    Signal(u64),
    /// The push process runs, perhaps anew: it is to know this generation.
    Push,
    /// Asks for [`ToFirst::Alive`].
    Ping,
}

impl Message for FromPredecessor {
    fn encode(&self) -> Vec<u8> {
        match self {
            FromPredecessor::Hello(Hello { clock, sockets, group, warned, has_key }) => {
                let versions = [VERSION, u64::from(STATE_VERSION)];
                let [warned, has_key] = [*warned, *has_key].map(u64::from);
                let rest = [*clock, *sockets, *group, warned, has_key];
                fields(b'h', &[&versions[..], &rest].concat())
            }
            FromPredecessor::Socket(PassedSocket { is_own, workers, key }) => {
                with_bytes(b's', &[u64::from(*is_own), *workers], key)
            }
            FromPredecessor::Job(state, key) => {
                let numbers = match state {
                    JobState::Running => [0, 0],
                    JobState::Due(at) => [1, *at],
                    JobState::Ended => [2, 0],
                };
                with_bytes(b'j', &numbers, key)
            }
            FromPredecessor::Serve => vec![b'S'],
            FromPredecessor::Connections(batch) => batch.encode(),
            FromPredecessor::Passed(PassedCounts { connections, since }) => {
                fields(b'p', &[*connections, *since])
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        if let Some(batch) = Batch::decode(bytes)? {
            return Ok(FromPredecessor::Connections(batch));
        }
        Ok(match bytes {
            [b'h', rest @ ..] => {
                let ([version, state], rest) = split::<2>(rest)?;
                if (version, state) != (VERSION, u64::from(STATE_VERSION)) {
                    return Err(Garbage);
                }
                let [clock, sockets, group, warned, has_key] = only::<5>(rest)?;
                let (warned, has_key) = (warned != 0, has_key != 0);
                FromPredecessor::Hello(Hello { clock, sockets, group, warned, has_key })
            }
            [b's', rest @ ..] => {
                let ([own, workers], key) = split::<2>(rest)?;
                let (is_own, key) = (own != 0, key.to_vec());
                FromPredecessor::Socket(PassedSocket { is_own, workers, key })
            }
            [b'j', rest @ ..] => {
                let ([state, at], key) = split::<2>(rest)?;
                let state = match state {
                    0 => JobState::Running,
                    1 => JobState::Due(at),
                    2 => JobState::Ended,
                    _ => return Err(Garbage),
                };
                FromPredecessor::Job(state, key.to_vec())
            }
            [b'S'] => FromPredecessor::Serve,
            [b'p', rest @ ..] => {
                let [connections, since] = only::<2>(rest)?;
                FromPredecessor::Passed(PassedCounts { connections, since })
            }
            _ => return Err(Garbage),
        })
    }
}

impl Message for ToFirst {
    fn encode(&self) -> Vec<u8> {
        match self {
            ToFirst::Ready(pools) => claims(b'r', pools),
            ToFirst::Serving(is_alone) => fields(b's', &[u64::from(*is_alone)]),
            ToFirst::Reload(timeout) => fields(b'l', &[optional(*timeout)]),
            ToFirst::Stopping(at_once) => fields(b't', &[u64::from(*at_once)]),
            ToFirst::Alive => vec![b'a'],
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        match bytes {
            [b'r', rest @ ..] => Ok(ToFirst::Ready(claimed(rest)?)),
            [b's', rest @ ..] => Ok(ToFirst::Serving(only::<1>(rest)?[0] != 0)),
            [b'l', rest @ ..] => Ok(ToFirst::Reload(present(only::<1>(rest)?[0]))),
            [b't', rest @ ..] => Ok(ToFirst::Stopping(only::<1>(rest)?[0] != 0)),
            [b'a'] => Ok(ToFirst::Alive),
            _ => Err(Garbage),
        }
    }
}

impl Message for FromFirst {
    fn encode(&self) -> Vec<u8> {
        match self {
            FromFirst::Introduce => vec![b'i'],
            FromFirst::Succeed(pools) => claims(b'g', pools),
            FromFirst::Signal(number) => fields(b'k', &[*number]),
            FromFirst::ServeAlone => vec![b's'],
            FromFirst::Push => vec![b'h'],
            FromFirst::Ping => vec![b'p'],
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        match bytes {
            [b'i'] => Ok(FromFirst::Introduce),
            [b'g', rest @ ..] => Ok(FromFirst::Succeed(claimed(rest)?)),
            [b'k', rest @ ..] => Ok(FromFirst::Signal(only::<1>(rest)?[0])),
            [b's'] => Ok(FromFirst::ServeAlone),
            [b'h'] => Ok(FromFirst::Push),
            [b'p'] => Ok(FromFirst::Ping),
            _ => Err(Garbage),
        }
    }
}

fn claims(kind: u8, pools: &[Option<u64>]) -> Vec<u8> {
    let numbers: Vec<u64> = pools.iter().map(|pool| optional(*pool)).collect();
    fields(kind, &numbers)
}

fn claimed(bytes: &[u8]) -> Result<Vec<Option<u64>>, Garbage> {
    let (numbers, []) = bytes.as_chunks::<8>() else { return Err(Garbage) };
    Ok(numbers.iter().map(|number| present(u64::from_le_bytes(*number))).collect())
}

fn fields(kind: u8, numbers: &[u64]) -> Vec<u8> {
    with_bytes(kind, numbers, &[])
}

fn with_bytes(kind: u8, numbers: &[u64], bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    append(&mut message, numbers);
    message.extend_from_slice(bytes);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survives<T: Message + std::fmt::Debug + PartialEq>(messages: Vec<T>) {
        for message in messages {
            assert_eq!(T::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn messages_survive_their_encoding() {
        survives(vec![
            FromPredecessor::Hello(Hello {
                clock: 1 << 50,
                sockets: 3,
                group: 77,
                warned: true,
                has_key: true,
            }),
            FromPredecessor::Socket(PassedSocket {
                is_own: true,
                workers: 16,
                key: b"tcp :: 80".to_vec(),
            }),
            FromPredecessor::Job(JobState::Running, b"interval".to_vec()),
            FromPredecessor::Job(JobState::Due(7), Vec::new()),
            FromPredecessor::Job(JobState::Ended, b"x".to_vec()),
            FromPredecessor::Serve,
            FromPredecessor::Connections(Batch::default()),
            FromPredecessor::Passed(PassedCounts { connections: 3, since: 1 << 40 }),
        ]);
        survives(vec![
            ToFirst::Ready(vec![Some(1), None]),
            ToFirst::Ready(vec![]),
            ToFirst::Serving(false),
            ToFirst::Serving(true),
            ToFirst::Reload(None),
            ToFirst::Reload(Some(60_000)),
            ToFirst::Stopping(true),
            ToFirst::Alive,
        ]);
        survives(vec![
            FromFirst::Introduce,
            FromFirst::Succeed(vec![None, Some(0)]),
            FromFirst::Signal(15),
            FromFirst::ServeAlone,
            FromFirst::Push,
            FromFirst::Ping,
        ]);
    }

    #[test]
    fn another_version_is_refused() {
        let hello = Hello { clock: 1, sockets: 0, group: 1, warned: false, has_key: false };
        let mut hello = FromPredecessor::Hello(hello).encode();
        hello[1] += 1;
        assert_eq!(FromPredecessor::decode(&hello), Err(Garbage));
        assert_eq!(ToFirst::decode(b"r1234567"), Err(Garbage));
        assert_eq!(FromFirst::decode(b"zz"), Err(Garbage));
    }
}
