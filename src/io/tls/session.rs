//! The TLS session of a connection: opens the records that were received and seals what is to be sent,
//! without system calls. The handshake is a state of it: whoever reads or writes drives it.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState, HandshakeKind, InvalidMessage, ServerConfig};
use sha2::{Digest, Sha256};

use super::failure;
use super::records::Records;
use super::resolver::take_asked_name;
use super::verifier::hexadecimal;
use super::x509::Certificate;
use crate::io::buffer::Queue;
use crate::sys::os::error_text::CodedError;

/// The size of one receive: a record of the largest size (RFC 8446, 5.2).
const RECEIVE_SIZE: usize = 5 + 16 * 1024 + 256;

/// The largest size of one receive, which bulk transfers get.
const LARGEST_RECEIVE: usize = 4 * RECEIVE_SIZE;

/// How much may be received that cannot be processed: the messages of a handshake, in records of
/// whatever size.
const INCOMPLETE_LIMIT: usize = 256 * 1024;

/// How much is sealed before it is sent.
const SEAL_SIZE: usize = 64 * 1024;

/// Parts up to this size share a record.
const JOIN_SIZE: usize = 16 * 1024;

/// Which end of the connection this is.
enum Role {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// A certificate that a peer has shown.
pub struct PeerCertificate<'a> {
    /// As it was shown.
    pub der: &'a [u8],
    /// Whom it is for, as text.
    pub subject: Option<String>,
    /// SHA-256 of it, in pairs of hexadecimal digits and colons.
    pub fingerprint: String,
}

/// A connection's records and keys.
pub struct TlsSession {
    role: Role,
    /// Who the peer is expected to be, for messages; empty if that is not known.
    peer_name: String,
    /// The name of a server that its client has asked for.
    asked_name: Option<String>,
    /// Received and not processed.
    incoming: Queue,
    /// The size of the next receive.
    receive_size: usize,
    /// Opened and not taken.
    plaintext: Vec<u8>,
    /// Sealed, or of the handshake, and not sent.
    outgoing: Records,
    /// How many bytes of what is to be sent are sealed in `outgoing`.
    sealed: usize,
    /// The peer has said that it sends no more.
    peer_ended: bool,
    /// This side has said so.
    ended: bool,
    /// Why nothing can be received any more.
    failure: Option<CodedError>,
    /// The library has failed: it must not be asked again.
    broken: bool,
}

impl fmt::Debug for TlsSession {
    // Without keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession").field("peer_name", &self.peer_name).finish_non_exhaustive()
    }
}

