//! What both sides agree on about compression: the header field Sec-WebSocket-Extensions (RFC 6455 9.1,
//! RFC 7692 7.1).

use crate::http::wire::list;

const NAME: &[u8] = b"permessage-deflate";

/// The window sizes that can be kept to, as powers of two. The compressor knows no smaller one.
const LEAST_BITS: u8 = 9;
/// The window of a peer that has promised nothing.
pub const MOST_BITS: u8 = 15;

/// How messages are compressed. Takeover: a message may refer to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The size of this side's window, as a power of two. This side refers to no earlier messages.
    pub bits: u8,
    /// Whether the peer may refer to earlier messages.
    pub peer_takes_over: bool,
}

/// The parameters of one offer, or of an answer.
#[derive(Clone, Copy, Default)]
struct Parameters {
    server_forgets: bool,
    client_forgets: bool,
    /// A value is missing in an offer that leaves it to the server.
    server_bits: Option<Option<u8>>,
    client_bits: Option<Option<u8>>,
}

/// The answer to what a client offers: the value of the field, and what is agreed on. None if nothing is
/// offered that can be accepted. The client is told not to take its context over, so that a connection needs
/// no memory between two messages.
pub fn accept<'a>(offers: impl Iterator<Item = &'a [u8]>) -> Option<(String, Compression)> {
    let parameters = offers
        .flat_map(list::elements)
        .filter_map(parse)
        .find(|parameters| !matches!(parameters.server_bits, Some(None | Some(0..LEAST_BITS))))?;
    let mut answer =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned();
    let bits = parameters.server_bits.flatten();
    if let Some(bits) = bits {
        answer.push_str(&format!("; server_max_window_bits={bits}"));
    }
    Some((answer, Compression { bits: bits.unwrap_or(MOST_BITS), peer_takes_over: false }))
}

/// What a client of ours offers.
pub const OFFER: &str =
    "permessage-deflate; client_no_context_takeover; server_no_context_takeover";

/// What the server has made of [`OFFER`]; none if it does not compress.
///
/// # Errors
/// It answers what was not offered.
pub fn agreed<'a>(
    answers: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<Compression>, &'static str> {
    let mut answers = answers.flat_map(list::elements);
    let Some(answer) = answers.next() else { return Ok(None) };
    match (parse(answer), answers.next()) {
        // A smaller window of the server's costs nothing to read; one of the client's was not offered.
        (Some(answer), None)
            if answer.client_bits.is_none() && answer.server_bits != Some(None) =>
        {
            let peer_takes_over = !answer.server_forgets;
            Ok(Some(Compression { bits: MOST_BITS, peer_takes_over }))
        }
        _ => Err("the server uses an extension that was not offered"),
    }
}

/// The parameters of an element of the list; none if it is another extension, or malformed (RFC 7692 7:
/// unknown, repeated or invalid parameters).
fn parse(element: &[u8]) -> Option<Parameters> {
    let mut pieces = element.split(|byte| *byte == b';').map(list::trim);
    if !pieces.next()?.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let mut found = Parameters::default();
    for piece in pieces {
        let mut halves = piece.splitn(2, |byte| *byte == b'=').map(list::trim);
        let (name, value) = (halves.next()?, halves.next());
        match (name, value) {
            (b"server_no_context_takeover", None) if !found.server_forgets => {
                found.server_forgets = true;
            }
            (b"client_no_context_takeover", None) if !found.client_forgets => {
                found.client_forgets = true;
            }
            (b"server_max_window_bits", value) if found.server_bits.is_none() => {
                found.server_bits =
                    Some(value.map(bits).map_or(Some(None), |bits| bits.map(Some))?);
            }
            (b"client_max_window_bits", value) if found.client_bits.is_none() => {
                found.client_bits =
                    Some(value.map(bits).map_or(Some(None), |bits| bits.map(Some))?);
            }
            _ => return None,
        }
    }
    Some(found)
}

/// The number of a window size, 8 to 15; it may be quoted.
fn bits(value: &[u8]) -> Option<u8> {
    let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn accepted(offers: &[&str]) -> Option<(String, u8)> {
        let answer = accept(offers.iter().map(|offer| offer.as_bytes()));
        answer.map(|(text, compression)| (text, compression.bits))
    }

    #[test]
    fn the_first_offer_that_can_be_kept_is_accepted() {
        let plain = Some((BASE.to_owned(), 15));
        assert_eq!(accepted(&["permessage-deflate"]), plain);
        assert_eq!(accepted(&["permessage-deflate; client_max_window_bits"]), plain);
        assert_eq!(accepted(&["x-other, PerMessage-Deflate; client_max_window_bits=10"]), plain);
        let small = Some((format!("{BASE}; server_max_window_bits=10"), 10));
        assert_eq!(accepted(&["permessage-deflate; server_max_window_bits=10"]), small);
        assert_eq!(accepted(&["permessage-deflate;server_max_window_bits=\"10\""]), small);
        let second = "permessage-deflate; server_max_window_bits=8, permessage-deflate";
        assert_eq!(accepted(&[second]), plain);
        assert_eq!(
            accepted(&["permessage-deflate; server_max_window_bits=8", "permessage-deflate"]),
            plain
        );
    }

    #[test]
    fn offers_that_are_wrong_are_declined() {
        for offer in [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; client_max_window_bits=7",
        ] {
            assert_eq!(accepted(&[offer]), None, "{offer:?}");
        }
    }

    #[test]
    fn an_answer_is_held_against_the_offer() {
        let agreed = |answer: &'static str| agreed(std::iter::once(answer.as_bytes()));
        assert_eq!(agreed(""), Ok(None));
        let plain = Compression { bits: 15, peer_takes_over: false };
        assert_eq!(agreed(OFFER), Ok(Some(plain)));
        assert_eq!(agreed(BASE), Ok(Some(plain)));
        let takes = Some(Compression { peer_takes_over: true, ..plain });
        assert_eq!(agreed("permessage-deflate"), Ok(takes));
        assert_eq!(agreed("permessage-deflate; server_max_window_bits=8"), Ok(takes));
        for wrong in ["x", "permessage-deflate, x", "permessage-deflate; client_max_window_bits=9"]
        {
            assert!(agreed(wrong).is_err(), "{wrong}");
        }
    }
}
