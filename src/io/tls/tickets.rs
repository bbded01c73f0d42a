//! Session tickets: a client comes back with one to whichever worker, also of those that are forked later, and of the
//! next generation. All derive the same keys from a secret that was made before the first fork, and each forgets the
//! old ones.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;
use sha2::Sha256;

use super::vault;
use crate::sys::os::monotonic::MonotonicTime;
use crate::sys::os::secret_heap::secretly;

/// How long a key seals tickets. It opens them for as long again.
const PERIOD: Duration = Duration::from_secs(6 * 3600);

/// The number of the period that a ticket begins with.
const EPOCH: usize = 8;

/// How many bytes tell until when the certificate is valid that a ticket stands for.
const END: usize = 8;

thread_local! {
    /// Until when the certificate is valid that the client has shown whose handshake is processed; in seconds since 1970.
    static PEER_END: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Sets until when the certificate is valid that the client has shown whose handshake is processed.
pub fn set_peer_end(end: Option<i64>) {
    PEER_END.set(end);
}

/// That end, which belongs to the handshake.
pub fn take_peer_end() -> Option<i64> {
    PEER_END.take()
}

/// Seals and opens the tickets of a listener.
pub struct Tickets {
    /// Where a ticket is from: another listener may ask more of its clients.
    listener: [u8; 32],
    chain: &'static Chain,
}

/// The secrets of a server, one for each period.
struct Chain {
    /// When the first period has begun, in nanoseconds of the monotonic clock.
    start: u64,
    keys: Mutex<Box<Keys>>,
}

static CHAIN: OnceLock<Chain> = OnceLock::new();

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
    /// Those of a listener that is known by these bytes.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(listener: [u8; 32]) -> Result<Tickets, String> {
        let chain = match CHAIN.get() {
            Some(chain) => chain,
            None => {
                let inherited = || vault::tickets().and_then(Chain::inherited);
                let begun = secretly(|| inherited().map_or_else(Chain::new, Ok))?;
                CHAIN.get_or_init(|| begun)
            }
        };
        Ok(Tickets { listener, chain })
    }

    fn key(&self, keys: &Keys, epoch: u64) -> Option<LessSafeKey> {
        let key = derived(keys.of(epoch)?, &[&b"ticket"[..], &self.listener].concat());
        UnboundKey::new(&AES_256_GCM, &key).ok().map(LessSafeKey::new)
    }
}

impl Chain {
    /// With a secret of its own.
    fn new() -> Result<Chain, String> {
        let mut current = [0; 32];
        getrandom::fill(&mut current).map_err(|error| format!("no random numbers: {error}"))?;
        let keys = Box::new(Keys { epoch: 0, current, previous: None });
        Ok(Chain { start: MonotonicTime::now().nanoseconds(), keys: Mutex::new(keys) })
    }

    /// That of the previous generation, if these words have one; they are cleared.
    fn inherited(words: &[AtomicU64]) -> Option<Chain> {
        let mut numbers = [0; vault::TICKETS];
        for (number, word) in numbers.iter_mut().zip(words) {
            *number = word.swap(0, Relaxed);
        }
        let [start, epoch, has_previous, secrets @ ..] = numbers;
        let (current, previous) = secrets.split_at(4);
        let previous = (has_previous != 0).then(|| secret_of(previous));
        let keys = Box::new(Keys { epoch, current: secret_of(current), previous });
        (start != 0).then(|| Chain { start, keys: Mutex::new(keys) })
    }

    /// Puts it into words.
    fn pass_on(&self, words: &[AtomicU64]) {
        let keys = self.keys();
        let secrets = [keys.current, keys.previous.unwrap_or_default()];
        let secrets = secrets.as_flattened().as_chunks::<8>().0;
        let first = [self.start, keys.epoch, u64::from(keys.previous.is_some())];
        let numbers = first.into_iter().chain(secrets.iter().map(|it| u64::from_ne_bytes(*it)));
        words.iter().zip(numbers).for_each(|(word, number)| word.store(number, Relaxed));
    }

    /// The keys as they are now.
    fn keys(&self) -> MutexGuard<'_, Box<Keys>> {
        let since = MonotonicTime::now().nanoseconds().saturating_sub(self.start);
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.advance(Duration::from_nanos(since).as_secs() / PERIOD.as_secs());
        keys
    }
}

