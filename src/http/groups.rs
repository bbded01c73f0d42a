//! Names and values in the order of the names, for a table of lists.

use std::collections::HashMap;

use super::flood::{Flood, Guard};
use super::params::Pair;

/// Pairs of texts in one piece of memory.
#[derive(Debug, Default)]
pub struct Pairs {
    bytes: Vec<u8>,
    /// Where each name and each value ends.
    ends: Vec<(usize, usize)>,
}

impl Pairs {
    /// Copies the texts of the pairs.
    pub fn copied<'a>(pairs: impl Iterator<Item = Pair<'a>>) -> Pairs {
        let mut copied = Pairs::default();
        for (name, value) in pairs {
            copied.bytes.extend_from_slice(&name);
            let end = copied.bytes.len();
            copied.bytes.extend_from_slice(&value);
            copied.ends.push((end, copied.bytes.len()));
        }
        copied
    }

    /// The pairs in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.ends.iter().scan(&self.bytes[..], |rest, &(name_end, value_end)| {
            let start = self.bytes.len() - rest.len();
            let (name, tail) = rest.split_at_checked(name_end - start)?;
            let (value, tail) = tail.split_at_checked(value_end - name_end)?;
            *rest = tail;
            Some((name, value))
        })
    }
}

/// The different names of a list of pairs, and the values of each.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Groups<'a> {
    /// Each name once, in the order of its first pair, with the number of its values.
    pub names: Vec<(&'a [u8], usize)>,
    /// The values: those of the first name in their order, then those of the second, and so on.
    pub values: Vec<&'a [u8]>,
}

impl<'a> Groups<'a> {
    /// Groups pairs by their names. Linear, since the hash is seeded at random.
    ///
    /// # Errors
    /// Names or values are made to collide in Lua's hash.
    pub fn of(
        pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Result<Groups<'a>, Flood> {
        let mut guard = Guard::default();
        let mut known: HashMap<&[u8], usize> = HashMap::new();
        let mut names: Vec<(&[u8], usize)> = Vec::new();
        let mut indices: Vec<usize> = Vec::new();
        for (name, value) in pairs.clone() {
            guard.value(value)?;
            let index = match names.last() {
                Some((last, _)) if *last == name => names.len() - 1,
                _ => *known.entry(name).or_insert(names.len()),
            };
            if index == names.len() {
                guard.key(name)?;
                names.push((name, 0));
            }
            if let Some((_, count)) = names.get_mut(index) {
                *count += 1;
            }
            indices.push(index);
        }
        let values = pairs.map(|(_, value)| value);
        Ok(Groups { values: in_order(&names, indices.iter().copied().zip(values)), names })
    }
}

/// The values, sorted by the index of their name (by counting).
fn in_order<'a>(
    names: &[(&[u8], usize)],
    members: impl Iterator<Item = (usize, &'a [u8])>,
) -> Vec<&'a [u8]> {
    let starts = names.iter().scan(0, |next, (_, count)| {
        *next += count;
        Some(*next - count)
    });
    let mut places: Vec<usize> = starts.collect();
    let mut values: Vec<&[u8]> = vec![b""; names.iter().map(|(_, count)| count).sum()];
    for (index, value) in members {
        let Some(place) = places.get_mut(index) else { continue };
        if let Some(slot) = values.get_mut(*place) {
            *slot = value;
        }
        *place += 1;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::params;

    fn groups<'a>(pairs: &[(&'a str, &'a str)]) -> Result<Groups<'a>, Flood> {
        Groups::of(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    #[test]
    fn values_keep_their_order_within_a_name() {
        let found = groups(&[("b", "1"), ("a", "2"), ("b", "3"), ("b", "4"), ("a", "5"), ("", "")]);
        let names: Vec<(&[u8], usize)> = vec![(b"b", 3), (b"a", 2), (b"", 1)];
        let values: Vec<&[u8]> = vec![b"1", b"3", b"4", b"2", b"5", b""];
        assert_eq!(found, Ok(Groups { names, values }));
        assert_eq!(groups(&[]), Ok(Groups::default()));
    }

    #[test]
    fn copied_pairs_are_the_same() {
        let pairs = params::pairs(b"a=1&b&=%263&a=%61");
        let copied = Pairs::copied(pairs);
        let found: Vec<(&[u8], &[u8])> = copied.iter().collect();
        let expected: Vec<(&[u8], &[u8])> =
            vec![(b"a", b"1"), (b"b", b""), (b"", b"&3"), (b"a", b"a")];
        assert_eq!(found, expected);
    }

    #[test]
    fn texts_that_collide_are_refused() {
        let texts: Vec<String> = (0..9999)
            .map(|number| {
                let digits: Vec<char> = format!("{number:04}").chars().collect();
                format!("{:024}{}x{}x{}x{}x", 0, digits[0], digits[1], digits[2], digits[3])
            })
            .collect();
        let names: Vec<(&str, &str)> = texts.iter().map(|text| (text.as_str(), "")).collect();
        let values: Vec<(&str, &str)> = texts.iter().map(|text| ("", text.as_str())).collect();
        assert_eq!(groups(&names), Err(Flood));
        assert_eq!(groups(&values), Err(Flood));
    }
}
