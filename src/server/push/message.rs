//! A published message, and what it looks like on the wire: framed once for all clients of a kind.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use crate::http::wire::date;
use crate::http::wire::header_lines::push_chunk_size;
use crate::http::wire::websocket::frame::{self, Opcode};
use crate::server::ipc::held_state::{HeldHead, MessageFraming, Rules};

/// The end of a chunked body (RFC 9112 7.1).
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A message.
pub struct TopicMessage {
    /// By which clients say what they have.
    pub id: Option<Box<[u8]>>,
    data: Rc<[u8]>,
    chunk: OnceCell<Rc<[u8]>>,
    frame: OnceCell<Rc<[u8]>>,
    /// The last response that was made of it, and for which rules.
    response: RefCell<Option<MadeResponse>>,
}

/// A response that was made, and for which rules.
type MadeResponse = (Rc<Rules>, Rc<[u8]>);

impl TopicMessage {
    /// A message with these bytes.
    pub fn new(id: Option<Vec<u8>>, data: Vec<u8>) -> Self {
        let (id, data) = (id.map(Into::into), data.into());
        TopicMessage {
            id,
            data,
            chunk: OnceCell::new(),
            frame: OnceCell::new(),
            response: RefCell::default(),
        }
    }

    /// What is sent for it. `closes`: the connection ends after it, which a head says.
    pub fn framed(&self, framing: MessageFraming, rules: &Rc<Rules>, closes: bool) -> Rc<[u8]> {
        match framing {
            MessageFraming::Plain => self.data.clone(),
            // An empty chunk would end the body.
            MessageFraming::Chunked if self.data.is_empty() => self.data.clone(),
            MessageFraming::Chunked => self.chunk.get_or_init(|| chunk(&self.data)).clone(),
            MessageFraming::WebSocket => {
                self.frame.get_or_init(|| websocket_frame(&self.data)).clone()
            }
            MessageFraming::Whole => {
                let mut made = self.response.borrow_mut();
                if let Some((_, bytes)) =
                    made.as_ref().filter(|(whose, _)| Rc::ptr_eq(whose, rules) && !closes)
                {
                    return bytes.clone();
                }
                let bytes: Rc<[u8]> = response(&rules.heads[0], &self.data, closes).into();
                if !closes {
                    *made = Some((rules.clone(), bytes.clone()));
                }
                bytes
            }
        }
    }
}

/// A text, unless it is none.
fn websocket_frame(data: &[u8]) -> Rc<[u8]> {
    let is_text = std::str::from_utf8(data).is_ok();
    let mut bytes = Vec::new();
    frame::append(
        &mut bytes,
        if is_text { Opcode::Text } else { Opcode::Binary },
        false,
        data,
        None,
    );
    bytes.into()
}

fn chunk(data: &[u8]) -> Rc<[u8]> {
    let mut bytes = Vec::with_capacity(data.len() + 20);
    push_chunk_size(&mut bytes, data.len());
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

/// A complete response with this head.
pub fn response(head: &HeldHead, body: &[u8], closes: bool) -> Vec<u8> {
    let mut bytes = head.lines.clone();
    date::with_now(|now| {
        if let Some(now) = now.filter(|_| !head.has_date) {
            bytes.extend_from_slice(b"Date: ");
            bytes.extend_from_slice(now);
            bytes.extend_from_slice(b"\r\n");
        }
    });
    if closes {
        bytes.extend_from_slice(b"Connection: close\r\n");
    }
    if head.is_bodyless {
        bytes.extend_from_slice(b"\r\n");
        return bytes;
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &str, is_bodyless: bool) -> HeldHead {
        HeldHead { lines: lines.as_bytes().to_vec(), has_date: true, is_bodyless }
    }

    #[test]
    fn a_message_is_framed_once_for_each_kind() {
        let heads = [head("HTTP/1.1 200 OK\r\n", false), HeldHead::default()];
        let rules = Rc::new(Rules { heads, ..Rules::default() });
        let message = TopicMessage::new(None, b"hello world, you".to_vec());
        for (framing, expected) in [
            (MessageFraming::Plain, "hello world, you"),
            (MessageFraming::Chunked, "10\r\nhello world, you\r\n"),
            (
                MessageFraming::Whole,
                "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nhello world, you",
            ),
        ] {
            let framed = message.framed(framing, &rules, false);
            assert_eq!(&*framed, expected.as_bytes());
            assert!(Rc::ptr_eq(&framed, &message.framed(framing, &rules, false)));
        }
        let other = Rc::new(Rules::default());
        assert!(message.framed(MessageFraming::Whole, &other, false).starts_with(b"Date: "));
        let last = message.framed(MessageFraming::Whole, &rules, true);
        assert!(last.starts_with(b"HTTP/1.1 200 OK\r\nConnection: close\r\n"));
    }

    #[test]
    fn a_frame_is_a_text_if_the_message_is_one() {
        let framed = |data: &[u8]| {
            let message = TopicMessage::new(None, data.to_vec());
            message.framed(MessageFraming::WebSocket, &Rc::new(Rules::default()), false).to_vec()
        };
        assert_eq!(framed("\u{e4}".as_bytes()), b"\x81\x02\xc3\xa4");
        assert_eq!(framed(b"\xe4"), b"\x82\x01\xe4");
        assert_eq!(framed(b""), b"\x81\x00");
    }

    #[test]
    fn an_empty_message_is_no_last_chunk() {
        let message = TopicMessage::new(None, Vec::new());
        assert!(
            message.framed(MessageFraming::Chunked, &Rc::new(Rules::default()), false).is_empty()
        );
    }

    #[test]
    fn a_status_without_body_has_no_length() {
        let bytes = response(&head("HTTP/1.1 204 No Content\r\n", true), b"", false);
        assert_eq!(bytes, b"HTTP/1.1 204 No Content\r\n\r\n");
    }
}
