//! What turns a session's bytes into records and back: `rustls`, and after the handshake of TLS 1.3 with a client of
//! ours, records of our own ([`super::record`]), which other processes can go on with.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{
    AlertDescription, CommonState, Error, HandshakeKind, InvalidMessage, ProtocolVersion,
};

use super::established::{Established, SessionFacts};
use super::handshake::Handshake;
use super::record::{RecordFailure, RecordsOpened};
use super::records::Records;
use super::unbuffered::{self, Step};
use crate::io::buffer::Queue;
use crate::sys::os::secret_heap::secretly;

/// One of the two ends of a session.
pub enum Engine {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<Handshake>),
    /// A server's end of TLS 1.3 after the handshake.
    Records(Box<Established>),
    /// It has failed on the way from one to the other.
    Over,
}

impl Engine {
    /// The client's end.
    pub fn client(connection: UnbufferedClientConnection) -> Engine {
        Engine::Client(Box::new(connection))
    }

    /// The server's end.
    pub fn server(connection: UnbufferedServerConnection) -> Engine {
        Engine::Server(Box::new(Handshake::new(connection)))
    }

    /// What the library knows, as long as it has the session.
    fn state(&self) -> Option<&CommonState> {
        match self {
            Engine::Client(connection) => Some(connection),
            Engine::Server(handshake) => Some(&handshake.connection),
            Engine::Records(_) | Engine::Over => None,
        }
    }

    /// Whether this is the server's end.
    pub fn is_server(&self) -> bool {
        !matches!(self, Engine::Client(_))
    }

    /// The session, if it can move to another process.
    pub fn established(&self) -> Option<&Established> {
        match self {
            Engine::Records(established) => Some(established),
            _ => None,
        }
    }

    /// Whether the handshake has come to its end.
    pub fn is_established(&self) -> bool {
        self.state().is_none_or(|state| !state.is_handshaking())
    }

    /// Whether the handshake was shortened by a ticket.
    pub fn is_resumed(&self) -> bool {
        match self {
            Engine::Records(established) => established.known.resumed,
            _ => self.state().is_some_and(|it| it.handshake_kind() == Some(HandshakeKind::Resumed)),
        }
    }

