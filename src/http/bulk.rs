//! More names and values than an honest client sends, to be looked up without a table of them.
//!
//! A query of 1 MiB may hold 270,000 different names. A Lua table of these takes 30 to 300 ms: some
//! ten accesses to memory that is not cached for each name, and more if the names are chosen so that
//! Lua's hash has few values for them (three bytes in random order will do). An index that is sorted
//! by a seeded hash takes a tenth, whatever the names are.
//!
//! Everything is in strings of bytes, which Lua keeps: so its collector knows how much memory a
//! request holds.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use super::pairs::{Ends, Pairs, Texts, ends_of};

/// Up to this number of pairs a table is made of them.
pub const TABLE_MAXIMUM: usize = 1024;

/// A name and its values.
pub type Group<'a> = (&'a [u8], Vec<&'a [u8]>);

/// The texts of `pairs`, one behind the other, with what finds them in it.
pub struct Encoded {
    /// All names and values.
    pub texts: Vec<u8>,
    /// The hash of each name, above the number of its pair; ascending numbers of 64 bits.
    pub order: Vec<[u8; 8]>,
    /// In the order of the pairs.
    pub ends: Vec<Ends>,
}

/// Makes an index of the names.
pub fn encode(pairs: Pairs) -> Encoded {
    let entry = |pair: usize| u64::from(hash(pairs.name(pair))) << 32 | pair as u64;
    let mut order: Vec<[u8; 8]> =
        (0..pairs.count()).map(|pair| entry(pair).to_le_bytes()).collect();
    order.sort_unstable_by_key(|entry| u64::from_le_bytes(*entry));
    let (texts, ends) = pairs.into_parts();
    Encoded { texts, order, ends }
}

/// The texts, one behind the other, and where each ends, in numbers of 32 bits.
pub fn encode_list(items: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
    let end = |end: &mut usize, item: &&[u8]| {
        *end += item.len();
        Some((*end as u32).to_le_bytes())
    };
    (items.concat(), items.iter().scan(0, end).flatten().collect())
}

/// Up to `count` of the texts that [`encode_list`] has put together, from the one at `first` on,
/// counted from 0.
pub fn slice<'a>(texts: &'a [u8], ends: &[u8], first: usize, count: usize) -> Vec<&'a [u8]> {
    let end = |place: usize| {
        let bytes = ends.get(place.checked_mul(4)?..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes) as usize)
    };
    let mut start = first.checked_sub(1).and_then(end).unwrap_or(0);
    let items = (first..first.saturating_add(count)).map_while(|place| {
        let end = end(place)?;
        texts.get(std::mem::replace(&mut start, end)..end)
    });
    items.collect()
}

/// A hash of which clients do not know the seed.
fn hash(name: &[u8]) -> u32 {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    // Half a million of the shortest names fit into 1 MiB.
    static SHORTEST: LazyLock<Vec<u32>> =
        LazyLock::new(|| (0..=u8::MAX).map(|byte| upper(SEED.hash_one(byte))).collect());
    match name {
        [byte] => SHORTEST.get(usize::from(*byte)).copied().unwrap_or_default(),
        _ => upper(match short(name) {
            Some(number) => SEED.hash_one(number),
            None => SEED.hash_one(name),
        }),
    }
}

fn upper(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// A name of up to seven bytes as a number, which is hashed in half the time.
fn short(name: &[u8]) -> Option<u64> {
    let mut bytes = [0; 8];
    let (length, room) = bytes.split_last_mut()?;
    room.get_mut(..name.len())?.copy_from_slice(name);
    *length = name.len() as u8;
    Some(u64::from_le_bytes(bytes))
}

/// What [`encode`] made.
#[derive(Clone, Copy, Debug)]
pub struct Bulk<'a> {
    texts: &'a [u8],
    order: &'a [u8],
    ends: &'a [u8],
}

impl<'a> Bulk<'a> {
    /// To be used with what `encode` has returned, in the same process or a fork of it.
    pub fn new(texts: &'a [u8], order: &'a [u8], ends: &'a [u8]) -> Bulk<'a> {
        Bulk { texts, order, ends }
    }

    fn len(&self) -> usize {
        self.order.len() / 8
    }

    /// Hash and pair at a place in the order of hashes.
    fn entry(&self, place: usize) -> (u32, usize) {
        let entry = eight(self.order, place).map_or(0, u64::from_le_bytes);
        ((entry >> 32) as u32, entry as u32 as usize)
    }

    fn ends(&self, pair: usize) -> (usize, usize) {
        eight(self.ends, pair).map_or((0, 0), ends_of)
    }

    /// The name and the value of a pair.
    fn pair(&self, pair: usize) -> (&'a [u8], &'a [u8]) {
        let start = pair.checked_sub(1).map_or(0, |before| self.ends(before).1);
        let (name_end, end) = self.ends(pair);
        let text = |start, end| self.texts.get(start..end).unwrap_or_default();
        (text(start, name_end), text(name_end, end))
    }

    /// The values of a name in the order of the pairs.
    pub fn find(&self, name: &[u8]) -> Vec<&'a [u8]> {
        let wanted = hash(name);
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle).0 < wanted {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let entries = (low..self.len()).map(|place| self.entry(place));
        let same = entries.take_while(|(hash, _)| *hash == wanted).map(|(_, pair)| self.pair(pair));
        same.filter(|(found, _)| *found == name).map(|(_, value)| value).collect()
    }

