//! TLS 1.3 after the handshake, seen from the server (RFC 8446 5): opens the records of a client and seals those
//! for it, changes keys when one of the two asks for it (4.6.3), and reports ends and failures (6). Pure: any process
//! with the secrets and the numbers of the next records can go on.

mod format;
#[cfg(test)]
mod tests;
pub mod traffic_keys;

use format::APPLICATION_DATA;
pub use format::{ALERT, HEADER, MAX_PLAINTEXT, OVERHEAD, RecordFailure, TAG};
use traffic_keys::TrafficKeys;

/// How long a sealed record may be without its header (RFC 8446 5.2).
const MAX_CIPHERTEXT: usize = MAX_PLAINTEXT + 256;

/// How many records in a row may say nothing: empty ones, and those that change keys.
const MOST_IDLE: u8 = 32;

// Types of records (RFC 8446 B.1), beside the one in which they are all sealed.
const HANDSHAKE: u8 = 22;

// Alerts (RFC 8446 6).
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// `KeyUpdate`, and the length of what it says (RFC 8446 4.6.3).
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

/// What was found in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordsOpened {
    /// Perhaps data; more is to be received for anything further.
    More,
    /// The peer sends no more.
    End,
}

/// The records of a connection.
pub struct RecordLayer {
    receiving: TrafficKeys,
    sending: TrafficKeys,
    /// The peer has asked for other keys, which come before what is sent next.
    owes_update: bool,
    /// Keys have changed since [`RecordLayer::take_changed`].
    changed: bool,
    /// The beginning of a message whose rest is in a later record.
    begun: [u8; 4],
    begun_length: usize,
    /// How many records in a row have said nothing.
    idle: u8,
}

impl RecordLayer {
    /// With the keys of both directions.
    pub fn new(receiving: TrafficKeys, sending: TrafficKeys, owes_update: bool) -> RecordLayer {
        RecordLayer {
            receiving,
            sending,
            owes_update,
            changed: false,
            begun: [0; 4],
            begun_length: 0,
            idle: 0,
        }
    }

    /// The keys that open, those that seal, and whether the peer has asked for others.
    pub fn keys(&self) -> (&TrafficKeys, &TrafficKeys, bool) {
        (&self.receiving, &self.sending, self.owes_update)
    }

    /// Whether the secrets and numbers are all there is to know.
    pub fn is_between_messages(&self) -> bool {
        self.begun_length == 0
    }

    /// Whether the keys have changed since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    // Input.

    /// Opens the complete records of `incoming`, in place, and appends their data to `plaintext`. Returns how many bytes
    /// are done with, and what was found. After an end or a failure nothing more is to be opened.
    pub fn open(
        &mut self,
        incoming: &mut [u8],
        plaintext: &mut Vec<u8>,
    ) -> (usize, Result<RecordsOpened, RecordFailure>) {
        let mut done = 0;
        loop {
            let rest = incoming.get_mut(done..).unwrap_or_default();
            let record = match next_record(rest) {
                Ok(Some(length)) => rest.get_mut(..length).unwrap_or_default(),
                Ok(None) => return (done, Ok(RecordsOpened::More)),
                Err(failure) => return (done, Err(failure)),
            };
            done += record.len();
            match self.open_one(record, plaintext) {
                Ok(RecordsOpened::More) => {}
                // What follows an end is to be ignored (RFC 8446 6.1).
                Ok(RecordsOpened::End) => return (incoming.len(), Ok(RecordsOpened::End)),
                Err(failure) => return (done, Err(failure)),
            }
        }
    }

