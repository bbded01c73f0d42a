//! One direction of a connection of TLS 1.3: its keys, which seal or open one record after the other (pure).

use std::ops::Range;

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce,
    Tag, UnboundKey,
};
use ring::hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk};

use super::format::{APPLICATION_DATA, HEADER, MAX_PLAINTEXT, RecordFailure, TAG};

/// The longest secret.
pub const MAX_SECRET: usize = 48;

/// The cipher of a connection, with the hash that its keys are derived by (RFC 8446 B.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// `TLS_AES_128_GCM_SHA256`
    Aes128Gcm,
    /// `TLS_AES_256_GCM_SHA384`
    Aes256Gcm,
    /// `TLS_CHACHA20_POLY1305_SHA256`
    ChaCha20Poly1305,
}

impl Suite {
    /// The suite with that number in the registry of IANA.
    pub fn of(number: u16) -> Option<Suite> {
        match number {
            0x1301 => Some(Suite::Aes128Gcm),
            0x1302 => Some(Suite::Aes256Gcm),
            0x1303 => Some(Suite::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Its number there.
    pub fn number(self) -> u16 {
        match self {
            Suite::Aes128Gcm => 0x1301,
            Suite::Aes256Gcm => 0x1302,
            Suite::ChaCha20Poly1305 => 0x1303,
        }
    }

    /// Its name there.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Aes128Gcm => "TLS_AES_128_GCM_SHA256",
            Suite::Aes256Gcm => "TLS_AES_256_GCM_SHA384",
            Suite::ChaCha20Poly1305 => "TLS_CHACHA20_POLY1305_SHA256",
        }
    }

    /// How long its secrets are: as its hash.
    pub fn secret_length(self) -> usize {
        match self {
            Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => 32,
            Suite::Aes256Gcm => MAX_SECRET,
        }
    }

    /// How many records one key may seal (RFC 8446 5.5).
    pub fn most_records(self) -> u64 {
        match self {
            Suite::Aes128Gcm | Suite::Aes256Gcm => 1 << 24,
            Suite::ChaCha20Poly1305 => 1 << 48,
        }
    }

    fn cipher(self) -> &'static Algorithm {
        match self {
            Suite::Aes128Gcm => &AES_128_GCM,
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    /// `HKDF-Expand-Label` without context, as long as `out` (RFC 8446 7.1).
    fn expand(self, secret: &[u8], label: &[u8], out: &mut [u8]) -> Option<()> {
        let algorithm = match self {
            Suite::Aes256Gcm => HKDF_SHA384,
            Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => HKDF_SHA256,
        };
        let length = (out.len() as u16).to_be_bytes();
        let label_length = [(6 + label.len()) as u8];
        let info: [&[u8]; 5] = [&length, &label_length, b"tls13 ", label, &[0]];
        let length = Length(out.len());
        Prk::new_less_safe(algorithm, secret).expand(&info, length).ok()?.fill(out).ok()
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// The keys of one direction.
pub struct TrafficKeys {
    suite: Suite,
    secret: [u8; MAX_SECRET],
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    /// The number of the next record.
    sequence: u64,
}

impl TrafficKeys {
    /// From the traffic secret, at the record with that number. `None` if the secret is not as long as it has to be.
    pub fn new(suite: Suite, secret: &[u8], sequence: u64) -> Option<TrafficKeys> {
        let mut own = [0; MAX_SECRET];
        own.get_mut(..secret.len())?.copy_from_slice(secret);
        if secret.len() != suite.secret_length() {
            return None;
        }
        // RFC 8446 7.3.
        let mut iv = [0; NONCE_LEN];
        suite.expand(secret, b"iv", &mut iv)?;
        let mut key = [0; 32];
        let key = key.get_mut(..suite.cipher().key_len())?;
        suite.expand(secret, b"key", key)?;
        let unbound = UnboundKey::new(suite.cipher(), key).ok();
        key.fill(0);
        Some(TrafficKeys { suite, secret: own, key: LessSafeKey::new(unbound?), iv, sequence })
    }

    /// The suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The traffic secret.
    pub fn secret(&self) -> &[u8] {
        self.secret.get(..self.suite.secret_length()).unwrap_or_default()
    }

    /// The number of the next record.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether so many more records can be sealed by the key.
    pub fn suffices_for(&self, records: u64) -> bool {
        self.sequence.saturating_add(records) <= self.suite.most_records()
    }

    /// The next generation of keys (RFC 8446 7.2).
    pub fn update(&mut self) -> Result<(), RecordFailure> {
        let mut next = [0; MAX_SECRET];
        let next = next.get_mut(..self.suite.secret_length()).unwrap_or_default();
        let expanded = self.suite.expand(self.secret(), b"traffic upd", next);
        let updated = expanded.and_then(|()| TrafficKeys::new(self.suite, next, 0));
        *self = updated.ok_or(RecordFailure::Exhausted)?;
        next.fill(0);
        Ok(())
    }

    /// The nonce of the next record (RFC 8446 5.3). No number is used twice, even if this record fails.
    fn next_nonce(&mut self) -> Result<Nonce, RecordFailure> {
        let number = self.sequence;
        self.sequence = number.checked_add(1).ok_or(RecordFailure::Exhausted)?;
        let mut nonce = self.iv;
        for (byte, part) in nonce.iter_mut().rev().zip(number.to_le_bytes()) {
            *byte ^= part;
        }
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Seals `content`, at most [`MAX_PLAINTEXT`] bytes, as a record of that type into `room`, which is long enough.
    /// Gives the length of the record (RFC 8446 5.2).
    pub fn seal(
        &mut self,
        kind: u8,
        content: &[u8],
        room: &mut [u8],
    ) -> Result<usize, RecordFailure> {
        debug_assert!(content.len() <= MAX_PLAINTEXT);
        let nonce = self.next_nonce()?;
        let inner = content.len() + 1;
        let length = (inner + TAG) as u16;
        let (header, rest) =
            room.split_first_chunk_mut::<HEADER>().ok_or(RecordFailure::Exhausted)?;
        let (body, rest) = rest.split_at_mut_checked(inner).ok_or(RecordFailure::Exhausted)?;
        let (place, _) = rest.split_first_chunk_mut::<TAG>().ok_or(RecordFailure::Exhausted)?;
        let [high, low] = length.to_be_bytes();
        *header = [APPLICATION_DATA, 3, 3, high, low];
        if let [contents @ .., last] = body {
            contents.copy_from_slice(content);
            *last = kind;
        }
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(*header), body);
        place.copy_from_slice(tag.map_err(|_| RecordFailure::Exhausted)?.as_ref());
        Ok(HEADER + inner + TAG)
    }

    /// Opens a record in place. Returns its type, and where in it the content is.
    pub fn open(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), RecordFailure> {
        let (header, body) =
            record.split_first_chunk_mut::<HEADER>().ok_or(RecordFailure::BadRecord)?;
        let (inner, tag) = body.split_last_chunk_mut::<TAG>().ok_or(RecordFailure::BadRecord)?;
        let nonce = self.next_nonce()?;
        let aad = Aad::from(*header);
        let opened = self.key.open_in_place_separate_tag(nonce, aad, Tag::from(*tag), inner, 0..);
        let opened = opened.map_err(|_| RecordFailure::BadRecord)?;
        if opened.len() > MAX_PLAINTEXT + 1 {
            return Err(RecordFailure::Overflow);
        }
        // After the type come as many zeros as the peer likes (RFC 8446 5.4).
        let end = opened.iter().rposition(|byte| *byte != 0).ok_or(RecordFailure::Unexpected)?;
        let kind = opened.get(end).copied().ok_or(RecordFailure::Unexpected)?;
        Ok((kind, HEADER..HEADER + end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 8448, 3: the server's application traffic secret, and what follows from it.
    const SECRET: &str = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
    const KEY_IV: &str = "9f02283b6c9c07efc26bb9f2ac92e356cf782b88dd83549aadf1e984";

    fn bytes(digits: &str) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn keys_are_derived_as_in_rfc_8448() {
        let (secret, expected) = (bytes(SECRET), bytes(KEY_IV));
        let (mut key, mut iv) = ([0; 16], [0; 12]);
        Suite::Aes128Gcm.expand(&secret, b"key", &mut key).unwrap();
        Suite::Aes128Gcm.expand(&secret, b"iv", &mut iv).unwrap();
        assert_eq!([&key[..], &iv].concat(), expected);
    }

    #[test]
    fn a_record_opens_once_and_in_its_turn() {
        for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let secret = vec![7; suite.secret_length()];
            let mut from = TrafficKeys::new(suite, &secret, 5).unwrap();
            let mut to = TrafficKeys::new(suite, &secret, 5).unwrap();
            let mut record = [0; 200];
            let length = from.seal(23, b"hello", &mut record).unwrap();
            let mut copy = record;
            let (kind, content) = to.open(&mut record[..length]).unwrap();
            assert_eq!((kind, &record[content]), (23, &b"hello"[..]));
            assert_eq!(to.open(&mut copy[..length]), Err(RecordFailure::BadRecord));
            assert_eq!((from.sequence(), Suite::of(suite.number())), (6, Some(suite)));
        }
    }

    #[test]
    fn secrets_of_another_length_are_refused() {
        assert!(TrafficKeys::new(Suite::Aes128Gcm, &[0; 48], 0).is_none());
        assert!(TrafficKeys::new(Suite::Aes256Gcm, &[0; 32], 0).is_none());
        assert!(TrafficKeys::new(Suite::Aes256Gcm, &[0; 64], 0).is_none());
    }

    #[test]
    fn numbers_do_not_begin_again() {
        let mut last = TrafficKeys::new(Suite::ChaCha20Poly1305, &[1; 32], u64::MAX).unwrap();
        assert_eq!(last.seal(23, b"a", &mut [0; 64]), Err(RecordFailure::Exhausted));
    }
}
