//! Numbers in messages: 64 bits each, little-endian (pure).

use std::sync::atomic::AtomicU64;

/// The bytes are too few or too many, or a number is none of those that may stand there.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// The number that stands for an absent one.
pub const ABSENT: u64 = u64::MAX;

/// A number that may be absent.
pub fn optional(value: Option<u64>) -> u64 {
    value.unwrap_or(ABSENT)
}

/// The value of a number that may be absent.
pub fn present(value: u64) -> Option<u64> {
    (value != ABSENT).then_some(value)
}

/// Appends numbers.
pub fn append(bytes: &mut Vec<u8>, numbers: &[u64]) {
    bytes.reserve(8 * numbers.len());
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
}

/// The leading numbers, and the bytes after them.
#[inline]
pub fn split<const N: usize>(bytes: &[u8]) -> Result<([u64; N], &[u8]), Malformed> {
    let (words, _) = bytes.as_chunks::<8>();
    let first = words.first_chunk::<N>().ok_or(Malformed)?;
    Ok((first.map(u64::from_le_bytes), &bytes[8 * N..]))
}

/// As [`split`], where nothing may follow.
pub fn only<const N: usize>(bytes: &[u8]) -> Result<[u64; N], Malformed> {
    match split::<N>(bytes)? {
        (numbers, []) => Ok(numbers),
        _ => Err(Malformed),
    }
}

/// The words that bytes stand for, in memory that can be shared.
pub fn words(bytes: &[u8]) -> Vec<AtomicU64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word).into()).collect()
}

/// The bytes at the end of `text` that fill no word, at least one, as a word.
#[inline]
pub fn word(text: &[u8], rest: &[u8]) -> u64 {
    if let Some(last) = text.last_chunk::<8>() {
        // Without a copy of a size that the compiler does not know.
        return u64::from_le_bytes(*last) >> (8 * (8 - rest.len() % 8));
    }
    let mut padded = [0; 8];
    padded.iter_mut().zip(rest).for_each(|(to, byte)| *to = *byte);
    u64::from_le_bytes(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fills_no_word_is_filled_up() {
        for length in 1..40usize {
            let text: Vec<u8> = (1..=length as u8).collect();
            let (_, rest) = text.as_chunks::<8>();
            if !rest.is_empty() {
                let mut expected = rest.to_vec();
                expected.resize(8, 0);
                assert_eq!(word(&text, rest).to_le_bytes(), expected[..]);
            }
        }
    }
}
