//! How the values of a line of the access log are written (pure).

use super::moment::digits;
use crate::sys::block::{Bytes16, SIZE};

/// A JSON string (RFC 8259, 7). Bytes that are no UTF-8 are shown as `\xHH` in it.
pub(super) fn push_json(line: &mut Vec<u8>, text: &[u8]) {
    line.push(b'"');
    if is_plain(text) {
        line.extend_from_slice(text);
    } else {
        escape_json(line, text);
    }
    line.push(b'"');
}

#[cold]
fn escape_json(line: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => line.extend_from_slice(&[b'\\', character as u8]),
                character if character.is_control() => {
                    line.extend_from_slice(b"\\u00");
                    push_hex(line, character as u8);
                }
                character => {
                    line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        for byte in chunk.invalid() {
            line.extend_from_slice(b"\\\\x");
            push_hex(line, *byte);
        }
    }
}

/// A boolean.
pub(super) fn boolean(value: bool) -> &'static [u8] {
    if value { b"true" } else { b"false" }
}

/// Whether a text stands for itself in all formats: printable ASCII without quotes and backslashes.
pub(super) fn is_plain(text: &[u8]) -> bool {
    let odd = |block: Bytes16| !block.is_from_to(b' ', b'~') | block.is(b'"') | block.is(b'\\');
    let (blocks, rest) = text.as_chunks::<SIZE>();
    blocks.iter().all(|block| odd(Bytes16::new(block)).first().is_none())
        // The zeros after the rest are odd.
        && odd(Bytes16::padded(rest)).first() == Some(rest.len())
}

/// Text with `\xHH` for all but printable ASCII, for quotes and for backslashes.
pub(super) fn push_text(line: &mut Vec<u8>, text: &[u8]) {
    if is_plain(text) {
        return line.extend_from_slice(text);
    }
    for byte in text {
        match byte {
            b' '..=b'~' if !matches!(byte, b'"' | b'\\') => line.push(*byte),
            byte => {
                line.extend_from_slice(b"\\x");
                push_hex(line, *byte);
            }
        }
    }
}

fn push_hex(line: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    line.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// 0 to 255 with a dot after it, and the length of that.
static OCTETS: [([u8; 4], u8); 256] = {
    let (mut octets, mut number) = ([([0; 4], 0); 256], 0usize);
    while number < 256 {
        let [a, b, c] = [
            b'0' + (number / 100) as u8,
            b'0' + (number / 10 % 10) as u8,
            b'0' + (number % 10) as u8,
        ];
        octets[number] = match number {
            0..10 => ([c, b'.', 0, 0], 2),
            10..100 => ([b, c, b'.', 0], 3),
            _ => ([a, b, c, b'.'], 4),
        };
        number += 1;
    }
    octets
};

/// An address.
pub(super) fn push_ipv4(line: &mut Vec<u8>, octets: [u8; 4]) {
    let (mut text, mut length) = ([0; 16], 0);
    for octet in octets {
        let (digits, size) = &OCTETS[usize::from(octet)];
        if let Some(place) = text.get_mut(length..length + 4) {
            place.copy_from_slice(digits);
        }
        length += usize::from(*size);
    }
    line.extend_from_slice(&text);
    // Without the last dot and what is after it.
    line.truncate(line.len() + length - 17);
}

/// Microseconds, in seconds.
pub(super) fn push_time(line: &mut Vec<u8>, time: u64) {
    if time >= 1_000_000 {
        push_number(line, time / 1_000_000);
        line.push(b'.');
        return line.extend_from_slice(&digits::<6>(time % 1_000_000));
    }
    let mut text = digits::<8>(time);
    text[1] = b'.';
    line.extend_from_slice(&text);
}

/// A number in decimal.
pub(super) fn push_number(line: &mut Vec<u8>, number: u64) {
    match number {
        0..10 => line.push(b'0' + number as u8),
        10..100 => line.extend_from_slice(&digits::<2>(number)),
        100..1000 => line.extend_from_slice(&digits::<3>(number)),
        1000..10_000 => line.extend_from_slice(&digits::<4>(number)),
        10_000..100_000 => line.extend_from_slice(&digits::<5>(number)),
        _ => {
            push_number(line, number / 100_000);
            line.extend_from_slice(&digits::<5>(number % 100_000));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut line = Vec::new();
        write(&mut line);
        String::from_utf8(line).unwrap()
    }

    proptest! {
        #[test]
        fn numbers_are_written_in_decimal(number: u64, digits in 0u32..20, octets: [u8; 4]) {
            for number in [number % 10u64.pow(digits), number] {
                prop_assert_eq!(written(|line| push_number(line, number)), number.to_string());
                let time = format!("{}.{:06}", number / 1_000_000, number % 1_000_000);
                prop_assert_eq!(written(|line| push_time(line, number)), time);
            }
            let address = std::net::Ipv4Addr::from(octets).to_string();
            prop_assert_eq!(written(|line| push_ipv4(line, octets)), address);
        }

        #[test]
        fn texts_that_need_no_escape_are_told_apart(text in proptest::collection::vec(0..=255u8, 0..40)) {
            let plain = |byte: &u8| (b' '..=b'~').contains(byte) && !b"\"\\".contains(byte);
            prop_assert_eq!(is_plain(&text), text.iter().all(plain));
            let (plain, _): (Vec<u8>, Vec<u8>) = text.iter().partition(|byte| plain(byte));
            prop_assert!(is_plain(&plain));
        }
    }
}
