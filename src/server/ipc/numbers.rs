//! Numbers in messages: 64 bits each, little-endian (pure).

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
pub fn split<const N: usize>(mut bytes: &[u8]) -> Result<([u64; N], &[u8]), Malformed> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        let (first, rest) = bytes.split_first_chunk::<8>().ok_or(Malformed)?;
        *number = u64::from_le_bytes(*first);
        bytes = rest;
    }
    Ok((numbers, bytes))
}

/// As [`split`], where nothing may follow.
pub fn only<const N: usize>(bytes: &[u8]) -> Result<[u64; N], Malformed> {
    match split::<N>(bytes)? {
        (numbers, []) => Ok(numbers),
        _ => Err(Malformed),
    }
}
