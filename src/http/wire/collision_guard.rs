//! Detects texts that are chosen to collide in Lua's string hash.
//!
//! Lua 5.3 hashes only every second byte of strings from 32 bytes on, every third from 64 bytes on,
//! and so forth (`luaS_hash`). Lua 5.4 before 5.4.3 does the same for table keys over 40 bytes.
//! Texts that differ only in the other bytes collide whatever the state's seed is: a table of 4,096
//! such names takes Lua 5.3 100 to 300 ms. The seed protects shorter texts, and all texts in later
//! versions.

use std::collections::{HashMap, HashSet};

/// Length from which Lua does not hash every byte (`LUAI_HASHLIMIT`).
const SPARSE: usize = 32;
/// Length up to which Lua interns strings (`LUAI_MAXSHORTLEN`); it hashes longer ones only as table
/// keys.
const SHORT: usize = 40;
/// How many different texts may collide: more than honest names do (with numbers in the skipped
/// bytes), and few enough that 1 MiB of such texts takes about 25 ms.
const COLLISIONS: usize = 256;

/// Whether too many names, which become table keys, or values, which become strings, collide.
///
/// Linear, since Rust seeds the hash of its maps. Almost free if all texts are short.
pub fn collide<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
    let mut alike: HashMap<(usize, Vec<u8>), HashSet<&[u8]>> = HashMap::new();
    pairs.flat_map(|(name, value)| [name, value.get(..=SHORT).map_or(value, |_| b"")]).any(|text| {
        text.len() >= SPARSE && {
            let step = text.len() / SPARSE + 1;
            let hashed = text.rchunks_exact(step).filter_map(<[u8]>::last).copied().collect();
            let texts = alike.entry((text.len(), hashed)).or_default();
            texts.insert(text) && texts.len() > COLLISIONS
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` texts of the given length that differ in bytes that Lua 5.3 does not hash.
    fn colliding(len: usize, count: u16) -> Vec<Vec<u8>> {
        let step = len / 32 + 1;
        let text = |number: u16| {
            let mut text = vec![b'x'; len];
            for (index, digit) in number.to_le_bytes().into_iter().enumerate() {
                text[len - 2 - index * step] = digit;
            }
            text
        };
        (0..count).map(text).collect()
    }

    fn names(texts: &[Vec<u8>]) -> bool {
        collide(texts.iter().map(|text| (&text[..], &b""[..])))
    }

    fn values(texts: &[Vec<u8>]) -> bool {
        collide(texts.iter().map(|text| (&b""[..], &text[..])))
    }

    #[test]
    fn names_collide_from_32_bytes_on() {
        assert!(!names(&colliding(31, 1000)));
        for len in [32, 40, 41, 64, 1000] {
            assert_eq!((names(&colliding(len, 256)), names(&colliding(len, 257))), (false, true));
        }
    }

    #[test]
    fn values_collide_where_lua_hashes_them() {
        for (len, expected) in [(31, false), (32, true), (40, true), (41, false)] {
            assert_eq!(values(&colliding(len, 257)), expected, "{len}");
        }
    }

    #[test]
    fn equal_and_honest_texts_do_not_collide() {
        assert!(!names(&vec![b"a_name_that_is_sent_many_times_over[]".to_vec(); 4096]));
        let numbered = |number| format!("a_name_that_is_numbered_like_this[{number}]").into_bytes();
        assert!(!names(&(0..4096).map(numbered).collect::<Vec<_>>()));
    }
}
