//! Session tickets: a client comes back with one to whichever worker, also of those that are forked later. All
//! derive the same keys from a secret that was made before the first fork, and each forgets the old ones.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;
use sha2::Sha256;

/// How long a key seals tickets. It opens them for as long again.
const PERIOD: Duration = Duration::from_secs(6 * 3600);

/// The number of the period that a ticket begins with.
const EPOCH: usize = 8;

/// Seals and opens tickets.
pub struct Tickets {
    start: Instant,
    keys: Mutex<Keys>,
}

/// The secret of a period, and of the one before. No later secret tells an earlier one.
struct Keys {
    epoch: u64,
    current: [u8; 32],
    previous: Option<[u8; 32]>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// With a secret of its own.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> Result<Tickets, String> {
        let mut current = [0; 32];
        getrandom::fill(&mut current).map_err(|error| format!("no random numbers: {error}"))?;
        let keys = Keys { epoch: 0, current, previous: None };
        Ok(Tickets { start: Instant::now(), keys: Mutex::new(keys) })
    }

    /// The keys as they are now.
    fn keys(&self) -> MutexGuard<'_, Keys> {
        let now = self.start.elapsed().as_secs() / PERIOD.as_secs();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.advance(now);
        keys
    }
}

impl Keys {
    fn advance(&mut self, now: u64) {
        while self.epoch < now {
            let next = derived(&self.current, b"next");
            self.previous = Some(std::mem::replace(&mut self.current, next));
            self.epoch += 1;
        }
    }

    fn of(&self, epoch: u64) -> Option<LessSafeKey> {
        let secret = match self.epoch.checked_sub(epoch)? {
            0 => Some(&self.current),
            1 => self.previous.as_ref(),
            _ => None,
        };
        let key = derived(secret?, b"ticket");
        UnboundKey::new(&AES_256_GCM, &key).ok().map(LessSafeKey::new)
    }
}

fn derived(secret: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let Ok(mut code) = Hmac::<Sha256>::new_from_slice(secret) else { return [0; 32] };
    code.update(purpose);
    code.finalize().into_bytes().into()
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys();
        let key = keys.of(keys.epoch)?;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let epoch = keys.epoch.to_be_bytes();
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(epoch),
            &mut sealed,
        )
        .ok()?;
        Some([&epoch[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (epoch, rest) = ticket.split_first_chunk::<EPOCH>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys().of(u64::from_be_bytes(*epoch))?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.open_in_place(nonce, Aad::from(*epoch), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_open_in_their_period_and_the_next_one() {
        let tickets = Tickets::new().unwrap();
        let ticket = tickets.encrypt(b"state").unwrap();
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        tickets.keys.lock().unwrap().advance(1);
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        let later = tickets.encrypt(b"later").unwrap();
        tickets.keys.lock().unwrap().advance(2);
        assert_eq!(tickets.decrypt(&ticket), None);
        assert_eq!(tickets.decrypt(&later).as_deref(), Some(&b"later"[..]));
    }

    #[test]
    fn processes_that_advance_by_themselves_agree() {
        let tickets = Tickets::new().unwrap();
        let keys = tickets.keys.lock().unwrap();
        let mut one = Keys { epoch: 0, current: keys.current, previous: None };
        let mut other = Keys { epoch: 0, current: keys.current, previous: None };
        one.advance(1);
        one.advance(3);
        other.advance(3);
        assert_eq!((one.current, one.previous), (other.current, other.previous));
    }

    #[test]
    fn what_is_no_ticket_is_refused() {
        let tickets = Tickets::new().unwrap();
        let ticket = tickets.encrypt(b"state").unwrap();
        for length in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..length]), None);
        }
        for at in 0..ticket.len() {
            let mut wrong = ticket.clone();
            wrong[at] ^= 1;
            assert_eq!(tickets.decrypt(&wrong), None);
        }
    }
}
