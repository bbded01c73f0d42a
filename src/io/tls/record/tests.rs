//! Against `rustls` as the client, whose session a server of `rustls` has begun.

use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use rustls::ClientConnection;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::traffic_keys::{MAX_SECRET, Suite};
use super::*;
use crate::io::tls::{CertificateFiles, ServerOptions, Source, TlsServer, TlsSession};

const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

/// Of `localhost`, signed by itself.
const CERTIFICATE: &str = include_str!("certificate.pem");

#[derive(Debug)]
struct Trusting(CryptoProvider);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client and its server in one process.
struct Pair {
    client: ClientConnection,
    server: TlsSession,
}

impl Pair {
    fn new(suite: Suite) -> Pair {
        let mut provider = ring::default_provider();
        provider.cipher_suites.retain(|known| u16::from(known.suite()) == suite.number());
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let source = Source::of(CERTIFICATE);
        let files = CertificateFiles { certificate: source.clone(), key: source, ocsp: None };
        let options = ServerOptions {
            certificates: vec![files],
            alpn: vec![b"http/1.1".to_vec()],
            ..ServerOptions::default()
        };
        let server = TlsServer::new(options).unwrap().session().unwrap();
        let mut pair = Pair { client, server };
        while pair.client.is_handshaking() || !pair.server.is_established() {
            pair.feed_server();
            pair.feed_client();
        }
        // Its tickets.
        pair.feed_client();
        pair
    }

    /// What the client has to send, in whatever pieces.
    fn feed_server(&mut self) {
        let mut records = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut records).unwrap();
        }
        for piece in records.chunks(1000) {
            self.server.room().extend_from_slice(piece);
            self.server.process();
        }
    }

    fn feed_client(&mut self) {
        let records = self.server.unsent().to_vec();
        self.server.sent(records.len());
        let mut rest = &records[..];
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).unwrap();
            self.client.process_new_packets().unwrap();
        }
    }

    fn received(&mut self) -> Vec<u8> {
        self.feed_server();
        let mut received = Vec::new();
        self.server.take_plaintext(&mut received).unwrap();
        received
    }

    fn send(&mut self, data: &[u8]) {
        let mut sent = 0;
        while self.server.seal(&[std::io::IoSlice::new(data)], sent).unwrap() {
            let mut received = vec![0; data.len()];
            self.feed_client();
            let _ = self.client.reader().read(&mut received);
            sent += self.server.take_sent();
        }
    }

    /// The server's end goes on as another process would.
    fn moved(self) -> Pair {
        let Pair { client, server } = self;
        let (state, progress) = (server.state().unwrap(), server.progress());
        let bytes = (server.unsent(), server.received());
        Pair { client, server: TlsSession::resume(state, &progress, bytes).unwrap() }
    }
}

#[test]
fn a_session_goes_on_wherever_it_moves() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        for turn in 0..10 {
            pair.client.writer().write_all(format!("request {turn}").as_bytes()).unwrap();
            assert_eq!(pair.received(), format!("request {turn}").as_bytes());
            let response = format!("response {turn}");
            assert!(pair.server.seal(&[std::io::IoSlice::new(response.as_bytes())], 0).unwrap());
            pair.feed_client();
            let mut received = [0; 100];
            let length = pair.client.reader().read(&mut received).unwrap();
            assert_eq!(&received[..length], response.as_bytes());
            assert_eq!(pair.server.progress().receiving, turn + 1);
            pair = pair.moved();
            assert_eq!(pair.server.cipher().as_deref(), Some(suite.name()));
            assert_eq!(pair.server.version(), Some("1.3"));
            assert_eq!(pair.server.alpn(), Some(&b"http/1.1"[..]));
            assert_eq!(pair.server.server_name(), Some("localhost"));
        }
        pair.server.close_notify();
        pair.feed_client();
        assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn the_beginning_of_a_record_moves_as_well() {
    let mut pair = Pair::new(Suite::Aes128Gcm);
    pair.client.writer().write_all(b"request").unwrap();
    let mut record = Vec::new();
    pair.client.write_tls(&mut record).unwrap();
    for byte in record {
        pair.server.room().push(byte);
        pair.server.process();
        if !pair.server.has_received() {
            pair = pair.moved();
        }
    }
    let mut received = Vec::new();
    pair.server.take_plaintext(&mut received).unwrap();
    assert_eq!(received, b"request");
}

