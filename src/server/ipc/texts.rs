//! Byte strings in messages: their length, and the bytes (pure).

use super::numbers::{ABSENT, Malformed, append, split};

/// Appends a byte string.
pub fn append_text(bytes: &mut Vec<u8>, text: &[u8]) {
    append(bytes, &[text.len() as u64]);
    bytes.extend_from_slice(text);
}

/// Appends one that may be absent.
pub fn append_optional(bytes: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => append_text(bytes, text),
        None => append(bytes, &[ABSENT]),
    }
}

/// The leading byte string, and the bytes after it.
///
/// # Errors
/// There is none.
pub fn split_text(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    match split_optional(bytes)? {
        (Some(text), rest) => Ok((text, rest)),
        (None, _) => Err(Malformed),
    }
}

/// The same for one that may be absent.
///
/// # Errors
/// There is none.
pub fn split_optional(bytes: &[u8]) -> Result<(Option<&[u8]>, &[u8]), Malformed> {
    let ([length], rest) = split::<1>(bytes)?;
    if length == ABSENT {
        return Ok((None, rest));
    }
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let (text, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
    Ok((Some(text), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_their_encoding() {
        let mut bytes = Vec::new();
        append_text(&mut bytes, b"one");
        append_optional(&mut bytes, None);
        append_optional(&mut bytes, Some(b""));
        let (one, rest) = split_text(&bytes).unwrap();
        let (none, rest) = split_optional(rest).unwrap();
        let (empty, rest) = split_optional(rest).unwrap();
        assert_eq!((one, none, empty, rest), (&b"one"[..], None, Some(&b""[..]), &b""[..]));
        assert_eq!(split_text(&bytes[11..]), Err(Malformed));
        for length in 0..bytes.len() - 1 {
            let all = split_text(&bytes[..length])
                .and_then(|(_, rest)| split_optional(rest))
                .and_then(|(_, rest)| split_optional(rest));
            assert!(length >= 19 || all.is_err(), "{length}");
        }
    }
}
