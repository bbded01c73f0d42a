//! Why a connection is closed: codes, and the payload of a close frame (RFC 6455 5.5.1 and 7.4).

/// A side goes away: the server shuts down.
pub const GOING_AWAY: u16 = 1001;
/// The peer has violated the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// No code was sent. Never on the wire.
pub const NONE: u16 = 1005;
/// The connection was lost without a close frame. Never on the wire.
pub const LOST: u16 = 1006;
/// Data that does not fit the type of its message.
pub const INVALID_DATA: u16 = 1007;
/// The peer does what the application does not allow.
pub const POLICY: u16 = 1008;
/// A message is too long.
pub const TOO_LONG: u16 = 1009;

/// The server's handler has failed.
pub const INTERNAL_ERROR: u16 = 1011;

/// The longest reason, in bytes: a control frame holds 125.
pub const MAX_REASON: usize = 123;

/// Why this side closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The close code.
    pub code: u16,
    /// What is wrong, for the peer's developer.
    pub reason: &'static str,
}

impl Failure {
    /// A violation of the protocol.
    pub const fn protocol(reason: &'static str) -> Self {
        Failure { code: PROTOCOL_ERROR, reason }
    }
}

/// Whether the code may be in a close frame. 1005, 1006 and 1015 stand for what no frame says.
pub fn is_valid(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Code and reason in the payload of a close frame; no code if it is empty.
///
/// # Errors
/// A code that must not be sent, a reason that is not UTF-8, half a code.
pub fn parse(payload: &[u8]) -> Result<(Option<u16>, &str), Failure> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok((None, "")),
            _ => Err(Failure::protocol("close frame with half a code")),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !is_valid(code) {
        return Err(Failure::protocol("invalid close code"));
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok((Some(code), reason)),
        Err(_) => Err(Failure { code: INVALID_DATA, reason: "close reason is not UTF-8" }),
    }
}

/// The payload of a close frame; empty without a code. A reason that is too long is cut.
pub fn payload(code: Option<u16>, reason: &str) -> Vec<u8> {
    let Some(code) = code else { return Vec::new() };
    let mut payload = code.to_be_bytes().to_vec();
    let end = (0..=reason.len().min(MAX_REASON)).rev().find(|end| reason.is_char_boundary(*end));
    payload.extend_from_slice(reason.as_bytes().get(..end.unwrap_or(0)).unwrap_or_default());
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_why() {
        for (code, reason) in [(1000, ""), (1011, "no memory"), (3000, "ä"), (4999, "x")] {
            let bytes = payload(Some(code), reason);
            assert_eq!(parse(&bytes), Ok((Some(code), reason)));
        }
        assert_eq!(parse(&payload(None, "")), Ok((None, "")));
    }

    #[test]
    fn codes_that_nobody_may_send_are_refused() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535] {
            assert_eq!(parse(&payload(Some(code), "")).unwrap_err().code, PROTOCOL_ERROR, "{code}");
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1010, 1014, 3999, 4000] {
            assert!(parse(&payload(Some(code), "")).is_ok(), "{code}");
        }
    }

    #[test]
    fn half_a_code_and_a_reason_that_is_no_text_are_refused() {
        assert_eq!(parse(b"\x03").unwrap_err().code, PROTOCOL_ERROR);
        assert_eq!(parse(b"\x03\xe8\xff").unwrap_err().code, INVALID_DATA);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let bytes = payload(Some(1000), &"ä".repeat(100));
        assert_eq!(bytes.len(), 2 + 122);
        assert!(parse(&bytes).is_ok());
    }
}