fn secret_of(words: &[u64]) -> [u8; 32] {
    let mut secret = [0; 32];
    let (places, _) = secret.as_chunks_mut::<8>();
    places.iter_mut().zip(words).for_each(|(place, word)| *place = word.to_ne_bytes());
    secret
}

/// Puts the secrets into the file for the next generation, which takes them out.
pub fn pass_on() {
    if let (Some(chain), Some(words)) = (CHAIN.get(), vault::tickets()) {
        chain.pass_on(words);
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

    /// The secret of a period.
    fn of(&self, epoch: u64) -> Option<&[u8; 32]> {
        match self.epoch.checked_sub(epoch)? {
            0 => Some(&self.current),
            1 => self.previous.as_ref(),
            _ => None,
        }
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
        let keys = self.chain.keys();
        let key = self.key(&keys, keys.epoch)?;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let epoch = keys.epoch.to_be_bytes();
        let end = PEER_END.get().unwrap_or(i64::MAX).to_be_bytes();
        let mut sealed = [&end[..], plain].concat();
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
        let key = self.key(&self.chain.keys(), u64::from_be_bytes(*epoch))?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.open_in_place(nonce, Aad::from(*epoch), &mut opened).ok()?.len();
        let end = i64::from_be_bytes(*opened.first_chunk::<END>()?);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        if i64::try_from(now.as_secs()).ok()? > end {
            return None;
        }
        // The ticket that follows on this one ends no later.
        set_peer_end(Some(end));
        Some(opened.get(END..length)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With secrets of its own.
    fn tickets() -> Tickets {
        Tickets { listener: [1; 32], chain: Box::leak(Box::new(Chain::new().unwrap())) }
    }

    #[test]
    fn tickets_open_in_their_period_and_the_next_one() {
        let tickets = tickets();
        let ticket = tickets.encrypt(b"state").unwrap();
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        tickets.chain.keys.lock().unwrap().advance(1);
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        let later = tickets.encrypt(b"later").unwrap();
        tickets.chain.keys.lock().unwrap().advance(2);
        assert_eq!(tickets.decrypt(&ticket), None);
        assert_eq!(tickets.decrypt(&later).as_deref(), Some(&b"later"[..]));
    }

    #[test]
    fn tickets_outlast_no_certificate_nor_do_those_that_follow() {
        let tickets = tickets();
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        for (end, is_valid) in [(now - 10, false), (now + 1000, true)] {
            set_peer_end(Some(end));
            let ticket = tickets.encrypt(b"state").unwrap();
            set_peer_end(None);
            assert_eq!(tickets.decrypt(&ticket).is_some(), is_valid);
            assert_eq!(take_peer_end(), is_valid.then_some(end));
        }
    }

    #[test]
    fn tickets_open_at_their_listener_alone() {
        let tickets = tickets();
        let ticket = tickets.encrypt(b"state").unwrap();
        let other = Tickets { listener: [2; 32], chain: tickets.chain };
        assert_eq!(other.decrypt(&ticket), None);
    }

    #[test]
    fn processes_that_advance_by_themselves_agree() {
        let tickets = tickets();
        let keys = tickets.chain.keys.lock().unwrap();
        let mut one = Keys { epoch: 0, current: keys.current, previous: None };
        let mut other = Keys { epoch: 0, current: keys.current, previous: None };
        one.advance(1);
        one.advance(3);
        other.advance(3);
        assert_eq!((one.current, one.previous), (other.current, other.previous));
    }

    #[test]
    fn the_next_generation_gets_the_secrets_and_leaves_none() {
        let words = [const { AtomicU64::new(0) }; vault::TICKETS];
        assert!(Chain::inherited(&words).is_none());
        let own = tickets();
        for epoch in 0..2 {
            own.chain.keys.lock().unwrap().advance(epoch);
            let ticket = own.encrypt(b"state").unwrap();
            own.chain.pass_on(&words);
            let chain = Box::leak(Box::new(Chain::inherited(&words).unwrap()));
            assert!(words.iter().all(|word| word.load(Relaxed) == 0));
            let next = Tickets { listener: [1; 32], chain };
            assert_eq!(next.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        }
    }

    #[test]
    fn what_is_no_ticket_is_refused() {
        let tickets = tickets();
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
