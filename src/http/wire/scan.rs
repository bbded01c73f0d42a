//! How far a text consists of bytes of a kind.

use crate::sys::block::{Bytes16, Matches, SIZE};

/// How many bytes come before the first one that `ends` answers for.
#[inline(always)]
fn length(text: &[u8], ends: impl Fn(Bytes16) -> Matches) -> usize {
    let mut rest = text;
    while let Some((bytes, tail)) = rest.split_first_chunk::<SIZE>() {
        if let Some(place) = ends(Bytes16::new(bytes)).first() {
            return text.len() - rest.len() + place;
        }
        rest = tail;
    }
    let place = ends(Bytes16::padded(rest)).first();
    text.len() - rest.len() + place.map_or(rest.len(), |place| place.min(rest.len()))
}

#[inline(always)]
fn is_control(bytes: Bytes16) -> Matches {
    bytes.is_at_most(0x1f) | bytes.is(0x7f)
}

#[inline(always)]
fn is_blank_or_control(bytes: Bytes16) -> Matches {
    bytes.is_at_most(b' ') | bytes.is(0x7f)
}

/// How many bytes come before one that few names have.
#[inline(always)]
fn letters_digits_dashes_dots(text: &[u8]) -> usize {
    length(text, |bytes| {
        let letters = bytes.with_bits(0x20).is_from_to(b'a', b'z');
        !(letters | bytes.is_from_to(b'0', b'9') | bytes.is_from_to(b'-', b'.'))
    })
}

/// How many bytes are in a table that has all letters and digits, dash and dot.
#[inline(always)]
fn in_table(text: &[u8], table: &Table) -> usize {
    let size = letters_digits_dashes_dots(text);
    match text.get(size) {
        Some(byte) if table[usize::from(*byte)] => in_table_from(text, size + 1, table),
        _ => size,
    }
}

/// The same of a text of which so many bytes are.
#[cold]
fn in_table_from(text: &[u8], mut size: usize, table: &Table) -> usize {
    loop {
        size += letters_digits_dashes_dots(text.get(size..).unwrap_or_default());
        match text.get(size) {
            Some(byte) if table[usize::from(*byte)] => size += 1,
            _ => return size,
        }
    }
}

/// How many bytes may stand in a field value: up to a control character other than HTAB (RFC 9110 5.5).
#[inline(never)]
pub fn field_value(text: &[u8]) -> usize {
    length(text, |bytes| is_control(bytes) & !bytes.is(b'\t'))
}

/// How many bytes come before the first one of `bytes`.
#[inline(always)]
pub fn before_any<const COUNT: usize>(text: &[u8], bytes: [u8; COUNT]) -> usize {
    length(text, |block| {
        let mut found = block.is(bytes[0]);
        for byte in &bytes[1..] {
            found = found | block.is(*byte);
        }
        found
    })
}

/// How often `byte` is in a text.
pub fn count(text: &[u8], byte: u8) -> usize {
    let (blocks, rest) = text.as_chunks::<SIZE>();
    let whole: usize = blocks.iter().map(|block| Bytes16::new(block).is(byte).count()).sum();
    whole + rest.iter().filter(|other| **other == byte).count()
}

/// How many bytes are neither blanks nor control characters.
#[inline(never)]
pub fn visible(text: &[u8]) -> usize {
    length(text, is_blank_or_control)
}

/// The same, up to a `#`.
#[inline(never)]
pub fn visible_before_hash(text: &[u8]) -> usize {
    length(text, |bytes| is_blank_or_control(bytes) | bytes.is(b'#'))
}

/// How many bytes may stand in a token (RFC 9110 5.6.2).
#[inline(never)]
pub fn token(text: &[u8]) -> usize {
    in_table(text, &TOKEN)
}

/// How many bytes may stand in a registered name, which IPv4 addresses are too (RFC 3986 3.2.2).
#[inline(never)]
pub fn registered_name(text: &[u8]) -> usize {
    in_table(text, &REGISTERED_NAME)
}

type Table = [bool; 256];

const TOKEN: Table = letters_and_digits_and(b"!#$%&'*+-.^_`|~");
const REGISTERED_NAME: Table = letters_and_digits_and(b"-._~%!$&'()*+,;=");

const fn letters_and_digits_and(others: &[u8]) -> Table {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
}

/// Whether `byte` may stand in a token (RFC 9110 5.6.2).
pub const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// Whether `name` is this one, case-insensitively. Most are as they are usually written.
#[inline(always)]
pub fn is_name<const SIZE: usize>(name: &[u8], expected: &[u8; SIZE]) -> bool {
    name == expected || name.eq_ignore_ascii_case(expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each byte ends what it should, wherever it stands.
    #[test]
    fn every_byte_is_of_the_right_kind() {
        for byte in 0..=255u8 {
            let is_control = byte < 32 || byte == 127;
            let is_visible = !is_control && byte != b' ';
            for (scan, goes_on) in [
                (field_value as fn(&[u8]) -> usize, !is_control || byte == b'\t'),
                (visible, is_visible),
                (visible_before_hash, is_visible && byte != b'#'),
                (token, is_token_byte(byte)),
                (
                    registered_name,
                    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte),
                ),
            ] {
                for length in [1, 2, 5, 9, 15, 16, 17, 30, 33] {
                    for place in 0..length {
                        let mut text = vec![b'a'; length];
                        text[place] = byte;
                        let expected = if goes_on { length } else { place };
                        assert_eq!(scan(&text), expected, "{byte:#x} at {place} of {length}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn bytes_are_found_and_counted(text in proptest::collection::vec(0..4u8, 0..50)) {
            let first = text.iter().position(|byte| [1, 3].contains(byte)).unwrap_or(text.len());
            prop_assert_eq!(before_any(&text, [1, 3]), first);
            prop_assert_eq!(count(&text, 2), text.iter().filter(|byte| **byte == 2).count());
        }

        /// Bytes do not change what is found of their neighbours.
        #[test]
        fn the_first_byte_of_another_kind_is_found(text: Vec<u8>) {
            let first = |is: fn(u8) -> bool| text.iter().position(|byte| is(*byte)).unwrap_or(text.len());
            prop_assert_eq!(field_value(&text), first(|byte| byte.is_ascii_control() && byte != b'\t'));
            prop_assert_eq!(visible(&text), first(|byte| byte.is_ascii_control() || byte == b' '));
            prop_assert_eq!(
                visible_before_hash(&text),
                first(|byte| byte.is_ascii_control() || b" #".contains(&byte))
            );
        }
    }
}
