//! Names and values, decoded, in one piece of memory: a client may send half a million in 1 MiB.

use memchr::memchr_iter;

use super::cookies;
use super::escape::{Plus, decode_into};
use super::form::Field;
use super::list::elements;
use super::params;

/// Texts in pairs, in their order.
pub trait Texts {
    /// How many pairs there are.
    fn count(&self) -> usize;

    /// The name of the pair `index`, counted from 0; empty if there is none.
    fn name(&self, index: usize) -> &[u8];

    /// The value of the pair `index`.
    fn value(&self, index: usize) -> &[u8];
}

/// Where a name and its value end: two numbers of 32 bits.
pub type Ends = [u8; 8];

/// The bytes of two numbers.
pub fn ends(name: usize, value: usize) -> Ends {
    // Heads, and the queries of a client, have less than 4 GiB.
    ((value as u64) << 32 | u64::from(name as u32)).to_le_bytes()
}

/// The numbers in the bytes.
pub fn ends_of(bytes: Ends) -> (usize, usize) {
    let both = u64::from_le_bytes(bytes);
    (both as u32 as usize, (both >> 32) as usize)
}

/// Pairs that own their texts.
#[derive(Debug, Default)]
pub struct Pairs {
    bytes: Vec<u8>,
    ends: Vec<Ends>,
}

impl Pairs {
    /// The parameters of a query string, given without its leading `?`.
    pub fn of_query(query: &[u8]) -> Pairs {
        let mut pairs = Pairs::default();
        pairs.reserve(query, b'&');
        for (name, value) in params::encoded(query) {
            decode_into(name, Plus::Space, &mut pairs.bytes);
            pairs.end_name(value, Plus::Space);
        }
        pairs
    }

    /// The cookies of the values of all Cookie header lines; names are not decoded (cookies.rs).
    pub fn of_cookies<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Pairs {
        let mut pairs = Pairs::default();
        for header in headers {
            pairs.reserve(header, b';');
            for (name, value) in cookies::encoded(header) {
                pairs.bytes.extend_from_slice(name);
                pairs.end_name(value, Plus::Literal);
            }
        }
        pairs
    }

    /// All texts, one behind the other; and where each name and each value ends.
    pub fn into_parts(self) -> (Vec<u8>, Vec<Ends>) {
        (self.bytes, self.ends)
    }

    /// All names are the elements of the lists, in lower case, without values.
    pub fn of_elements<'a>(lists: impl Iterator<Item = &'a [u8]>) -> Pairs {
        let mut pairs = Pairs::default();
        for list in lists {
            pairs.reserve(list, b',');
            for element in elements(list) {
                pairs.bytes.extend_from_slice(element);
                pairs.ends.push(ends(pairs.bytes.len(), pairs.bytes.len()));
            }
        }
        pairs.bytes.make_ascii_lowercase();
        pairs
    }

    /// Makes room for the pieces of `text`.
    fn reserve(&mut self, text: &[u8], separator: u8) {
        self.bytes.reserve(text.len());
        self.ends.reserve(memchr_iter(separator, text).count() + 1);
    }

    /// Ends a pair whose name has just been added, with its encoded value.
    fn end_name(&mut self, value: &[u8], plus: Plus) {
        let name_end = self.bytes.len();
        decode_into(value, plus, &mut self.bytes);
        self.ends.push(ends(name_end, self.bytes.len()));
    }

    fn text(&self, start: usize, end: usize) -> &[u8] {
        self.bytes.get(start..end).unwrap_or_default()
    }

    fn ends(&self, index: usize) -> (usize, usize) {
        self.ends.get(index).copied().map_or((0, 0), ends_of)
    }
}

impl Texts for Pairs {
    fn count(&self) -> usize {
        self.ends.len()
    }

    fn name(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends(before).1);
        self.text(start, self.ends(index).0)
    }

    fn value(&self, index: usize) -> &[u8] {
        let (start, end) = self.ends(index);
        self.text(start, end)
    }
}

impl Texts for [Field] {
    fn count(&self) -> usize {
        <[Field]>::len(self)
    }

    fn name(&self, index: usize) -> &[u8] {
        self.get(index).map_or(&[], |field| &field.part.field_name)
    }

    fn value(&self, index: usize) -> &[u8] {
        self.get(index).map_or(&[], |field| &field.value)
    }
}

impl Texts for [(&[u8], &[u8])] {
    fn count(&self) -> usize {
        <[_]>::len(self)
    }

    fn name(&self, index: usize) -> &[u8] {
        self.get(index).map_or(&[], |(name, _)| name)
    }

    fn value(&self, index: usize) -> &[u8] {
        self.get(index).map_or(&[], |(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pairs: &Pairs) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        (0..pairs.count()).map(|i| (text(pairs.name(i)), text(pairs.value(i)))).collect()
    }

    #[test]
    fn pairs_of_a_query_are_decoded() {
        let pairs = Pairs::of_query(b"a=1+1&b&=%263&a=%61");
        assert_eq!(texts(&pairs), [("a", "1 1"), ("b", ""), ("", "&3"), ("a", "a")]);
        assert_eq!((pairs.name(4), pairs.value(4)), (&b""[..], &b""[..]));
    }

    #[test]
    fn values_of_cookies_of_all_lines_are_decoded_but_for_plus_signs() {
        let pairs = Pairs::of_cookies([&b"a=1+1; b"[..], b"", b"c%3B=%3B;a=2"].into_iter());
        assert_eq!(texts(&pairs), [("a", "1+1"), ("c%3B", ";"), ("a", "2")]);
    }
}