#[test]
fn keys_change_when_the_client_asks_for_it_before_the_next_data() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        for _ in 0..3 {
            pair.client.refresh_traffic_keys().unwrap();
            pair.client.writer().write_all(b"a").unwrap();
            pair.server.set_told();
            let sending = pair.server.progress().sending;
            assert_eq!(pair.received(), b"a");
            assert!(!pair.server.is_told());
            assert_eq!(
                pair.server.progress().sending,
                sending,
                "as long as there is nothing to send"
            );
            pair = pair.moved();
            pair.send(b"b");
            assert_eq!(pair.server.progress().sending, 1);
            pair = pair.moved();
        }
    }
}

#[test]
fn keys_change_before_they_are_used_up() {
    let (mut server, mut client) = ends(Suite::Aes256Gcm, (1 << 24) - 3);
    let mut room = vec![0; 4096];
    let mut seen = Vec::new();
    for _ in 0..4 {
        let filled = server.seal(b"data", &mut room).unwrap();
        let (done, outcome) = client.open(&mut room[..filled], &mut seen);
        assert_eq!((done, outcome), (filled, Ok(RecordsOpened::More)));
    }
    assert_eq!(seen, b"data".repeat(4));
    assert!(server.keys().1.sequence() < 10);
}

#[test]
fn sizes_of_records_are_those_of_the_protocol() {
    let (mut server, mut client) = ends(Suite::Aes128Gcm, 0);
    for size in [0, 1, MAX_PLAINTEXT - 1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 3 * MAX_PLAINTEXT] {
        let data = vec![7; size];
        let mut room = vec![0; server.room_for(size)];
        let filled = server.seal(&data, &mut room).unwrap();
        let mut seen = Vec::new();
        assert_eq!(client.open(&mut room[..filled], &mut seen), (filled, Ok(RecordsOpened::More)));
        assert_eq!(seen, data);
    }
    assert_eq!(next_record(&[23, 3, 3, 0x41, 0x00]), Ok(None));
    assert_eq!(next_record(&[23, 3, 3, 0x41, 0x01]), Err(RecordFailure::Overflow));
    assert_eq!(next_record(&[23, 3, 3, 0, 16]), Err(RecordFailure::BadRecord));
    assert_eq!(next_record(&[23, 3, 3, 0]), Ok(None));
    for kind in [0, 20, 21, 22, 24, 255] {
        assert_eq!(next_record(&[kind, 3, 3, 0, 20]), Err(RecordFailure::Unexpected), "{kind}");
    }
}

/// Two ends, and the numbers of their next records.
fn ends(suite: Suite, sequence: u64) -> (RecordLayer, RecordLayer) {
    let secret = [9; MAX_SECRET];
    let direction = || TrafficKeys::new(suite, &secret[..suite.secret_length()], sequence).unwrap();
    let layer = || RecordLayer::new(direction(), direction(), false);
    (layer(), layer())
}

/// What comes of records of those types and contents.
fn outcome(records: &[(u8, &[u8])]) -> (Vec<u8>, Result<RecordsOpened, RecordFailure>) {
    let (mut server, mut client) = ends(Suite::Aes128Gcm, 0);
    let (mut stream, mut room) = (Vec::new(), vec![0; MAX_PLAINTEXT + OVERHEAD]);
    for (kind, content) in records {
        let length = client.sending.seal(*kind, content, &mut room).unwrap();
        stream.extend_from_slice(&room[..length]);
    }
    let mut seen = Vec::new();
    let (done, outcome) = server.open(&mut stream, &mut seen);
    assert!(outcome.is_err() || done == stream.len());
    (seen, outcome)
}

#[test]
fn alerts_are_ends_or_failures() {
    let end = outcome(&[(23, b"a"), (21, &[1, 0]), (23, b"ignored")]);
    assert_eq!(end, (b"a".to_vec(), Ok(RecordsOpened::End)));
    assert_eq!(outcome(&[(21, &[1, 90]), (23, b"a")]), (b"a".to_vec(), Ok(RecordsOpened::More)));
    assert_eq!(outcome(&[(21, &[2, 40])]).1, Err(RecordFailure::Alert(40)));
    assert_eq!(outcome(&[(21, &[])]).1, Err(RecordFailure::Unexpected));
    for malformed in [&[1][..], &[1, 0, 1]] {
        assert_eq!(outcome(&[(21, malformed)]).1, Err(RecordFailure::Malformed));
    }
}

