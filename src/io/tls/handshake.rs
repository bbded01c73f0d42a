//! A server's end as long as `rustls` has it: the handshake, and with TLS 1.2 all that comes after it.

use rustls::server::UnbufferedServerConnection;
use rustls::{Error, ProtocolVersion};

use super::established::{Secrets, take_secrets};
use super::record;
use super::records::Records;
use super::resolver::take_asked_name;
use super::tickets;
use super::unbuffered::{self, Step};
use crate::io::buffer::Queue;
use crate::sys::os::secret::Secret;
use crate::sys::os::secret_heap::secretly;

/// A server's end as long as the library has it.
pub struct Handshake {
    pub connection: UnbufferedServerConnection,
    /// The name that the client has asked for.
    pub asked_name: Option<String>,
    /// Until when the certificate is valid that the client has shown, in seconds since 1970.
    peer_end: Option<i64>,
    /// What the keys of TLS 1.3 follow from.
    pub secrets: Option<Secret<Secrets>>,
    /// How many received bytes are records that the library has seen and still needs.
    seen: usize,
}

impl Handshake {
    /// The beginning.
    pub fn new(connection: UnbufferedServerConnection) -> Handshake {
        Handshake { connection, asked_name: None, peer_end: None, secrets: None, seen: 0 }
    }

    /// Whether the handshake is one of TLS 1.3 and over.
    pub fn is_over(&self) -> bool {
        !self.connection.is_handshaking()
            && self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            && self.secrets.is_some()
    }

    /// Processes one record more than before at a time, so that the library gets none after the handshake: its
    /// numbers and keys are then those that the handshake ends with.
    ///
    /// # Errors
    /// The session has failed.
    pub fn step(
        &mut self,
        incoming: &mut Queue,
        plaintext: &mut Vec<u8>,
        outgoing: &mut Records,
    ) -> Result<Step, Error> {
        loop {
            let next = match self.connection.is_handshaking() {
                true => end_of_record(incoming.live(), self.seen),
                false => None,
            };
            let record = incoming.live().get(self.seen..).filter(|_| next.is_some());
            let has_begun = self.connection.protocol_version().is_some();
            if let Some(alert) = record.and_then(|it| unbuffered::end_of_handshake(it, has_begun)) {
                return Err(Error::AlertReceived(alert));
            }
            // The beginning of a record may be wrong already.
            let end = next.unwrap_or(incoming.len());
            let records = incoming.live_mut().get_mut(..end).unwrap_or_default();
            tickets::set_peer_end(self.peer_end);
            let status = secretly(|| self.connection.process_tls_records(records));
            let (discard, outcome) = unbuffered::step(status, plaintext, outgoing);
            self.peer_end = tickets::take_peer_end();
            incoming.consume(discard);
            self.seen = next.unwrap_or(self.seen).saturating_sub(discard);
            if let Some(name) = take_asked_name() {
                self.asked_name = Some(name);
            }
            if let Some(secrets) = take_secrets() {
                self.secrets = Some(secrets);
            }
            let is_last = next.is_none() || self.seen >= incoming.len();
            if outcome != Ok(Step::Nothing) || is_last || self.is_over() {
                return outcome;
            }
        }
    }
}

/// Where the record ends that begins at `from`, if it is complete.
fn end_of_record(bytes: &[u8], from: usize) -> Option<usize> {
    let [_, _, _, high, low] = bytes.get(from..)?.first_chunk::<{ record::HEADER }>()?;
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    Some(from + record::HEADER + length).filter(|end| *end <= bytes.len())
}
