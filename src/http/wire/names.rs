//! Case-insensitive lookup of header fields by name (RFC 9110 5.1).

use std::cmp::Ordering;

use super::head::Field;

/// Up to this number of fields, a linear search is used.
const FEW: usize = 32;

/// An index of the fields by name, built on first use: without it, a handler that looks up all
/// names of a head would take quadratic time.
#[derive(Debug, Default)]
pub struct Names {
    /// Indexes of the fields, sorted by name; fields of the same name keep their order.
    sorted: Vec<u32>,
}

impl Names {
    /// Forgets the fields.
    pub fn clear(&mut self) {
        self.sorted.clear();
    }

    /// The values of the fields with this name, in their order. `fields` must be the same fields of
    /// `head` in each call until [`Names::clear`].
    pub fn values<'a>(
        &mut self,
        fields: &[Field],
        head: &'a [u8],
        name: &[u8],
    ) -> impl Iterator<Item = &'a [u8]> {
        let is_few = fields.len() <= FEW;
        let few = if is_few { fields } else { &[] };
        let few = few.iter().filter(move |field| is_named(field, head, name));
        let many = if is_few { &[] } else { self.places(fields, head, name) };
        let many = many.iter().filter_map(|place| fields.get(*place as usize));
        few.chain(many).map(move |field| field.value.of(head))
    }

    /// The first of these values, and whether it is the only one.
    pub fn first<'a>(
        &mut self,
        fields: &[Field],
        head: &'a [u8],
        name: &[u8],
    ) -> Option<(&'a [u8], bool)> {
        if fields.len() > FEW {
            let mut values = self.values(fields, head, name);
            return values.next().map(|first| (first, values.next().is_none()));
        }
        let mut first = None;
        for field in fields {
            if is_named(field, head, name) {
                match first {
                    None => first = Some(field),
                    Some(first) => return Some((first.value.of(head), false)),
                }
            }
        }
        first.map(|first: &Field| (first.value.of(head), true))
    }

    /// Where the fields with this name are.
    fn places(&mut self, fields: &[Field], head: &[u8], name: &[u8]) -> &[u32] {
        let order = |place: &u32| {
            let field = fields.get(*place as usize);
            compare(field.map_or(&[], |field| field.name.of(head)), name)
        };
        if self.sorted.is_empty() {
            self.sorted.extend(0..fields.len() as u32);
            let name = |place: u32| fields.get(place as usize).map(|field| field.name.of(head));
            self.sorted.sort_by(|a, b| {
                compare(name(*a).unwrap_or_default(), name(*b).unwrap_or_default())
            });
        }
        let first = self.sorted.partition_point(|place| order(place).is_lt());
        let rest = self.sorted.get(first..).unwrap_or_default();
        let count = rest.partition_point(|place| order(place).is_eq());
        rest.get(..count).unwrap_or_default()
    }
}

/// Whether a field has this name. Most have one of another length, or with other letters at its ends.
#[inline(always)]
fn is_named(field: &Field, head: &[u8], name: &[u8]) -> bool {
    if field.name.size() != name.len() {
        return false;
    }
    let found = field.name.of(head);
    let ([first, .., last], [wanted_first, .., wanted_last]) = (found, name) else {
        return found.eq_ignore_ascii_case(name);
    };
    let others = (first ^ wanted_first | last ^ wanted_last) & !0x20;
    others == 0 && (found == name || found.eq_ignore_ascii_case(name))
}

/// A case-insensitive order of names: by length first, which distinguishes most of them.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| {
        a.iter().map(u8::to_ascii_lowercase).cmp(b.iter().map(u8::to_ascii_lowercase))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::head::{Head, HeadLimits, HeadProgress};
    use proptest::prelude::*;

    proptest! {
        /// Linear search and index find the same.
        #[test]
        fn the_values_of_a_name_keep_their_order(
            fields in proptest::collection::vec("[abAB]{1,2}", 0..80),
        ) {
            let lines: String =
                fields.iter().enumerate().map(|(i, name)| format!("{name}: {i}\r\n")).collect();
            let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
            let mut head = Head::default();
            let limits = HeadLimits { head: 1 << 20, fields: 1000 };
            let complete = HeadProgress::Complete(text.len());
            prop_assert_eq!(head.advance(text.as_bytes(), &limits), Ok(complete));
            let mut names = Names::default();
            for name in ["a", "B", "ab", "BA", "aA", "c"] {
                let values = names.values(&head.fields, text.as_bytes(), name.as_bytes());
                let found: Vec<&[u8]> = values.collect();
                let same = |(_, field): &(usize, &String)| field.eq_ignore_ascii_case(name);
                let expected: Vec<String> =
                    fields.iter().enumerate().filter(same).map(|(i, _)| i.to_string()).collect();
                let expected: Vec<&[u8]> = expected.iter().map(|text| text.as_bytes()).collect();
                prop_assert_eq!(&found, &expected);
                let first = names.first(&head.fields, text.as_bytes(), name.as_bytes());
                prop_assert_eq!(first, expected.first().map(|first| (*first, expected.len() == 1)));
            }
        }
    }
}
