//! One request across services: its id, and the fields of W3C Trace Context (pure).
//!
//! Source: <https://www.w3.org/TR/trace-context-1/>, cited by its sections.

use std::ops::Range;

use super::list::trim;
use crate::sys::block::{SIZE, hex_digits};

/// The length of a `traceparent` of version 00.
pub const LENGTH: usize = 55;

/// Where the id of the trace is in a `traceparent`.
pub const TRACE: Range<usize> = 3..35;

/// How many random bytes make a trace and the id of a request in it.
pub const RANDOM: usize = 24;

/// The longest `tracestate` that is passed on, all lines together (3.3.1.5: at least 512).
const LONGEST_STATE: usize = 512;

/// The most members of a `tracestate` (3.3.1.1).
const MEMBERS: usize = 32;

/// The longest request id.
const LONGEST_ID: usize = 128;

/// The bit of the flags that has a meaning: the caller may have recorded the request (3.2.2.5.1).
const SAMPLED: u8 = 1;

/// Where a request is in a trace (3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The id of the trace. Not zero.
    pub trace: [u8; 16],
    /// The id of this request as its caller knows it. Not zero.
    pub parent: [u8; 8],
    /// Whether the caller may have recorded it.
    pub is_sampled: bool,
}

impl TraceParent {
    /// A new trace of random bytes. Zero, which is no id, becomes one.
    pub fn made(random: &[u8; RANDOM]) -> Self {
        let (mut trace, mut parent) = ([0; 16], [0; 8]);
        trace.copy_from_slice(&random[..16]);
        parent.copy_from_slice(&random[16..]);
        trace[0] |= u8::from(trace == [0; 16]);
        parent[0] |= u8::from(parent == [0; 8]);
        TraceParent { trace, parent, is_sampled: false }
    }

    /// What this request says to another service: the same trace, with a random parent (3.2.2.4).
    pub fn passed_on(self, random: [u8; 8]) -> Self {
        let mut parent = random;
        parent[0] |= u8::from(parent == [0; 8]);
        TraceParent { parent, ..self }
    }

    /// Reads a value of any version: those to come begin as 00 does (3.2.3).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (fixed, rest) = text.split_first_chunk::<LENGTH>()?;
        let version = hex::<1>(&fixed[..2])?[0];
        let is_whole = if version == 0 { rest.is_empty() } else { matches!(rest, [] | [b'-', ..]) };
        let has_dashes = [2, 35, 52].iter().all(|at| fixed[*at] == b'-');
        if version == 0xff || !is_whole || !has_dashes {
            return None;
        }
        let (trace, parent) = (hex(&fixed[TRACE])?, hex(&fixed[36..52])?);
        let is_sampled = hex::<1>(&fixed[53..])?[0] & SAMPLED != 0;
        let is_known = trace != [0; 16] && parent != [0; 8];
        is_known.then_some(TraceParent { trace, parent, is_sampled })
    }

    /// The value, of version 00.
    pub fn text(&self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let mut parent = [0; SIZE];
        parent[..8].copy_from_slice(&self.parent);
        text[TRACE].copy_from_slice(&hex_digits(&self.trace));
        text[36..52].copy_from_slice(&hex_digits(&parent)[..16]);
        text[54] += u8::from(self.is_sampled);
        text
    }
}

/// Bytes in lower-case hexadecimal digits (3.2.2.1).
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    fn digit(byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        }
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Whether a text can be taken for the id of a request: it fits into a log line, a field and a URL as it is.
pub fn is_request_id(text: &[u8]) -> bool {
    let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:/+=@".contains(byte);
    !text.is_empty() && text.len() <= LONGEST_ID && text.iter().all(is_fit)
}

