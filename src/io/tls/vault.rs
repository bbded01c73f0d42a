//! The key under which the secrets of sessions travel between processes: what stands in messages, in shared memory and
//! in the memory of processes that only pass it on is useless without it. Beside it is room for the secrets of session
//! tickets, on their way to the next generation.
//!
//! It is in a file in memory that all processes of a server map, those of later generations as well, and that does not
//! appear in core files where the system knows `MADV_DONTDUMP`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use nix::sys::memfd::{MFdFlags, memfd_create};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::sys::os::shared::SharedWords;

/// Words of the key.
const KEY: usize = 4;

/// Words for the secrets of session tickets.
pub const TICKETS: usize = 11;

/// Words of the file.
const WORDS: usize = KEY + TICKETS;

struct Vault {
    words: SharedWords,
    file: OwnedFd,
}

static VAULT: OnceLock<Vault> = OnceLock::new();

/// Makes the key, unless there is one. Before the first fork.
///
/// # Errors
/// There is no memory, or no random numbers.
pub fn prepare() -> io::Result<()> {
    if VAULT.get().is_some() {
        return Ok(());
    }
    let file = memfd_create(c"moonbridge keys", MFdFlags::MFD_CLOEXEC)?;
    let words = SharedWords::in_file(&file, WORDS)?;
    words.keep_from_dumps();
    for word in words.iter().take(KEY) {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        word.store(u64::from_ne_bytes(random), Relaxed);
    }
    let _ = VAULT.set(Vault { words, file });
    Ok(())
}

/// The file, for the next generation.
pub fn file() -> Option<BorrowedFd<'static>> {
    VAULT.get().map(|vault| vault.file.as_fd())
}

/// The key is that of the previous generation.
pub fn adopt(file: OwnedFd) {
    if let Ok(words) = SharedWords::in_file(&file, WORDS) {
        words.keep_from_dumps();
        let _ = VAULT.set(Vault { words, file });
    }
}

/// The words for the secrets of session tickets.
pub fn tickets() -> Option<&'static [AtomicU64]> {
    VAULT.get()?.words.get(KEY..)
}

fn key() -> Option<LessSafeKey> {
    let mut bytes = [0; 8 * KEY];
    let (places, _) = bytes.as_chunks_mut::<8>();
    for (place, word) in places.iter_mut().zip(VAULT.get()?.words.iter()) {
        *place = word.load(Relaxed).to_ne_bytes();
    }
    let key = UnboundKey::new(&AES_256_GCM, &bytes).ok().map(LessSafeKey::new);
    bytes.fill(0);
    key
}

/// Seals bytes for the way. Whatever becomes of it, they are cleared.
pub fn seal(plain: &mut [u8]) -> Option<Vec<u8>> {
    let sealed = try_seal(plain);
    plain.fill(0);
    sealed
}

fn try_seal(plain: &mut [u8]) -> Option<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).ok()?;
    let number = Nonce::assume_unique_for_key(nonce);
    let tag = key()?.seal_in_place_separate_tag(number, Aad::empty(), plain).ok()?;
    Some([&nonce, &*plain, tag.as_ref()].concat())
}

/// What `read` makes of the bytes that were sealed. They are cleared afterwards.
pub fn open<R>(sealed: &[u8], read: impl FnOnce(&[u8]) -> Option<R>) -> Option<R> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut bytes = rest.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let opened = key()?.open_in_place(nonce, Aad::empty(), &mut bytes);
    let outcome = opened.ok().and_then(|plain| read(plain));
    bytes.fill(0);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_as_it_was() {
        prepare().unwrap();
        let mut plain = *b"secret";
        let sealed = seal(&mut plain).unwrap();
        assert_eq!(plain, [0; 6]);
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(open(&sealed, |plain| Some(plain.to_vec())).as_deref(), Some(&b"secret"[..]));
        for at in 0..sealed.len() {
            let mut wrong = sealed.clone();
            wrong[at] ^= 1;
            assert_eq!(open(&wrong, |_| Some(())), None);
            assert_eq!(open(&sealed[..at], |_| Some(())), None);
        }
    }
}
