//! Refuses texts that are made to collide in the hash of Lua's strings.
//!
//! Lua 5.3 hashes every second byte of strings from 32 bytes on, every third from 64 on, and so
//! forth (`luaS_hash`), and so does Lua 5.4 before 5.4.3 with table keys over 40 bytes. Texts that
//! differ in the other bytes alone collide whatever the state's seed is: 30,000 of them, sent in
//! 1 MiB, take Lua 5.3 three seconds. Shorter texts, and all in later revisions, are protected by
//! the seed, which is drawn from addresses and the time.
//!
//! What comes of the network and becomes a Lua string by the thousand (names and values of
//! parameters, cookies and list elements) is shown to a [`Guard`] first. It keeps its own tables
//! with the seeded SipHash of the standard library.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

/// From this length on not every byte is hashed (`LUAI_HASHLIMIT`).
const SPARSE: usize = 32;
/// Up to this length each string is in Lua's table of strings (`LUAI_MAXSHORTLEN`); a longer one
/// is hashed only as a key.
const SHORT: usize = 40;
/// The most different texts that may collide: beyond what honest names come to (numbers in the
/// bytes that are skipped), and few enough that 1 MiB of such texts takes about 25 ms.
const COLLISIONS: u32 = 256;

/// Too many texts collide: the request is to be refused (400).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood;

/// Watches the texts of one request. Costs nothing before a text of 32 bytes.
#[derive(Debug, Default)]
pub struct Guard {
    watch: Option<Box<Watch>>,
}

#[derive(Debug, Default)]
struct Watch {
    hasher: RandomState,
    seen: HashSet<u64>,
    collisions: HashMap<u64, u32>,
}

impl Guard {
    /// Admits a text that becomes a table key.
    pub fn key(&mut self, text: &[u8]) -> Result<(), Flood> {
        if text.len() < SPARSE {
            return Ok(());
        }
        self.watch.get_or_insert_default().admit(text)
    }

    /// Admits a text that becomes a value.
    pub fn value(&mut self, text: &[u8]) -> Result<(), Flood> {
        if text.len() > SHORT { Ok(()) } else { self.key(text) }
    }
}

impl Watch {
    fn admit(&mut self, text: &[u8]) -> Result<(), Flood> {
        if !self.seen.insert(self.hasher.hash_one(text)) {
            return Ok(());
        }
        let collisions = self.collisions.entry(self.hasher.hash_one(Hashed(text))).or_default();
        *collisions += 1;
        if *collisions > COLLISIONS { Err(Flood) } else { Ok(()) }
    }
}

/// A text as Lua's hash sees it: its length, and each `step`th byte from its end.
struct Hashed<'a>(&'a [u8]);

impl std::hash::Hash for Hashed<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Hashed(text) = self;
        state.write_usize(text.len());
        let step = text.len() / SPARSE + 1;
        text.rchunks_exact(step).filter_map(<[u8]>::last).for_each(|&byte| state.write_u8(byte));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of the given length that differ in bytes that Lua 5.3 does not hash.
    fn colliding(len: usize) -> impl Iterator<Item = Vec<u8>> {
        let step = len / 32 + 1;
        (0u32..65536).map(move |number| {
            let mut text = vec![b'x'; len];
            for (index, digit) in number.to_le_bytes().into_iter().take(2).enumerate() {
                text[len - 2 - index * step] = digit;
            }
            text
        })
    }

    #[test]
    fn colliding_keys_are_refused_at_any_length() {
        for len in [32, 40, 41, 64, 1000] {
            let mut guard = Guard::default();
            let refused = colliding(len).position(|text| guard.key(&text).is_err());
            assert_eq!(refused, Some(256), "{len}");
        }
    }

    #[test]
    fn colliding_values_are_refused_where_lua_hashes_them() {
        for (len, expected) in [(31, None), (32, Some(256)), (40, Some(256)), (41, None)] {
            let mut guard = Guard::default();
            let refused = colliding(len).position(|text| guard.value(&text).is_err());
            assert_eq!(refused, expected, "{len}");
        }
    }

    #[test]
    fn equal_and_honest_texts_are_admitted() {
        let mut guard = Guard::default();
        for number in 0..4096 {
            assert_eq!(guard.key(b"a_name_that_is_sent_many_times_over[]"), Ok(()));
            assert_eq!(
                guard.key(format!("a_name_that_is_numbered_like_this[{number}]").as_bytes()),
                Ok(())
            );
        }
    }
}
