//! Connections on their way to the next generation, many in one message (pure).
//!
//! An idle connection takes a hundred bytes and a descriptor. With a message for each, the system calls for
//! the messages would cost more than all else that is done with it.

use super::connection_state::ConnectionState;
use super::message::{Garbage, WAKEUPS, wakeup_number};
use super::numbers::{append, optional, present, split};
use crate::io::Wakeup;
use crate::sys::os::receive::MAX_DESCRIPTORS;

/// How many bytes of a message announce its descriptors, see [`Batch::announced`].
pub const ANNOUNCEMENT: usize = 1 + 8;

/// What a connection takes of a message beside its state, in bytes.
const EACH: usize = 8 * NUMBERS;

const NUMBERS: usize = 4;

/// The byte that names the message.
const KIND: u8 = b'c';

/// A connection that the next generation is to have. Its descriptor, and the file with its data if there is
/// one, come with the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedConnection {
    /// Its pool there.
    pub pool: u64,
    /// With a reason to wake its handler it waits for a worker, else for its client.
    pub wakeup: Option<Wakeup>,
    /// Its data is in a file.
    pub has_file: bool,
    /// What follows it.
    pub state: ConnectionState,
}

impl PassedConnection {
    fn size(&self) -> usize {
        EACH + self.state.size()
    }

    fn descriptors(&self) -> usize {
        1 + usize::from(self.has_file)
    }
}

/// Connections that share a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    connections: Vec<PassedConnection>,
    size: usize,
    descriptors: usize,
}

impl Batch {
    /// Whether a message of `most` bytes has room for a connection in this state.
    pub fn fits(state: &ConnectionState, most: usize) -> bool {
        ANNOUNCEMENT + EACH + state.size() <= most
    }

    /// Whether a message of `most` bytes has room for this connection as well.
    pub fn has_room(&self, connection: &PassedConnection, most: usize) -> bool {
        ANNOUNCEMENT + self.size + connection.size() <= most
            && self.descriptors + connection.descriptors() <= MAX_DESCRIPTORS
    }

    /// Adds a connection.
    pub fn add(&mut self, connection: PassedConnection) {
        self.size += connection.size();
        self.descriptors += connection.descriptors();
        self.connections.push(connection);
    }

    /// How many descriptors come with the message that begins with these bytes, if it has connections.
    pub fn announced(beginning: &[u8]) -> usize {
        match beginning {
            [KIND, rest @ ..] => split::<1>(rest).map_or(0, |([count], _)| count as usize),
            _ => 0,
        }
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(ANNOUNCEMENT + self.size);
        message.push(KIND);
        append(&mut message, &[self.descriptors as u64]);
        for PassedConnection { pool, wakeup, has_file, state } in &self.connections {
            let size = state.size() as u64;
            let wakeup = optional(wakeup.map(wakeup_number));
            append(&mut message, &[size, *pool, wakeup, u64::from(*has_file)]);
            state.encode(&mut message);
        }
        message
    }

    /// The connections of a message; none if it is another one.
    pub fn decode(message: &[u8]) -> Result<Option<Self>, Garbage> {
        let [KIND, rest @ ..] = message else { return Ok(None) };
        let ([descriptors], mut rest) = split::<1>(rest)?;
        let mut batch = Batch::default();
        while !rest.is_empty() {
            let ([size, pool, wakeup, file], after) = split::<NUMBERS>(rest)?;
            let (state, after) = after.split_at_checked(size as usize).ok_or(Garbage)?;
            let wakeup = match present(wakeup) {
                Some(number) => Some(*WAKEUPS.get(number as usize).ok_or(Garbage)?),
                None => None,
            };
            let (has_file, state) = (file != 0, ConnectionState::decode(state)?);
            batch.add(PassedConnection { pool, wakeup, has_file, state });
            rest = after;
        }
        if batch.descriptors as u64 == descriptors { Ok(Some(batch)) } else { Err(Garbage) }
    }
}

impl IntoIterator for Batch {
    type Item = PassedConnection;
    type IntoIter = std::vec::IntoIter<PassedConnection>;

    fn into_iter(self) -> Self::IntoIter {
        self.connections.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::MAX_MESSAGE;
    use super::*;
    use crate::proxy::proxied::{Proxied, Told};

    fn connection(data: usize, has_file: bool) -> PassedConnection {
        let state = ConnectionState { data: vec![7; data], ..ConnectionState::default() };
        PassedConnection { pool: 2, wakeup: has_file.then_some(Wakeup::Input), has_file, state }
    }

    #[test]
    fn connections_survive_their_encoding_and_are_announced() {
        let mut batch = Batch::default();
        for (data, has_file) in [(0, false), (9, false), (0, true)] {
            batch.add(connection(data, has_file));
        }
        let header = Told::read(b"PROXY UNKNOWN\r\n").unwrap();
        let mut proxied = connection(0, false);
        proxied.state.attributes.proxied = Proxied::By(header);
        batch.add(proxied);
        let message = batch.encode();
        assert_eq!(message.len(), ANNOUNCEMENT + batch.size);
        assert_eq!(Batch::announced(&message[..ANNOUNCEMENT]), 5);
        assert_eq!(Batch::decode(&message), Ok(Some(batch)));
    }

    #[test]
    fn other_messages_are_none_and_what_is_cut_off_is_garbage() {
        assert_eq!((Batch::announced(b"S"), Batch::announced(b"c1")), (0, 0));
        assert_eq!(Batch::decode(b"S"), Ok(None));
        let mut batch = Batch::default();
        batch.add(connection(5, false));
        let message = batch.encode();
        for length in 1..message.len() {
            let cut = Batch::decode(&message[..length]);
            assert_eq!(cut, Err(Garbage), "{length} bytes");
        }
    }

    #[test]
    fn a_message_has_room_for_so_many_descriptors_and_bytes() {
        for (data, has_file, count) in [(0, false, 253), (0, true, 126), (24_000, false, 4)] {
            let (mut batch, next) = (Batch::default(), connection(data, has_file));
            while batch.has_room(&next, MAX_MESSAGE) {
                batch.add(next.clone());
            }
            assert_eq!(batch.connections.len(), count);
            assert!(batch.encode().len() <= MAX_MESSAGE);
        }
    }
}
