//! The TLS session of a connection: opens the records that were received and seals what is to be sent,
//! without system calls. The handshake is a state of it: reads and writes drive it.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, InvalidMessage, ServerConfig};

use super::engine::Engine;
use super::established::Established;
use super::failure;
use super::next_piece::next_piece;
use super::peer::{PeerCertificate, TlsPeer};
use super::progress::RecordProgress;
use super::received_records::ReceivedRecords;
use super::records::Records;
use super::unbuffered::Step;
use crate::sys::os::error_text::CodedError;
use crate::sys::os::secret::clear_stack;
use crate::sys::os::secret_heap::secretly;

/// A connection's records and keys.
pub struct TlsSession {
    engine: Engine,
    peer: TlsPeer,
    /// Received and not processed.
    incoming: ReceivedRecords,
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
        f.debug_struct("TlsSession").field("peer", &self.peer.name).finish_non_exhaustive()
    }
}

impl TlsSession {
    /// The client's end.
    ///
    /// # Errors
    /// The configuration does not suit the peer.
    pub fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        only_tls13: bool,
    ) -> io::Result<TlsSession> {
        let peer = TlsPeer { name: name.to_str().into_owned(), only_tls13 };
        let connection = secretly(|| UnbufferedClientConnection::new(config, name))
            .map_err(|error| failure::describe(&error, &peer))?;
        TlsSession::begin(Engine::client(connection), peer)
    }

    /// The server's end.
    ///
    /// # Errors
    /// The configuration is invalid.
    pub fn server(config: Arc<ServerConfig>, only_tls13: bool) -> io::Result<TlsSession> {
        let peer = TlsPeer { name: String::new(), only_tls13 };
        let connection = UnbufferedServerConnection::new(config)
            .map_err(|error| failure::describe(&error, &peer))?;
        TlsSession::begin(Engine::server(connection), peer)
    }

    fn begin(engine: Engine, peer: TlsPeer) -> io::Result<TlsSession> {
        let mut session = TlsSession::new(engine, peer);
        session.process();
        match session.failure {
            Some(failure) => Err(failure.into()),
            None => Ok(session),
        }
    }

    fn new(engine: Engine, peer: TlsPeer) -> TlsSession {
        TlsSession {
            engine,
            peer,
            incoming: ReceivedRecords::new(),
            plaintext: Vec::new(),
            outgoing: Records::default(),
            sealed: 0,
            peer_ended: false,
            ended: false,
            failure: None,
            broken: false,
        }
    }

    /// Whether the handshake has come to its end.
    pub fn is_established(&self) -> bool {
        self.engine.is_established()
    }

    /// Whether the handshake goes on.
    pub fn is_handshaking(&self) -> bool {
        self.failure.is_none() && !self.is_established()
    }

    /// Whether the handshake was shortened by a ticket.
    pub fn is_resumed(&self) -> bool {
        self.engine.is_resumed()
    }

    /// `1.3` or `1.2`, once that is agreed on.
    pub fn version(&self) -> Option<&'static str> {
        self.engine.version()
    }

    /// The cipher suite's name in the registry of IANA, once it is agreed on.
    pub fn cipher(&self) -> Option<String> {
        self.engine.cipher()
    }

    /// The protocol that was agreed on (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.engine.alpn()
    }

    /// The peer's own certificate, if it has shown one.
    pub fn peer_certificate(&self) -> Option<PeerCertificate<'_>> {
        self.engine.peer_certificate().map(PeerCertificate::of)
    }

    /// The name of the server that the client asks for.
    pub fn server_name(&self) -> Option<&str> {
        match self.engine.is_server() {
            true => self.engine.asked_name(),
            false => Some(&self.peer.name),
        }
    }

    // Moving to another process.

    /// Everything that another process needs to go on, but for [`TlsSession::progress`] and the bytes that belong to it.
    /// `None` if the session stays in this process.
    pub fn state(&self) -> Option<Arc<[u8]>> {
        let is_over = self.failure.is_some() || self.broken || self.ended;
        self.engine.established().filter(|_| !is_over)?.state()
    }

    /// Whether the session stays in this process, also if it does not fail.
    pub fn is_bound(&self) -> bool {
        self.engine.established().is_none_or(|established| established.state().is_none())
    }

    /// How far it has come; nothing if the session stays in this process.
    pub fn progress(&self) -> RecordProgress {
        let (receiving, sending) = self.engine.established().map_or((0, 0), Established::sequences);
        RecordProgress {
            receiving,
            sending,
            unsent: self.unsent().len() as u64,
            sealed: self.sealed as u64,
            received: self.incoming.queue.len() as u64,
            peer_ended: self.peer_ended,
        }
    }

    /// Received bytes of a record that is not complete.
    pub fn received(&self) -> &[u8] {
        self.incoming.queue.live()
    }

    /// Opened input that was not taken.
    pub fn opened(&self) -> &[u8] {
        &self.plaintext
    }

    /// How much has been received and not been taken, the end of the input counted.
    pub fn held(&self) -> usize {
        self.incoming.queue.len() + self.plaintext.len() + usize::from(self.peer_ended)
    }

    /// Whether the supervisor knows its keys.
    pub fn is_told(&self) -> bool {
        self.engine.established().is_none_or(Established::is_told)
    }

    /// They are known from now on.
    pub fn set_told(&mut self) {
        if let Engine::Records(established) = &mut self.engine {
            established.set_told();
        }
    }

    /// Goes on with a session of another process, which had these bytes of records to send and had received those. `None`
    /// if the state is invalid.
    pub fn resume(
        state: Arc<[u8]>,
        progress: &RecordProgress,
        (unsent, received): (&[u8], &[u8]),
    ) -> Option<TlsSession> {
        let established = Established::open(state, (progress.receiving, progress.sending))?;
        let engine = Engine::Records(Box::new(established));
        let mut session = TlsSession::new(engine, TlsPeer::default());
        session.incoming.queue.push(received);
        session.outgoing.put(unsent);
        session.sealed = usize::try_from(progress.sealed).ok()?;
        session.peer_ended = progress.peer_ended;
        Some(session)
    }

    // Input.

    /// What was received before the session was there.
    pub fn preload(&mut self, bytes: &[u8]) {
        self.incoming.queue.push(bytes);
        self.process();
    }

    /// Whether the client has begun with a request of HTTP instead of a handshake.
    pub fn is_plain_http(&self) -> bool {
        self.engine.is_server() && !self.is_established() && self.incoming.is_plain_http()
    }

    /// Where to receive.
    pub fn room(&mut self) -> &mut Vec<u8> {
        self.incoming.room()
    }

    /// Processes what was received. Plaintext, an end or a failure is then there to be taken, and
    /// answers to be sent.
    pub fn process(&mut self) {
        let has_secrets = self.is_handshaking();
        self.process_received();
        if has_secrets {
            clear_stack();
        }
    }

    #[inline(never)]
    fn process_received(&mut self) {
        if self.failure.is_some() {
            return;
        }
        if self.is_plain_http() {
            // An alert would come before an answer that the client understands.
            self.broken = true;
            let error = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
            self.failure = Some(failure::describe(&error, &self.peer));
            return;
        }
        if self.peer_ended {
            // What follows an end is to be ignored (RFC 8446, 6.1).
            return self.incoming.queue.clear();
        }
        if let Err(error) = self.advance() {
            self.fail(failure::describe(&error, &self.peer));
        } else if self.incoming.is_oversized() {
            self.fail(failure::oversized(&self.peer));
        }
    }

    /// Keeps the failure, and what the protocol says to the peer about it.
    fn fail(&mut self, failure: CodedError) {
        self.failure = Some(failure);
        self.broken = true;
        self.engine.encode_alert(&mut self.incoming.queue, &mut self.outgoing);
    }

    fn advance(&mut self) -> Result<(), rustls::Error> {
        let before = self.incoming.queue.len();
        loop {
            match self.step()? {
                Step::Encoded | Step::Opened => {}
                Step::PeerEnded => self.peer_ended = true,
                Step::Nothing => break,
            }
        }
        self.incoming.note_processed(before);
        Ok(())
    }

    fn step(&mut self) -> Result<Step, rustls::Error> {
        self.engine.step(&mut self.incoming.queue, &mut self.plaintext, &mut self.outgoing)
    }

    /// Appends opened input to `buffer`; how many bytes, 0 at the end; `None` if there is none yet.
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

    /// Whether nothing further is to be received.
    pub fn has_ended(&self) -> bool {
        self.peer_ended || self.failure.is_some()
    }

    /// Why nothing can be sent any more, unless the descriptor has ended after the handshake.
    pub fn breach(&self) -> Option<CodedError> {
        self.failure.clone().filter(|_| self.broken || !self.is_established())
    }

    /// The descriptor has ended: too early in the handshake, or without the word that says so.
    pub fn end(&mut self) {
        if !self.has_ended() {
            self.failure = Some(failure::end(self.is_handshaking(), &self.peer));
        }
    }

    // Output.

    /// Seals the next bytes of the parts after their first `sent` ones, once the handshake is over;
    /// whether there is something to be sent now.
    ///
    /// # Errors
    /// The keys are used up.
    pub fn seal(&mut self, parts: &[IoSlice<'_>], sent: usize) -> io::Result<bool> {
        if let Some(breach) = self.breach() {
            return Err(breach.into());
        }
        if !self.is_established() {
            return Ok(false);
        }
        let Some(next) = next_piece(parts, sent) else { return Ok(false) };
        let sealed = self.engine.seal(&next, &mut self.incoming.queue, &mut self.outgoing);
        if !sealed {
            let failure = failure::unsealed(&self.peer);
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
        self.engine.close_notify(&mut self.incoming.queue, &mut self.outgoing);
    }

    /// Gives back memory that an idle connection does not need.
    pub fn release(&mut self) {
        self.incoming.release();
        self.outgoing.release();
        if self.plaintext.is_empty() {
            self.plaintext = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::io::tls::client::ClientOptions;
    use crate::io::tls::server::{ServerOptions, TlsServer};

    /// What a client begins with, in one record.
    fn hello() -> Vec<u8> {
        let mut options = ClientOptions::default();
        options.set_insecure(true);
        options.set_fingerprints(vec![[0; 32]]);
        options.session("localhost").unwrap().unsent().to_vec()
    }

    /// What a server without certificates says to bytes that come in such pieces, and why it ends.
    fn answer<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<CodedError>) {
        let server = TlsServer::new(ServerOptions::default()).unwrap();
        let mut session = server.session().unwrap();
        for piece in pieces {
            session.room().extend_from_slice(piece);
            session.process();
        }
        (session.unsent().to_vec(), session.failure)
    }

    proptest! {
        #[test]
        fn a_hello_is_the_same_in_records_and_pieces_of_any_size(
            record in 1usize..300,
            pieces in proptest::collection::vec(1usize..300, 1..50),
        ) {
            let whole = hello();
            let mut bytes = Vec::new();
            for part in whole[5..].chunks(record) {
                bytes.extend_from_slice(&whole[..3]);
                bytes.extend((part.len() as u16).to_be_bytes());
                bytes.extend_from_slice(part);
            }
            let mut rest = &bytes[..];
            let pieces = pieces.into_iter().cycle().map_while(|size| {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                rest = after;
                (!piece.is_empty()).then_some(piece)
            });
            let expected = answer(std::iter::once(&whole[..]));
            prop_assert!(expected.1.is_some() && !expected.0.is_empty());
            prop_assert_eq!(answer(pieces), expected);
        }

        #[test]
        fn no_input_is_too_much_for_a_handshake(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            at in any::<prop::sample::Index>(),
            piece in 1usize..100,
        ) {
            let mut input = hello();
            let at = at.index(input.len());
            input.splice(at..at, bytes);
            answer(input.chunks(piece));
        }
    }
}