impl TlsSession {
    /// The client's end.
    ///
    /// # Errors
    /// The configuration does not suit the peer.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<TlsSession> {
        let peer_name = name.to_str().into_owned();
        let connection = UnbufferedClientConnection::new(config, name)
            .map_err(|error| failure::describe(&error, &peer_name))?;
        TlsSession::new(Role::Client(connection), peer_name)
    }

    /// The server's end.
    ///
    /// # Errors
    /// The configuration is of no use.
    pub fn server(config: Arc<ServerConfig>) -> io::Result<TlsSession> {
        let connection = UnbufferedServerConnection::new(config)
            .map_err(|error| failure::describe(&error, ""))?;
        TlsSession::new(Role::Server(connection), String::new())
    }

    fn new(role: Role, peer_name: String) -> io::Result<TlsSession> {
        let mut session = TlsSession {
            role,
            peer_name,
            asked_name: None,
            incoming: Queue::new(),
            receive_size: RECEIVE_SIZE,
            plaintext: Vec::new(),
            outgoing: Records::default(),
            sealed: 0,
            peer_ended: false,
            ended: false,
            failure: None,
            broken: false,
        };
        session.process();
        match session.failure {
            Some(failure) => Err(failure.into()),
            None => Ok(session),
        }
    }

    fn state(&self) -> &CommonState {
        match &self.role {
            Role::Client(connection) => connection,
            Role::Server(connection) => connection,
        }
    }

    /// Whether the handshake has come to its end.
    pub fn is_established(&self) -> bool {
        !self.state().is_handshaking()
    }

    /// Whether the handshake goes on.
    pub fn is_handshaking(&self) -> bool {
        self.failure.is_none() && !self.is_established()
    }

    /// Whether the handshake was shortened by a ticket.
    pub fn is_resumed(&self) -> bool {
        self.state().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// `1.3` or `1.2`, once that is agreed on.
    pub fn version(&self) -> Option<&'static str> {
        match self.state().protocol_version()? {
            rustls::ProtocolVersion::TLSv1_3 => Some("1.3"),
            rustls::ProtocolVersion::TLSv1_2 => Some("1.2"),
            _ => None,
        }
    }

    /// The cipher suite's name in the registry of IANA, once it is agreed on.
    pub fn cipher(&self) -> Option<String> {
        let name = self.state().negotiated_cipher_suite()?.suite().as_str()?;
        // Since version 1.3 the names say no more than the cipher, without the protocol's prefix.
        Some(name.replacen("TLS13_", "TLS_", 1))
    }

    /// The protocol that was agreed on (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.state().alpn_protocol()
    }

    /// The peer's own certificate, if it has shown one.
    pub fn peer_certificate(&self) -> Option<PeerCertificate<'_>> {
        let der: &[u8] = self.state().peer_certificates()?.first()?;
        let subject = Certificate::parse(der).map(|certificate| certificate.subject);
        Some(PeerCertificate { der, subject, fingerprint: hexadecimal(&Sha256::digest(der)) })
    }

    /// The name of the server that the client asks for.
    pub fn server_name(&self) -> Option<&str> {
        match &self.role {
            Role::Client(_) => Some(&self.peer_name),
            Role::Server(_) => self.asked_name.as_deref(),
        }
    }

    // Input.

    /// What was received before the session was there.
    pub fn preload(&mut self, bytes: &[u8]) {
        self.incoming.push(bytes);
        self.process();
    }

    /// Whether the client has begun with a request of HTTP instead of a handshake.
    pub fn is_plain_http(&self) -> bool {
        const BEGINNINGS: [&[u8; 5]; 9] = [
            b"GET /", b"HEAD ", b"POST ", b"PUT /", b"DELET", b"OPTIO", b"PATCH", b"CONNE",
            b"TRACE",
        ];
        let received = self.incoming.live();
        let is_begun = matches!(self.role, Role::Server(_)) && !self.is_established();
        is_begun && BEGINNINGS.iter().any(|beginning| received.starts_with(*beginning))
    }

    /// Where to receive.
    pub fn room(&mut self) -> &mut Vec<u8> {
        if self.incoming.len() >= self.receive_size {
            self.receive_size = (self.receive_size * 2).min(LARGEST_RECEIVE);
        }
        self.incoming.tail(self.receive_size)
    }

    /// Processes what was received. Plaintext, an end or a failure is then there to be taken, and
    /// answers to be sent.
    pub fn process(&mut self) {
        if self.failure.is_some() {
            return;
        }
        if self.is_plain_http() {
            // An alert would come before an answer that the client understands.
            self.broken = true;
            let error = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
            self.failure = Some(failure::describe(&error, &self.peer_name));
            return;
        }
        let outcome = self.advance();
        if matches!(self.role, Role::Server(_))
            && let Some(name) = take_asked_name()
        {
            self.asked_name = Some(name);
        }
        if let Err(error) = outcome {
            self.fail(failure::describe(&error, &self.peer_name));
        } else if self.incoming.len() > INCOMPLETE_LIMIT {
            self.fail(failure::oversized(&self.peer_name));
        }
    }

    /// Keeps the failure, and what the protocol says to the peer about it.
    fn fail(&mut self, failure: CodedError) {
        self.failure = Some(failure);
        self.broken = true;
        while self.state().wants_write() && matches!(self.step(), Ok(Step::Encoded)) {}
    }

    fn advance(&mut self) -> Result<(), rustls::Error> {
        let before = self.incoming.len();
        loop {
            match self.step()? {
                Step::Encoded | Step::Opened => {}
                Step::PeerEnded => self.peer_ended = true,
                Step::Nothing => break,
            }
        }
        if before - self.incoming.len() >= self.receive_size {
            self.receive_size = (self.receive_size * 2).min(LARGEST_RECEIVE);
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Step, rustls::Error> {
        let TlsSession { role, incoming, plaintext, outgoing, .. } = self;
        let (discard, step) = match role {
            Role::Client(connection) => {
                step(connection.process_tls_records(incoming.live_mut()), plaintext, outgoing)
            }
            Role::Server(connection) => {
                step(connection.process_tls_records(incoming.live_mut()), plaintext, outgoing)
            }
        };
        incoming.consume(discard);
        step
    }

    /// Moves opened input behind `buffer`; how many bytes, 0 at the end; `None` if there is none yet.
    ///
    /// # Errors
    /// Why nothing can be received any more.
    pub fn take_plaintext(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        match (self.plaintext.len(), &self.failure) {
            (0, Some(failure)) => Err(failure.clone().into()),
            (0, None) if self.peer_ended => Ok(Some(0)),
            (0, None) => Ok(None),
            (n, _) => {
                buffer.append(&mut self.plaintext);
                Ok(Some(n))
            }
        }
    }

    /// Whether there is input, or an end, to be taken.
    pub fn has_received(&self) -> bool {
        !self.plaintext.is_empty() || self.peer_ended || self.failure.is_some()
    }

    /// The descriptor has ended: too early in the handshake, or without the word that says so.
    pub fn end(&mut self) {
        if !self.peer_ended && self.failure.is_none() {
            self.failure = Some(failure::end(self.is_handshaking(), &self.peer_name));
        }
    }

    // Output.

    /// Seals the next bytes of the parts behind their first `sent` ones, once the handshake is over;
    /// whether there is something to be sent now.
    ///
    /// # Errors
    /// The keys are used up.
    pub fn seal(&mut self, parts: &[IoSlice<'_>], sent: usize) -> io::Result<bool> {
        match &self.failure {
            Some(failure) if self.broken || !self.is_established() => {
                return Err(failure.clone().into());
            }
            None if !self.is_established() => return Ok(false),
            _ => {}
        }
        let joined;
        let next = match next(parts, sent, SEAL_SIZE) {
            Next::Nothing => return Ok(false),
            Next::Part(part) => part,
            Next::Parts(bytes) => {
                joined = bytes;
                &joined
            }
        };
        let TlsSession { role, incoming, outgoing, .. } = self;
        let sealed = match role {
            Role::Client(connection) => {
                seal(connection.process_tls_records(incoming.live_mut()), next, outgoing)
            }
            Role::Server(connection) => {
                seal(connection.process_tls_records(incoming.live_mut()), next, outgoing)
            }
        };
        if !sealed {
            let failure = failure::unsealed(&self.peer_name);
            return Err(self.failure.clone().unwrap_or(failure).into());
        }
        self.sealed = next.len();
        Ok(true)
    }

    /// What is to be sent now.
    pub fn unsent(&self) -> &[u8] {
        self.outgoing.waiting()
    }

    /// Whether something is to be sent now.
    pub fn has_unsent(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The first `n` bytes of what was to be sent are sent.
    pub fn sent(&mut self, n: usize) {
        self.outgoing.sent(n);
    }

    /// All is sent; how many bytes that were sealed in it.
    pub fn take_sent(&mut self) -> usize {
        std::mem::take(&mut self.sealed)
    }

    /// Tells the peer that nothing further comes, once the handshake is over (RFC 8446, 6.1).
    pub fn close_notify(&mut self) {
        if self.broken || !self.is_established() || std::mem::replace(&mut self.ended, true) {
            return;
        }
        let TlsSession { role, incoming, outgoing, .. } = self;
        match role {
            Role::Client(connection) => {
                close_notify(connection.process_tls_records(incoming.live_mut()), outgoing);
            }
            Role::Server(connection) => {
                close_notify(connection.process_tls_records(incoming.live_mut()), outgoing);
            }
        }
    }

    /// Gives back memory that an idle connection does not need.
    pub fn release(&mut self) {
        self.incoming.release();
        self.outgoing.release();
        if self.plaintext.is_empty() {
            self.plaintext = Vec::new();
        }
        self.receive_size = RECEIVE_SIZE;
    }
}

/// What processing has come to.
enum Step {
    /// Something is to be sent; there may be more.
    Encoded,
    /// Input was opened; there may be more.
    Opened,
    /// The peer has said that it sends no more.
    PeerEnded,
    /// More has to be received for anything further.
    Nothing,
}

/// Carries out what the library asks for; how many received bytes are done with.
fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plaintext: &mut Vec<u8>,
    outgoing: &mut Records,
) -> (usize, Result<Step, rustls::Error>) {
    let mut discard = status.discard;
    let step = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Step::Opened),
                Some(Err(error)) => break Err(error),
                Some(Ok(record)) => {
                    discard += record.discard;
                    plaintext.extend_from_slice(record.payload);
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let mut size = 0;
            loop {
                match data.encode(outgoing.room(size)) {
                    Ok(n) => {
                        outgoing.written(n);
                        break Ok(Step::Encoded);
                    }
                    Err(EncodeError::InsufficientSize(error)) => size = error.required_size,
                    Err(EncodeError::AlreadyEncoded) => break Ok(Step::Nothing),
                }
            }
        }
        // From here on it is our concern that it gets there.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Encoded)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerEnded),
        Ok(_) => Ok(Step::Nothing),
    };
    (discard, step)
}

