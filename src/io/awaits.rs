//! The condition that input must meet before a reader can use it (pure). Every process that
//! receives input of a parked connection checks it.

use memchr::memchr_iter;

use crate::proxy::header;

/// What a reader waits for if it cannot use the input so far. Sizes are in bytes, from the first
/// unconsumed byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Awaits {
    /// Any further byte.
    #[default]
    More,
    /// An empty line after a non-empty one, which ends a head; or this many bytes, whichever comes
    /// first. A line ends with LF or CRLF.
    EmptyLine(u64),
    /// This many bytes.
    Bytes(u64),
    /// A PROXY header, or what is none.
    ProxyHeader,
}

impl Awaits {
    /// Whether `input` meets the condition, which its first `seen` bytes did not. Only examines the
    /// bytes after `seen`.
    pub fn is_met(self, input: &[u8], seen: usize) -> bool {
        let received = input.len() as u64;
        match self {
            Awaits::More => input.len() > seen,
            Awaits::EmptyLine(most) => received >= most || has_empty_line(input, seen),
            Awaits::Bytes(size) => received >= size,
            Awaits::ProxyHeader => header::length(input) != Ok(None),
        }
    }
}

/// Whether an empty line, after a non-empty one, ends after `seen`.
fn has_empty_line(input: &[u8], seen: usize) -> bool {
    let new = input.get(seen..).unwrap_or_default();
    let mut ends = memchr_iter(b'\n', new).filter_map(|offset| input.get(..seen + offset));
    ends.any(|before| {
        without_cr(before)
            .strip_suffix(b"\n")
            .map(without_cr)
            .and_then(<[u8]>::last)
            .is_some_and(|last| *last != b'\n')
    })
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many bytes of `input`, received one by one, it is enough.
    fn met_after(awaits: Awaits, input: &[u8]) -> Option<usize> {
        (1..=input.len()).find(|end| awaits.is_met(&input[..*end], end - 1))
    }

    #[test]
    fn an_empty_line_ends_a_head() {
        let awaits = Awaits::EmptyLine(100);
        for (text, end) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nbody", Some(27)),
            ("GET / HTTP/1.0\n\nbody", Some(16)),
            ("a\r\n\n", Some(4)),
            ("\r\n\r\n\n\na\n\r\n", Some(10)),
            ("a\r\n\r\r\n", None),
            ("a\r\nb\r\n \r\n", None),
            ("\r\n\r\n\r\n", None),
            ("\n\n", None),
            ("a", None),
        ] {
            assert_eq!(met_after(awaits, text.as_bytes()), end, "{text:?}");
            let whole = awaits.is_met(text.as_bytes(), 0);
            assert_eq!(whole, end.is_some(), "{text:?}");
        }
        assert_eq!(met_after(Awaits::EmptyLine(5), b"abcdefgh"), Some(5));
    }

    #[test]
    fn a_proxy_header_is_awaited_until_it_is_there_or_something_else_is() {
        assert_eq!(met_after(Awaits::ProxyHeader, b"PROXY UNKNOWN\r\nGET"), Some(15));
        assert_eq!(met_after(Awaits::ProxyHeader, b"PROGET"), Some(4));
        assert_eq!(met_after(Awaits::ProxyHeader, b"PROXY "), None);
    }

    #[test]
    fn what_was_seen_before_is_not_searched_again() {
        assert!(!Awaits::EmptyLine(100).is_met(b"a\n\nb", 3));
    }

    #[test]
    fn bytes_are_counted() {
        assert_eq!(met_after(Awaits::Bytes(3), b"abcdef"), Some(3));
        assert_eq!(met_after(Awaits::Bytes(9), b"abcdef"), None);
        assert!(Awaits::More.is_met(b"ab", 1));
        assert!(!Awaits::More.is_met(b"ab", 2));
    }
}
