//! A session of TLS 1.3 whose handshake is over, as a value that any process of the server can go on with (pure but
//! for [`vault`]).

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use rustls::KeyLog;
use rustls::server::UnbufferedServerConnection;

use super::progress::MAX_STATE;
use super::record::RecordLayer;
use super::record::traffic_keys::{MAX_SECRET, Suite, TrafficKeys};
use super::vault;
use crate::sys::os::secret::{Secret, clear_stack};

/// The version of the encoding.
const VERSION: u8 = 1;

/// Bits of the encoding.
const RESUMED: u8 = 1;
const OWES_UPDATE: u8 = 2;
const HAS_ALPN: u8 = 4;
const HAS_NAME: u8 = 8;
const HAS_CERTIFICATE: u8 = 16;

/// What the handshake has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFacts {
    /// The session was shortened by a ticket.
    pub resumed: bool,
    /// The protocol that was agreed on.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client has asked for.
    pub server_name: Option<String>,
    /// The client's own certificate.
    pub certificate: Option<Vec<u8>>,
}

/// A session whose handshake is over.
pub struct Established {
    pub layer: Secret<RecordLayer>,
    pub known: SessionFacts,
    /// What [`Established::state`] gives, as long as the keys are the same.
    state: OnceLock<Arc<[u8]>>,
    /// The supervisor knows this state.
    is_told: bool,
}

impl Established {
    /// What follows from a handshake that is over and has nothing left to send.
    ///
    /// # Errors
    /// The library does not hand out the session.
    pub fn of(
        connection: UnbufferedServerConnection,
        secrets: &Secrets,
        known: SessionFacts,
    ) -> Result<Established, rustls::Error> {
        let general = |text: &str| rustls::Error::General(text.to_owned());
        let (extracted, rest) = connection.dangerous_into_kernel_connection()?;
        let suite = Suite::of(u16::from(rest.negotiated_cipher_suite().suite()));
        let suite = suite.ok_or_else(|| general("the cipher suite is not known"))?;
        let length = suite.secret_length();
        let direction = |secret: &[u8; MAX_SECRET], sequence| {
            TrafficKeys::new(suite, secret.get(..length)?, sequence)
        };
        let directions = direction(&secrets.client, extracted.rx.0)
            .zip(direction(&secrets.server, extracted.tx.0))
            .ok_or_else(|| general("the session has no keys"))?;
        Ok(Established::new(RecordLayer::new(directions.0, directions.1, false), known))
    }

    fn new(layer: RecordLayer, known: SessionFacts) -> Established {
        let layer = Secret::new(layer);
        Established { layer, known, state: OnceLock::new(), is_told: false }
    }

