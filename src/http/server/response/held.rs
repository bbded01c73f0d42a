//! Responses that another process goes on with.

use super::body::BodyEnd;
use super::fields::{Fields, HELD_LENGTH};
use crate::http::wire::header_lines::{Misuse, StaticHeaders, push_status, status_code};
use crate::server::ipc::held_state::{HeldHead, MessageFraming};

pub const HELD_WITHOUT_BODY: Misuse = "A response whose status has no body cannot be held";

const INFORMATIONAL: Misuse = "A held response ends with a final status";

/// Whether responses with this status have no body (RFC 9110 6.4.1).
pub fn is_bodyless(status: u16) -> bool {
    matches!(status, 101 | 204 | 304)
}

/// The head of a response that no message completes, of which the header fields are those of all responses.
///
/// # Errors
/// The status is none, or none of a final response.
pub fn head_without_message(
    status: &[u8],
    mut fields: Fields,
    fixed: &StaticHeaders,
) -> Result<HeldHead, Misuse> {
    let code = final_status(status)?;
    let mut lines = Vec::new();
    push_status(&mut lines, status);
    fields.begin(fixed, &mut lines);
    let has_date = fields.finish_open(code, &mut lines)?;
    Ok(HeldHead { lines, has_date, is_bodyless: is_bodyless(code) })
}

/// The code of a status that can end a response.
///
/// # Errors
/// It is none, or informational.
pub fn final_status(status: &[u8]) -> Result<u16, Misuse> {
    match status_code(status)? {
        100..=199 => Err(INFORMATIONAL),
        code => Ok(code),
    }
}

/// How messages follow a head that was sent. None: they do not, as the client wants no body.
///
/// # Errors
/// The status has no body, or its length was announced.
pub fn framing(end: BodyEnd) -> Result<Option<MessageFraming>, Misuse> {
    match end {
        BodyEnd::Chunked => Ok(Some(MessageFraming::Chunked)),
        BodyEnd::Close => Ok(Some(MessageFraming::Plain)),
        BodyEnd::Ignored => Ok(None),
        BodyEnd::Length { .. } => Err(HELD_LENGTH),
        BodyEnd::Bodyless => Err(HELD_WITHOUT_BODY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_message_the_response_ends_with_a_final_status() {
        let fixed = StaticHeaders::default();
        let head = |status| head_without_message(status, Fields::new(false, false), &fixed);
        let empty = head(b"204 No Content").unwrap();
        assert!(empty.is_bodyless && empty.lines.starts_with(b"HTTP/1.1 204 No Content\r\n"));
        assert!(!head(b"200").unwrap().is_bodyless);
        assert_eq!(head(b"103 Early Hints"), Err(INFORMATIONAL));
        assert!(head(b"none").is_err());
    }

    #[test]
    fn messages_follow_a_head_whose_body_has_no_length() {
        assert_eq!(framing(BodyEnd::Chunked), Ok(Some(MessageFraming::Chunked)));
        assert_eq!(framing(BodyEnd::Ignored), Ok(None));
        assert_eq!(framing(BodyEnd::Length { announced: 1, due: 1 }), Err(HELD_LENGTH));
    }
}