    /// About `count` different names with their values, from `place` (0 at first) on, and the place of
    /// the next ones. None if there are no more.
    pub fn groups(&self, mut place: usize, count: usize) -> (Vec<Group<'a>>, usize) {
        let mut groups: Vec<Group> = Vec::with_capacity(count);
        while place < self.len() && groups.len() < count {
            // Names that have the same hash by chance are among these.
            let (same, known) = (self.entry(place).0, groups.len());
            while place < self.len() && self.entry(place).0 == same {
                let (name, value) = self.pair(self.entry(place).1);
                let found = groups.iter_mut().skip(known).find(|(other, _)| *other == name);
                match found {
                    Some((_, values)) => values.push(value),
                    None => groups.push((name, vec![value])),
                }
                place += 1;
            }
        }
        (groups, place)
    }
}

fn eight(bytes: &[u8], place: usize) -> Option<[u8; 8]> {
    bytes.get(place.checked_mul(8)?..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn view(encoded: &Encoded) -> Bulk<'_> {
        Bulk::new(&encoded.texts, encoded.order.as_flattened(), encoded.ends.as_flattened())
    }

    fn all<'a>(bulk: &Bulk<'a>, count: usize) -> Vec<Group<'a>> {
        let (mut all, mut place) = (Vec::new(), 0);
        loop {
            let (groups, next) = bulk.groups(place, count);
            if groups.is_empty() {
                return all;
            }
            place = next;
            all.extend(groups);
        }
    }

    proptest! {
        /// The reference is the list of the pairs, searched from its begin.
        #[test]
        fn each_name_is_found_with_its_values_in_their_order(
            pairs in proptest::collection::vec(("[ab]{0,2}|[ab]{6,8}", "[a-c]{0,1}"), 0..30),
            count in 1usize..5,
        ) {
            let text: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let encoded = encode(Pairs::of_query(text.join("&").as_bytes()));
            let bulk = view(&encoded);
            let mut names: Vec<&str> = pairs.iter().map(|(name, _)| &name[..]).collect();
            names.sort();
            names.dedup();
            let mut groups = all(&bulk, count);
            groups.sort();
            prop_assert_eq!(groups.len(), names.len());
            for (name, (found, values)) in names.into_iter().zip(groups) {
                let same = pairs.iter().filter(|(other, _)| other == name);
                let expected: Vec<&[u8]> = same.map(|(_, value)| value.as_bytes()).collect();
                prop_assert_eq!(found, name.as_bytes());
                prop_assert_eq!(&values, &expected);
                prop_assert_eq!(bulk.find(name.as_bytes()), expected);
            }
            prop_assert!(bulk.find(b"c").is_empty());
        }
    }

    #[test]
    fn names_that_end_with_zeros_are_different() {
        let encoded = encode(Pairs::of_query(b"a=1&a%00=2&%00=3&=4"));
        let bulk = view(&encoded);
        let found: Vec<Vec<&[u8]>> =
            [&b"a"[..], b"a\0", b"\0", b""].iter().map(|name| bulk.find(name)).collect();
        assert_eq!(found, [[b"1"], [b"2"], [b"3"], [b"4"]]);
    }

    #[test]
    fn a_list_is_read_in_slices() {
        let items: [&[u8]; 4] = [b"a", b"", b"bc", b"d"];
        let (texts, ends) = encode_list(&items);
        for first in 0..5 {
            for count in 0..5 {
                let expected: Vec<&[u8]> = items.into_iter().skip(first).take(count).collect();
                assert_eq!(slice(&texts, &ends, first, count), expected);
            }
        }
        assert_eq!(slice(&texts, &ends, usize::MAX / 4, 1), Vec::<&[u8]>::new());
        assert_eq!(slice(b"", &[0xff; 9], 0, 9), Vec::<&[u8]>::new());
    }

    #[test]
    fn garbage_is_harmless() {
        let bulk = Bulk::new(b"abc", &[0xff; 24], &[0xff; 17]);
        assert_eq!(bulk.find(b"a"), Vec::<&[u8]>::new());
        assert_eq!(bulk.groups(0, 9).1, 3);
    }
}
