//! Where the body of a request ends (RFC 9112 6).

use super::head::Version;
use super::list::trim;
use super::refusal::Refusal;

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    Empty,
    /// The body has exactly this many bytes, at least one.
    Length(u64),
    /// The body is sent in chunks (RFC 9112 7.1).
    Chunked,
}

/// The transfer coding of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// There is none.
    Identity,
    /// Exactly `chunked`.
    Chunked,
}

const INVALID_LENGTH: Refusal = Refusal::bad_request("Content-Length header(s) invalid");
const UNEXPECTED_CODING: Refusal = Refusal::bad_request("Unexpected Transfer-Encoding");
const UNKNOWN_CODING: Refusal = Refusal::not_implemented("Unexpected Transfer-Encoding");

/// The length that the Content-Length field of a request announces (RFC 9110 8.6).
///
/// It must be one line with one decimal number. RFC 9110 8.6 allows recipients to refuse repeated
/// values, and RFC 9112 6.3 requires it if they differ; refusing all of them leaves no ambiguity.
/// Numbers beyond 64 bits saturate, so they exceed every limit.
pub fn content_length<'a>(
    mut values: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<u64>, Refusal> {
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => decimal(trim(value)).map(Some).ok_or(INVALID_LENGTH),
        _ => Err(INVALID_LENGTH),
    }
}

/// Like [`content_length`], for responses: the same number may be repeated, in several lines or in
/// a list.
pub fn repeated_content_length<'a>(
    values: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<u64>, Refusal> {
    let mut length = None;
    for value in values.flat_map(|value| value.split(|&byte| byte == b',')) {
        let number = decimal(trim(value)).ok_or(INVALID_LENGTH)?;
        match length {
            Some(previous) if previous != number => return Err(INVALID_LENGTH),
            _ => length = Some(number),
        }
    }
    Ok(length)
}

/// `1*DIGIT` as a number, saturating; `None` for anything else.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    })
}

/// The coding that the Transfer-Encoding fields announce (RFC 9112 6.1).
///
/// 501 for codings other than chunked, 400 if chunked is repeated or not the last one.
pub fn transfer_coding<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Coding, Refusal> {
    let (mut present, mut chunked, mut unknown) = (false, false, false);
    for coding in values.flat_map(|value| value.split(|&byte| byte == b',')).map(trim) {
        present = true;
        if coding.is_empty() || chunked {
            // Nothing may follow chunked: the end of the body would be ambiguous.
            return Err(UNEXPECTED_CODING);
        }
        if coding.eq_ignore_ascii_case(b"chunked") {
            chunked = true;
        } else {
            unknown = true;
        }
    }
    match (present, unknown) {
        (false, _) => Ok(Coding::Identity),
        (true, false) => Ok(Coding::Chunked),
        (true, true) => Err(UNKNOWN_CODING),
    }
}

/// Decides the framing of a request body (RFC 9112 6.3).
pub fn decide(version: Version, length: Option<u64>, coding: Coding) -> Result<Framing, Refusal> {
    match (length, coding) {
        // 6.3, 7: a request with neither has no body.
        (None | Some(0), Coding::Identity) => Ok(Framing::Empty),
        // 6.3, 6: a valid Content-Length.
        (Some(length), Coding::Identity) => Ok(Framing::Length(length)),
        // 6.3, 4: chunked is the final coding; 6.1: but not in HTTP/1.0, whose framing is faulty then.
        (None, Coding::Chunked) if version == Version::Http11 => Ok(Framing::Chunked),
        // 6.3, 3: both "ought to be handled as an error": the hallmark of request smuggling.
        (_, Coding::Chunked) => Err(UNEXPECTED_CODING),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(values: &[&str]) -> Result<Option<u64>, Refusal> {
        content_length(values.iter().map(|value| value.as_bytes()))
    }

    fn repeated(values: &[&str]) -> Result<Option<u64>, Refusal> {
        repeated_content_length(values.iter().map(|value| value.as_bytes()))
    }

    fn coding(values: &[&str]) -> Result<Coding, &'static str> {
        transfer_coding(values.iter().map(|value| value.as_bytes()))
            .map_err(|refusal| &refusal.status[..3])
    }

    #[test]
    fn rfc_9110_8_6_only_a_response_may_repeat_its_length() {
        for length in [length, repeated] {
            assert_eq!(length(&[]), Ok(None));
            assert_eq!(length(&["0"]), Ok(Some(0)));
            assert_eq!(length(&["03"]), Ok(Some(3)));
        }
        for values in [&["5", "5"][..], &["5, 5"], &["5", "05"], &["5,5", "5"]] {
            assert_eq!(length(values), Err(INVALID_LENGTH), "{values:?}");
            assert_eq!(repeated(values), Ok(Some(5)), "{values:?}");
        }
    }

    #[test]
    fn rfc_9110_8_6_odd_and_differing_lengths_are_refused() {
        for value in ["", "+5", "-5", "0x5", "5,6", "5,", ",", "5 5", "5a", "1e1", "5.0", "\u{bd}"]
        {
            assert_eq!(length(&[value]), Err(INVALID_LENGTH), "{value:?}");
            assert_eq!(repeated(&[value]), Err(INVALID_LENGTH), "{value:?}");
        }
        assert_eq!(repeated(&["5", "6"]), Err(INVALID_LENGTH));
        assert_eq!(repeated(&["5", ""]), Err(INVALID_LENGTH));
    }

    #[test]
    fn a_length_beyond_64_bits_is_larger_than_any_limit() {
        assert_eq!(length(&["99999999999999999999999"]), Ok(Some(u64::MAX)));
    }

    #[test]
    fn rfc_9112_6_1_only_chunked_alone_is_understood() {
        assert_eq!(coding(&[]), Ok(Coding::Identity));
        assert_eq!(coding(&["chunked"]), Ok(Coding::Chunked));
        assert_eq!(coding(&["CHUNKED"]), Ok(Coding::Chunked));
        for value in ["gzip", "gzip, chunked", "identity", "xchunked", "chunked;q=1", "\"chunked\""]
        {
            assert_eq!(coding(&[value]), Err("501"), "{value:?}");
        }
        for value in ["", "chunked, chunked", "chunked, gzip", "chunked,", ",chunked"] {
            assert_eq!(coding(&[value]), Err("400"), "{value:?}");
        }
        assert_eq!(coding(&["chunked", "chunked"]), Err("400"));
        assert_eq!(coding(&["gzip", "chunked"]), Err("501"));
    }

    #[test]
    fn rfc_9112_6_3_one_way_of_framing_at_most() {
        use Version::{Http10, Http11};
        assert_eq!(decide(Http11, None, Coding::Identity), Ok(Framing::Empty));
        assert_eq!(decide(Http11, Some(0), Coding::Identity), Ok(Framing::Empty));
        assert_eq!(decide(Http10, Some(7), Coding::Identity), Ok(Framing::Length(7)));
        assert_eq!(decide(Http11, None, Coding::Chunked), Ok(Framing::Chunked));
        assert_eq!(decide(Http11, Some(7), Coding::Chunked), Err(UNEXPECTED_CODING));
        assert_eq!(decide(Http11, Some(0), Coding::Chunked), Err(UNEXPECTED_CODING));
        assert_eq!(decide(Http10, None, Coding::Chunked), Err(UNEXPECTED_CODING));
    }
}