/// Seals `bytes`; whether that was possible.
fn seal<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    bytes: &[u8],
    outgoing: &mut Records,
) -> bool {
    // Header, nonce and tag of each record, and a message that changes the keys.
    let size = bytes.len() + (bytes.len() / JOIN_SIZE + 1) * 64 + 128;
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            write(&mut traffic, size, outgoing, |traffic, room| traffic.encrypt(bytes, room))
        }
        _ => false,
    }
}

fn close_notify<Data>(status: UnbufferedStatus<'_, '_, Data>, outgoing: &mut Records) {
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
        write(&mut traffic, 128, outgoing, |traffic, room| traffic.queue_close_notify(room));
    }
}

fn write<Data>(
    traffic: &mut WriteTraffic<'_, Data>,
    mut size: usize,
    outgoing: &mut Records,
    encrypt: impl Fn(&mut WriteTraffic<'_, Data>, &mut [u8]) -> Result<usize, EncryptError>,
) -> bool {
    loop {
        match encrypt(traffic, outgoing.room(size)) {
            Ok(n) => {
                outgoing.written(n);
                return true;
            }
            Err(EncryptError::InsufficientSize(error)) => size = error.required_size,
            Err(EncryptError::EncryptExhausted) => return false,
        }
    }
}

/// The next bytes to seal.
enum Next<'a> {
    Nothing,
    /// Of one part.
    Part(&'a [u8]),
    /// Of several small parts.
    Parts(Vec<u8>),
}

/// The next bytes behind the first `sent` ones of the parts: up to `limit` of one, or several that
/// fit into a record.
fn next<'a>(parts: &'a [IoSlice<'_>], mut sent: usize, limit: usize) -> Next<'a> {
    let mut rest = parts.iter().filter_map(|part| {
        let skipped = sent.min(part.len());
        sent -= skipped;
        part.get(skipped..).filter(|part| !part.is_empty())
    });
    let Some(first) = rest.next() else { return Next::Nothing };
    let mut joined = Vec::new();
    if first.len() < JOIN_SIZE {
        for part in rest {
            if joined.is_empty() {
                joined.extend_from_slice(first);
            }
            let room = JOIN_SIZE - joined.len();
            joined.extend_from_slice(part.get(..room).unwrap_or(part));
            if joined.len() == JOIN_SIZE {
                break;
            }
        }
    }
    match joined.is_empty() {
        true => Next::Part(first.get(..limit).unwrap_or(first)),
        false => Next::Parts(joined),
    }
}