    fn open_one(
        &mut self,
        record: &mut [u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<RecordsOpened, RecordFailure> {
        let (kind, content) = self.receiving.open(record)?;
        let content = record.get(content).unwrap_or_default();
        // Nothing may come between the parts of a message (RFC 8446 5.1).
        if self.begun_length > 0 && kind != HANDSHAKE {
            return Err(RecordFailure::Unexpected);
        }
        self.idle += 1;
        match kind {
            APPLICATION_DATA => {
                if !content.is_empty() {
                    self.idle = 0;
                }
                plaintext.extend_from_slice(content);
            }
            HANDSHAKE => self.handshake(content)?,
            ALERT => match content {
                [_, CLOSE_NOTIFY] => return Ok(RecordsOpened::End),
                [_, USER_CANCELED] => {}
                [_, alert] => return Err(RecordFailure::Alert(*alert)),
                // RFC 8446 5.4.
                [] => return Err(RecordFailure::Unexpected),
                _ => return Err(RecordFailure::Malformed),
            },
            _ => return Err(RecordFailure::Unexpected),
        }
        if self.idle > MOST_IDLE { Err(RecordFailure::Unexpected) } else { Ok(RecordsOpened::More) }
    }

    /// A part of a message: the only one that a client may send here changes its keys.
    fn handshake(&mut self, content: &[u8]) -> Result<(), RecordFailure> {
        let mut message = [0; 5];
        let length = self.begun_length + content.len();
        if content.is_empty() || length > message.len() {
            // Changed keys begin with a record (RFC 8446 5.1).
            return Err(RecordFailure::Unexpected);
        }
        let begun = self.begun.iter().take(self.begun_length).chain(content);
        message.iter_mut().zip(begun).for_each(|(to, from)| *to = *from);
        let known = message.iter().take(length).zip(&KEY_UPDATE).all(|(is, must)| is == must);
        if !known {
            return Err(if message[0] == KEY_UPDATE[0] {
                RecordFailure::Malformed
            } else {
                RecordFailure::Unexpected
            });
        }
        if length < message.len() {
            self.begun.copy_from_slice(&message[..4]);
            self.begun_length = length;
            return Ok(());
        }
        self.begun_length = 0;
        match message[4] {
            UPDATE_NOT_REQUESTED => {}
            UPDATE_REQUESTED => self.owes_update = true,
            _ => return Err(RecordFailure::Illegal),
        }
        self.changed = true;
        self.receiving.update()
    }

    // Output.

    /// How much room [`RecordLayer::seal`] needs for so many bytes.
    pub fn room_for(&self, length: usize) -> usize {
        length + (length.div_ceil(MAX_PLAINTEXT) + 2) * OVERHEAD + KEY_UPDATE.len() + 1
    }

    /// Seals data, and before it what changes the keys if the peer has asked for that or they are used up. Returns how
    /// much of the room is filled.
    ///
    /// # Errors
    /// There are no keys left.
    pub fn seal(&mut self, data: &[u8], room: &mut [u8]) -> Result<usize, RecordFailure> {
        let records = data.len().div_ceil(MAX_PLAINTEXT) as u64;
        let mut filled = 0;
        // The message itself takes a number, and an alert may follow.
        if self.owes_update || !self.sending.suffices_for(records + 2) {
            filled += self.update(room)?;
        }
        for part in data.chunks(MAX_PLAINTEXT) {
            let rest = room.get_mut(filled..).unwrap_or_default();
            filled += self.sending.seal(APPLICATION_DATA, part, rest)?;
        }
        Ok(filled)
    }

    fn update(&mut self, room: &mut [u8]) -> Result<usize, RecordFailure> {
        let [kind, high, middle, low] = KEY_UPDATE;
        let message = [kind, high, middle, low, UPDATE_NOT_REQUESTED];
        let filled = self.sending.seal(HANDSHAKE, &message, room)?;
        self.sending.update()?;
        (self.owes_update, self.changed) = (false, true);
        Ok(filled)
    }

    /// Says that nothing further is sent (RFC 8446 6.1). Returns how much of the room is filled.
    ///
    /// # Errors
    /// There are no keys left.
    pub fn close_notify(&mut self, room: &mut [u8]) -> Result<usize, RecordFailure> {
        self.sending.seal(ALERT, &[WARNING, CLOSE_NOTIFY], room)
    }

    /// Says why the connection ends. Returns how much of the room is filled.
    pub fn tell(&mut self, failure: RecordFailure, room: &mut [u8]) -> usize {
        let Some(alert) = failure.alert() else { return 0 };
        self.sending.seal(ALERT, &[FATAL, alert], room).unwrap_or(0)
    }
}

/// The length of the record that `incoming` begins with, if it is complete.
fn next_record(incoming: &[u8]) -> Result<Option<usize>, RecordFailure> {
    // The version means nothing (RFC 8446 5.1).
    let Some([kind, _, _, high, low]) = incoming.first_chunk::<HEADER>() else { return Ok(None) };
    if *kind != APPLICATION_DATA {
        return Err(RecordFailure::Unexpected);
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    match length {
        ..=TAG => Err(RecordFailure::BadRecord),
        MAX_CIPHERTEXT.. if length > MAX_CIPHERTEXT => Err(RecordFailure::Overflow),
        _ => Ok(Some(HEADER + length).filter(|end| *end <= incoming.len())),
    }
}