    /// `1.3` or `1.2`, once that is agreed on.
    pub fn version(&self) -> Option<&'static str> {
        if let Engine::Records(_) = self {
            return Some("1.3");
        }
        match self.state()?.protocol_version()? {
            ProtocolVersion::TLSv1_3 => Some("1.3"),
            ProtocolVersion::TLSv1_2 => Some("1.2"),
            _ => None,
        }
    }

    /// The cipher suite's name in the registry of IANA, once it is agreed on.
    pub fn cipher(&self) -> Option<String> {
        if let Engine::Records(established) = self {
            return Some(established.cipher().to_owned());
        }
        let name = self.state()?.negotiated_cipher_suite()?.suite().as_str()?;
        // Since version 1.3 the names say no more than the cipher, without the protocol's prefix.
        Some(name.replacen("TLS13_", "TLS_", 1))
    }

    /// The protocol that was agreed on (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Engine::Records(established) => established.known.alpn.as_deref(),
            _ => self.state()?.alpn_protocol(),
        }
    }

    /// The peer's own certificate, if it has shown one.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        match self {
            Engine::Records(established) => established.known.certificate.as_deref(),
            _ => self.state()?.peer_certificates()?.first().map(|der| &**der),
        }
    }

    /// The name that a client has asked its server for.
    pub fn asked_name(&self) -> Option<&str> {
        match self {
            Engine::Server(handshake) => handshake.asked_name.as_deref(),
            Engine::Records(established) => established.known.server_name.as_deref(),
            Engine::Client(_) | Engine::Over => None,
        }
    }

    /// Processes a part of what was received.
    ///
    /// # Errors
    /// The session has failed; [`Engine::encode_alert`] encodes what the peer is told.
    pub fn step(
        &mut self,
        incoming: &mut Queue,
        plaintext: &mut Vec<u8>,
        outgoing: &mut Records,
    ) -> Result<Step, Error> {
        match self {
            Engine::Client(connection) => {
                let end = unbuffered::end_of_handshake(incoming.live(), true);
                if let Some(alert) = end.filter(|_| connection.is_handshaking()) {
                    return Err(Error::AlertReceived(alert));
                }
                let status = secretly(|| connection.process_tls_records(incoming.live_mut()));
                let (discard, step) = unbuffered::step(status, plaintext, outgoing);
                incoming.consume(discard);
                step
            }
            Engine::Server(handshake) => match handshake.step(incoming, plaintext, outgoing)? {
                Step::Nothing if self.establish()? => Ok(Step::Opened),
                step => Ok(step),
            },
            Engine::Records(established) => {
                let (done, outcome) = established.layer.open(incoming.live_mut(), plaintext);
                incoming.consume(done);
                established.note_changes();
                match outcome {
                    Ok(RecordsOpened::More) => Ok(Step::Nothing),
                    Ok(RecordsOpened::End) => Ok(Step::PeerEnded),
                    Err(failure) => {
                        let told = established.layer.tell(failure, outgoing.room(64));
                        outgoing.written(told);
                        Err(failure.into())
                    }
                }
            }
            Engine::Over => Ok(Step::Nothing),
        }
    }

    /// The handshake of TLS 1.3 with a client is over, and all that belongs to it is encoded: the session is ours from
    /// now on. False if that is not so.
    fn establish(&mut self) -> Result<bool, Error> {
        let Engine::Server(handshake) = &*self else { return Ok(false) };
        if !handshake.is_over() {
            return Ok(false);
        }
        let known = SessionFacts {
            resumed: self.is_resumed(),
            alpn: self.alpn().map(<[u8]>::to_vec),
            server_name: self.asked_name().map(str::to_owned),
            certificate: self.peer_certificate().map(<[u8]>::to_vec),
        };
        let Engine::Server(handshake) = std::mem::replace(self, Engine::Over) else {
            return Ok(false);
        };
        let Handshake { connection, secrets: Some(secrets), .. } = *handshake else {
            return Ok(false);
        };
        *self = Engine::Records(Box::new(Established::of(connection, &secrets, known)?));
        Ok(true)
    }

    /// The session has failed: encodes the alert that tells the peer why.
    pub fn encode_alert(&mut self, incoming: &mut Queue, outgoing: &mut Records) {
        while self.state().is_some_and(CommonState::wants_write)
            && matches!(self.step(incoming, &mut Vec::new(), outgoing), Ok(Step::Encoded))
        {}
    }

    /// Seals `bytes`; whether that was possible.
    pub fn seal(&mut self, bytes: &[u8], incoming: &mut Queue, outgoing: &mut Records) -> bool {
        match self {
            Engine::Client(connection) => unbuffered::seal(
                secretly(|| connection.process_tls_records(incoming.live_mut())),
                bytes,
                outgoing,
            ),
            Engine::Server(handshake) => unbuffered::seal(
                secretly(|| handshake.connection.process_tls_records(incoming.live_mut())),
                bytes,
                outgoing,
            ),
            Engine::Records(established) => {
                let size = established.layer.room_for(bytes.len());
                let sealed = established.layer.seal(bytes, outgoing.room(size));
                established.note_changes();
                outgoing.written(sealed.unwrap_or(0));
                sealed.is_ok()
            }
            Engine::Over => false,
        }
    }

    /// Tells the peer that nothing further comes (RFC 8446, 6.1).
    pub fn close_notify(&mut self, incoming: &mut Queue, outgoing: &mut Records) {
        match self {
            Engine::Client(connection) => {
                unbuffered::close_notify(
                    secretly(|| connection.process_tls_records(incoming.live_mut())),
                    outgoing,
                );
            }
            Engine::Server(handshake) => {
                let connection = &mut handshake.connection;
                unbuffered::close_notify(
                    secretly(|| connection.process_tls_records(incoming.live_mut())),
                    outgoing,
                );
            }
            Engine::Records(established) => {
                let sealed = established.layer.close_notify(outgoing.room(64));
                outgoing.written(sealed.unwrap_or(0));
            }
            Engine::Over => {}
        }
    }
}

impl From<RecordFailure> for Error {
    fn from(failure: RecordFailure) -> Error {
        match failure {
            RecordFailure::Unexpected => InvalidMessage::UnexpectedMessage("record").into(),
            RecordFailure::BadRecord => Error::DecryptError,
            RecordFailure::Overflow => InvalidMessage::MessageTooLarge.into(),
            RecordFailure::Malformed => InvalidMessage::MissingData("record").into(),
            RecordFailure::Illegal => InvalidMessage::InvalidKeyUpdate.into(),
            RecordFailure::Alert(alert) => Error::AlertReceived(AlertDescription::from(alert)),
            RecordFailure::Exhausted => Error::EncryptError,
        }
    }
}
