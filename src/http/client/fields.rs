//! Response headers for Lua: names in lower case, without repetitions; repeated values are joined.

use super::link::ReceivedHead;
use crate::sys::lua::method::Record;

/// Writes the head of a response to an empty record.
pub fn put(record: &mut Record, received: &ReceivedHead<'_>) {
    record.number = i64::from(received.status);
    record.line = record.add(received.status_line());
    // A Bloom filter of the names so far: most names are known to be new without a comparison.
    let (mut seen, mut doubtful) = (0u64, false);
    for (name, value) in received.fields() {
        let at = record.add(name);
        let name = record.bytes.get_mut(at.clone()).unwrap_or_default();
        name.make_ascii_lowercase();
        let first = name.first().copied().map_or(0, usize::from);
        let bit = 1u64 << (first.wrapping_mul(7).wrapping_add(name.len()) % 64);
        doubtful |= seen & bit != 0;
        seen |= bit;
        // All lengths in a list are equal, or the response was refused (RFC 9110 8.6).
        let single = if name == b"content-length" { first_element(&value) } else { &value };
        let value = record.add(single);
        record.fields.push((at, value));
    }
    if doubtful {
        join(record);
    }
}

/// The first element of a list separated by commas.
fn first_element(list: &[u8]) -> &[u8] {
    list.split(|&byte| byte == b',').next().unwrap_or_default().trim_ascii_end()
}

/// Fields with a single value, which some servers nevertheless send twice.
const SINGLE: [&[u8]; 2] = [b"content-length", b"location"];

/// Joins the values of equal names with commas (RFC 9110 5.3); those of Set-Cookie, which may
/// contain commas, with line feeds, which no value contains. Equal values of a single-valued field
/// are merged.
fn join(record: &mut Record) {
    let Record { bytes, fields, .. } = record;
    let text = |range: &std::ops::Range<usize>| bytes.get(range.clone()).unwrap_or_default();
    // Stable: values keep their order.
    fields.sort_by(|(a, _), (b, _)| text(a).cmp(text(b)));
    let mut joined = Vec::with_capacity(fields.len());
    let mut rest = fields.as_slice();
    while let Some((name, value)) = rest.first() {
        let same = |(other, _): &&(_, _)| {
            bytes.get(std::ops::Range::clone(other)) == bytes.get(name.clone())
        };
        let count = rest.iter().take_while(same).count().max(1);
        let (group, tail) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        rest = tail;
        let single = bytes.get(name.clone()).is_some_and(|name| SINGLE.contains(&name));
        let equal = |(_, other): &(_, _)| {
            bytes.get(std::ops::Range::clone(other)) == bytes.get(value.clone())
        };
        if group.len() == 1 || single && group.iter().all(equal) {
            joined.push((name.clone(), value.clone()));
            continue;
        }
        let separator: &[u8] =
            if bytes.get(name.clone()) == Some(b"set-cookie") { b"\n" } else { b", " };
        let start = bytes.len();
        for (index, (_, value)) in group.iter().enumerate() {
            if index > 0 {
                bytes.extend_from_slice(separator);
            }
            bytes.extend_from_within(value.clone());
        }
        joined.push((name.clone(), start..bytes.len()));
    }
    *fields = joined;
}

#[cfg(test)]
mod tests {
    use super::super::head::{LIMITS, ResponseHead};
    use super::*;

    /// The fields in the order of their names.
    fn fields(lines: &str) -> Vec<(String, String)> {
        let input = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        let mut head = ResponseHead::default();
        head.advance(input.as_bytes(), &LIMITS).unwrap();
        let mut record = Record::default();
        put(&mut record, &ReceivedHead::new(&head, input.as_bytes()));
        assert_eq!(&record.bytes[record.line.clone()], b"HTTP/1.1 200 OK");
        let text = |at: &std::ops::Range<usize>| {
            String::from_utf8_lossy(&record.bytes[at.clone()]).into_owned()
        };
        let mut list: Vec<_> = record.fields.iter().map(|(n, v)| (text(n), text(v))).collect();
        list.sort();
        list
    }

    fn list(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn names_are_in_lower_case() {
        assert_eq!(fields("B-C: D\r\nA: e\r\n"), list(&[("a", "e"), ("b-c", "D")]));
        assert_eq!(fields(""), list(&[]));
    }

    #[test]
    fn rfc_9110_5_3_values_of_one_name_are_joined_in_order() {
        let lines = "A: 2\r\nX: 1\r\na: 1\r\nB: 3\r\nA:\r\nA: 2\r\n";
        assert_eq!(fields(lines), list(&[("a", "2, 1, , 2"), ("b", "3"), ("x", "1")]));
    }

    #[test]
    fn names_that_look_alike_are_not_joined() {
        // The same first letter and length.
        assert_eq!(fields("Aa: 1\r\nAb: 2\r\n"), list(&[("aa", "1"), ("ab", "2")]));
    }

    #[test]
    fn a_single_value_that_is_repeated_stays_one() {
        let lines = "Location: /a\r\nContent-Length: 2\r\nlocation: /a\r\nContent-Length: 2\r\n";
        assert_eq!(fields(lines), list(&[("content-length", "2"), ("location", "/a")]));
        assert_eq!(fields("Location: /a\r\nLocation: /b\r\n"), list(&[("location", "/a, /b")]));
    }

    #[test]
    fn cookies_are_joined_by_line_feeds() {
        let lines = "Set-Cookie: a=b; Expires=Mon, 1\r\nset-cookie: c=d\r\n";
        assert_eq!(fields(lines), list(&[("set-cookie", "a=b; Expires=Mon, 1\nc=d")]));
    }
}