/// Whether a text is a `tracestate` that can be passed on (3.3.1).
pub fn is_trace_state(text: &[u8]) -> bool {
    if text.len() > LONGEST_STATE {
        return false;
    }
    let mut keys: Vec<&[u8]> = Vec::new();
    for member in text.split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty()) {
        let Some(equals) = memchr::memchr(b'=', member) else { return false };
        let (key, value) = (&member[..equals], &member[equals + 1..]);
        if !is_key(key) || !is_value(value) || keys.contains(&key) {
            return false;
        }
        keys.push(key);
    }
    !keys.is_empty() && keys.len() <= MEMBERS
}

/// 3.3.1.3.1: a name, or that of a tenant before the one of a system.
fn is_key(key: &[u8]) -> bool {
    fn is_name(name: &[u8], longest: usize, may_begin: fn(&u8) -> bool) -> bool {
        let is_part =
            |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
        name.first().is_some_and(may_begin) && name.len() <= longest && name.iter().all(is_part)
    }
    match memchr::memchr(b'@', key) {
        None => is_name(key, 256, u8::is_ascii_lowercase),
        Some(at) => {
            let begins = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            is_name(&key[..at], 241, begins) && is_name(&key[at + 1..], 14, u8::is_ascii_lowercase)
        }
    }
}

/// 3.3.1.3.2; the blank at the end is gone.
fn is_value(value: &[u8]) -> bool {
    let is_part = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'=';
    !value.is_empty() && value.len() <= 256 && value.iter().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let parent = TraceParent::parse(TEXT.as_bytes()).unwrap();
        assert_eq!((parent.trace[0], parent.parent[7], parent.is_sampled), (0x4b, 0xb7, true));
        assert_eq!(parent.text(), TEXT.as_bytes());
    }

    #[test]
    fn ids_are_never_zero() {
        let made = TraceParent::made(&[0; 24]);
        assert_eq!(TraceParent::parse(&made.text()), Some(made));
        let next = made.passed_on([0; 8]);
        assert_eq!((next.trace, next.parent == [0; 8]), (made.trace, false));
        assert_eq!(made.passed_on([7; 8]).parent, [7; 8]);
    }

    #[test]
    fn later_versions_may_have_more() {
        for text in [TEXT.replacen("00", "01", 1), TEXT.replacen("00", "cc", 1) + "-more"] {
            assert_eq!(TraceParent::parse(text.as_bytes()), TraceParent::parse(TEXT.as_bytes()));
        }
        let flags = TEXT.replace("-01", "-fe");
        assert!(!TraceParent::parse(flags.as_bytes()).unwrap().is_sampled);
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for text in [
            "",
            &TEXT[..54],
            &format!("{TEXT}-"),
            &format!("{TEXT}0"),
            &TEXT.to_uppercase(),
            &TEXT.replacen("00", "ff", 1),
            &(TEXT.replacen("00", "01", 1) + "more"),
            &TEXT.replacen('-', "_", 1),
            &TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &TEXT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &TEXT.replace("-01", "-0g"),
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_tracestate_has_keys_and_values() {
        let many = (0..32).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        for text in ["rojo=00f067aa0ba902b7, congo=t61rcWkgMzE", "0a@b=x y", "a=1,,", &many] {
            assert!(is_trace_state(text.as_bytes()), "{text}");
        }
        let long = format!("a={}", "x".repeat(511));
        for text in
            ["", ",", "a", "=1", "A=1", "a=", "a=1,a=2", "a=b=c", "1=1", "a@=1", "a=\u{e4}", &long]
        {
            assert!(!is_trace_state(text.as_bytes()), "{text}");
        }
        assert!(!is_trace_state(format!("{many},more=1").as_bytes()));
    }

    #[test]
    fn an_id_is_short_and_plain() {
        assert!(is_request_id(b"f058ebd6-02f7-4d3f-942e-904344e8cde5") && is_request_id(b"a=1/b"));
        for text in [&b""[..], b"a b", b"a\"", b"a\\", b"a,b", b"a\x1b", b"\xe4", &[b'a'; 129]] {
            assert!(!is_request_id(text));
        }
    }
}