#[test]
fn messages_other_than_key_updates_are_refused() {
    let cases: [(&[u8], RecordFailure); 6] = [
        (&[], RecordFailure::Unexpected),
        (&[4, 0, 0, 1, 0], RecordFailure::Unexpected),
        (&[1], RecordFailure::Unexpected),
        (&[24, 0, 0, 2, 0], RecordFailure::Malformed),
        (&[24, 0, 0, 1, 2], RecordFailure::Illegal),
        (&[24, 0, 0, 1, 0, 24], RecordFailure::Unexpected),
    ];
    for (message, failure) in cases {
        assert_eq!(outcome(&[(22, message)]).1, Err(failure), "{message:?}");
    }
    assert_eq!(outcome(&[(22, &[24, 0]), (23, b"a")]).1, Err(RecordFailure::Unexpected));
    assert_eq!(outcome(&[(22, &[24, 0]), (22, &[0, 1])]).1, Ok(RecordsOpened::More));
    assert_eq!(outcome(&[(20, &[1])]).1, Err(RecordFailure::Unexpected));
}

#[test]
fn a_key_update_may_come_in_parts() {
    let (mut server, mut client) = ends(Suite::Aes128Gcm, 0);
    let mut room = vec![0; 1000];
    let mut seen = Vec::new();
    for part in [&[24, 0][..], &[0, 1], &[1]] {
        assert!(!server.owes_update);
        let length = client.sending.seal(HANDSHAKE, part, &mut room).unwrap();
        assert_eq!(server.open(&mut room[..length], &mut seen).1, Ok(RecordsOpened::More));
    }
    assert!(server.owes_update && server.is_between_messages());
    client.sending.update().unwrap();
    let length = client.seal(b"new keys", &mut room).unwrap();
    assert_eq!(server.open(&mut room[..length], &mut seen).1, Ok(RecordsOpened::More));
    assert_eq!(seen, b"new keys");
}

#[test]
fn who_says_nothing_for_long_is_refused() {
    let empty: Vec<(u8, &[u8])> = vec![(23, &[]); 32];
    assert_eq!(outcome(&empty).1, Ok(RecordsOpened::More));
    let more: Vec<(u8, &[u8])> = vec![(23, &[]); 33];
    assert_eq!(outcome(&more).1, Err(RecordFailure::Unexpected));
}

#[test]
fn a_failure_is_told_to_the_peer() {
    let (mut server, mut client) = ends(Suite::Aes128Gcm, 0);
    let mut room = vec![0; 100];
    let told = server.tell(RecordFailure::BadRecord, &mut room);
    let outcome = client.open(&mut room[..told], &mut Vec::new()).1;
    assert_eq!(outcome, Err(RecordFailure::Alert(20)));
    assert_eq!(server.tell(RecordFailure::Alert(20), &mut room), 0);
}

proptest! {
    #[test]
    fn records_that_were_changed_never_open(at in 0usize..40, bit in 0u8..8) {
        let (mut server, mut client) = ends(Suite::ChaCha20Poly1305, 0);
        let mut room = vec![0; 100];
        let length = client.seal(b"a request of 18 by", &mut room).unwrap();
        room[at % length] ^= 1 << bit;
        let mut seen = Vec::new();
        let (_, outcome) = server.open(&mut room[..length], &mut seen);
        prop_assert!(seen.is_empty() && outcome != Ok(RecordsOpened::End));
    }

    #[test]
    fn data_arrives_however_it_is_cut(sizes in proptest::collection::vec(0usize..40_000, 1..5), cut in 1usize..5000) {
        let (mut server, mut client) = ends(Suite::Aes128Gcm, 0);
        let (mut stream, mut sent, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        for (number, size) in sizes.iter().enumerate() {
            let data = vec![number as u8; *size];
            let mut room = vec![0; client.room_for(*size)];
            let filled = client.seal(&data, &mut room).unwrap();
            stream.extend_from_slice(&room[..filled]);
            sent.extend(data);
        }
        let mut waiting = Vec::new();
        for piece in stream.chunks(cut) {
            waiting.extend_from_slice(piece);
            let (done, outcome) = server.open(&mut waiting, &mut seen);
            prop_assert_eq!(outcome, Ok(RecordsOpened::More));
            waiting.drain(..done);
        }
        prop_assert!(waiting.is_empty() && seen == sent);
    }
}