    /// The suite's name.
    pub fn cipher(&self) -> &'static str {
        self.layer.keys().0.suite().name()
    }

    /// The numbers of the next records: that is received, that is sent.
    pub fn sequences(&self) -> (u64, u64) {
        let (receiving, sending, _) = self.layer.keys();
        (receiving.sequence(), sending.sequence())
    }

    /// Whether the supervisor knows its keys.
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// They are known from now on.
    pub fn set_told(&mut self) {
        self.is_told = true;
    }

    /// Keys may have changed.
    pub fn note_changes(&mut self) {
        if self.layer.take_changed() {
            clear_stack();
            self.state = OnceLock::new();
            self.is_told = false;
        }
    }

    /// Everything but the numbers, sealed for other processes. `None` if it is too long, or in a state that does not
    /// move.
    pub fn state(&self) -> Option<Arc<[u8]>> {
        if !self.layer.is_between_messages() {
            return None;
        }
        if self.state.get().is_none() {
            let sealed = vault::seal(&mut self.encode())?;
            clear_stack();
            let _ = self.state.set(sealed.into());
        }
        self.state.get().filter(|state| state.len() <= MAX_STATE).cloned()
    }

    fn encode(&self) -> Vec<u8> {
        let SessionFacts { resumed, alpn, server_name, certificate } = &self.known;
        let (receiving, sending, owes_update) = self.layer.keys();
        let parts: [(u8, Option<&[u8]>); 3] = [
            (HAS_ALPN, alpn.as_deref()),
            (HAS_NAME, server_name.as_ref().map(String::as_bytes)),
            (HAS_CERTIFICATE, certificate.as_deref()),
        ];
        let mut bits = 0;
        for (bit, is_set) in [(RESUMED, *resumed), (OWES_UPDATE, owes_update)] {
            bits |= if is_set { bit } else { 0 };
        }
        let mut length = 4 + 2 * MAX_SECRET;
        for (bit, part) in parts {
            bits |= if part.is_some() { bit } else { 0 };
            length += 4 + part.map_or(0, <[u8]>::len);
        }
        // It never grows, so no copy stays elsewhere in memory.
        let mut bytes = Vec::with_capacity(length);
        bytes.extend([VERSION, bits]);
        bytes.extend(receiving.suite().number().to_be_bytes());
        bytes.extend_from_slice(receiving.secret());
        bytes.extend_from_slice(sending.secret());
        for part in parts.into_iter().filter_map(|(_, part)| part) {
            bytes.extend((part.len() as u32).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// What was sealed, with the numbers of the next records.
    pub fn open(state: Arc<[u8]>, sequences: (u64, u64)) -> Option<Established> {
        let established = Established::unseal(state, sequences);
        clear_stack();
        established
    }

    #[inline(never)]
    fn unseal(state: Arc<[u8]>, sequences: (u64, u64)) -> Option<Established> {
        let (layer, known) = vault::open(&state, |bytes| decode(bytes, sequences))?;
        let established = Established::new(layer, known);
        Some(Established { state: state.into(), is_told: true, ..established })
    }
}

fn decode(bytes: &[u8], (receiving, sending): (u64, u64)) -> Option<(RecordLayer, SessionFacts)> {
    let ([VERSION, bits, high, low], mut rest) = bytes.split_first_chunk::<4>()? else {
        return None;
    };
    let suite = Suite::of(u16::from_be_bytes([*high, *low]))?;
    let mut direction = |sequence| {
        let (secret, after) = rest.split_at_checked(suite.secret_length())?;
        rest = after;
        TrafficKeys::new(suite, secret, sequence)
    };
    let (receiving, sending) = (direction(receiving)?, direction(sending)?);
    let mut part = |bit| {
        if bits & bit == 0 {
            return Some(None);
        }
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (part, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = after;
        Some(Some(part.to_vec()))
    };
    let (alpn, name, certificate) = (part(HAS_ALPN)?, part(HAS_NAME)?, part(HAS_CERTIFICATE)?);
    let server_name = name.map(String::from_utf8).transpose().ok()?;
    let known = SessionFacts { resumed: bits & RESUMED != 0, alpn, server_name, certificate };
    let layer = RecordLayer::new(receiving, sending, bits & OWES_UPDATE != 0);
    rest.is_empty().then_some((layer, known))
}

/// The traffic secrets of a session.
#[derive(Clone)]
pub struct Secrets {
    client: [u8; MAX_SECRET],
    server: [u8; MAX_SECRET],
}

thread_local! {
    /// Those of the handshake that was processed last. The library tells them nobody but a [`KeyLog`].
    static SHOWN: RefCell<Secrets> = const {
        RefCell::new(Secrets { client: [0; MAX_SECRET], server: [0; MAX_SECRET] })
    };
    static IS_SHOWN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

/// Learns the secrets of the server's sessions.
#[derive(Debug)]
pub struct SecretsShown;

impl KeyLog for SecretsShown {
    fn will_log(&self, label: &str) -> bool {
        label == CLIENT || label == SERVER
    }

    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if !self.will_log(label) {
            return;
        }
        SHOWN.with_borrow_mut(|shown| {
            let place = if label == CLIENT { &mut shown.client } else { &mut shown.server };
            place.iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
        });
        IS_SHOWN.set(true);
    }
}

/// The secrets of the handshake that was just processed, if they have become known.
pub fn take_secrets() -> Option<Secret<Secrets>> {
    if !IS_SHOWN.replace(false) {
        return None;
    }
    SHOWN.with_borrow_mut(|shown| {
        let secrets = Secret::new(shown.clone());
        shown.client.fill(0);
        shown.server.fill(0);
        Some(secrets)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn established(known: SessionFacts, suite: Suite) -> Established {
        vault::prepare().unwrap();
        let direction = |byte, sequence| {
            TrafficKeys::new(suite, &vec![byte; suite.secret_length()], sequence).unwrap()
        };
        Established::new(RecordLayer::new(direction(1, 5), direction(2, 7), true), known)
    }

    fn full() -> SessionFacts {
        SessionFacts {
            resumed: true,
            alpn: Some(b"h2".to_vec()),
            server_name: Some("a.example".to_owned()),
            certificate: Some(vec![0x30; 1000]),
        }
    }

    #[test]
    fn a_session_survives_its_encoding() {
        for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            for known in [SessionFacts::default(), full()] {
                let one = established(known.clone(), suite);
                let other = Established::open(one.state().unwrap(), one.sequences()).unwrap();
                assert_eq!(other.known, known);
                assert_eq!(other.sequences(), (5, 7));
                assert!(other.is_told() && other.layer.keys().2);
                let [ours, theirs] = [&one, &other].map(|it| it.layer.keys());
                assert_eq!(ours.0.secret(), theirs.0.secret());
                assert_eq!(ours.1.secret(), theirs.1.secret());
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_of_another_version_is_refused() {
        let bytes = established(full(), Suite::Aes128Gcm).encode();
        assert!(decode(&bytes, (0, 0)).is_some());
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], (0, 0)).is_none());
        }
        let mut other = bytes.clone();
        other[0] += 1;
        assert!(decode(&other, (0, 0)).is_none());
        assert!(decode(&[&bytes[..], b"x"].concat(), (0, 0)).is_none());
    }

    #[test]
    fn a_client_that_shows_too_much_stays() {
        let known =
            SessionFacts { certificate: Some(vec![0; MAX_STATE]), ..SessionFacts::default() };
        assert!(established(known, Suite::Aes128Gcm).state().is_none());
    }
}
