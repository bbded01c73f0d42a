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

/// Pairs that own their texts.
#[derive(Debug, Default)]
pub struct Pairs {
    bytes: Vec<u8>,
    /// Where each name and each value ends.
    ends: Vec<(u32, u32)>,
}

impl Pairs {
    /// The parameters of a query string, given without its leading `?`.
    pub fn of_query(query: &[u8]) -> Pairs {
        let mut pairs = Pairs::default();
        pairs.reserve(query, b'&');
        pairs.decode(params::encoded(query), Plus::Space);
        pairs
    }

    /// The cookies of the values of all Cookie header lines.
    pub fn of_cookies<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Pairs {
        let mut pairs = Pairs::default();
        for header in headers {
            pairs.reserve(header, b';');
            pairs.decode(cookies::encoded(header), Plus::Literal);
        }
        pairs
    }

    /// All texts, one behind the other; and where each name and each value ends.
    pub fn into_parts(self) -> (Vec<u8>, Vec<(u32, u32)>) {
        (self.bytes, self.ends)
    }

    /// All names are the elements of the lists, in lower case, without values.
    pub fn of_elements<'a>(lists: impl Iterator<Item = &'a [u8]>) -> Pairs {
        let mut pairs = Pairs::default();
        for list in lists {
            pairs.reserve(list, b',');
            for element in elements(list) {
                pairs.bytes.extend_from_slice(element);
                pairs.ends.push((pairs.bytes.len() as u32, pairs.bytes.len() as u32));
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

    /// Adds encoded pairs. Heads, and the queries of a client, have less than 4 GiB.
    fn decode<'a>(&mut self, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>, plus: Plus) {
        for (name, value) in pairs {
            decode_into(name, plus, &mut self.bytes);
            let name_end = self.bytes.len();
            decode_into(value, plus, &mut self.bytes);
            self.ends.push((name_end as u32, self.bytes.len() as u32));
        }
    }

    fn text(&self, start: u32, end: u32) -> &[u8] {
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }
}

impl Texts for Pairs {
    fn count(&self) -> usize {
        self.ends.len()
    }

    fn name(&self, index: usize) -> &[u8] {
        let before = index.checked_sub(1).and_then(|before| self.ends.get(before));
        let start = before.map_or(0, |&(_, value_end)| value_end);
        self.ends.get(index).map_or(&[], |&(name_end, _)| self.text(start, name_end))
    }

    fn value(&self, index: usize) -> &[u8] {
        self.ends.get(index).map_or(&[], |&(name_end, end)| self.text(name_end, end))
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
    fn cookies_of_all_lines_are_decoded_but_for_plus_signs() {
        let pairs = Pairs::of_cookies([&b"a=1+1; b"[..], b"", b"c=%3B;a=2"].into_iter());
        assert_eq!(texts(&pairs), [("a", "1+1"), ("c", ";"), ("a", "2")]);
    }
}
