//! The body of a response: its framing (RFC 9112 6), and joining small pieces.

use super::{BODYLESS, LENGTH_EXCEEDED, LENGTH_NOT_USED};
use crate::http::wire::header_lines::Misuse;
use crate::http::wire::header_lines::push_chunk_size;

/// How the client learns where the body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// The status has no body (RFC 9110 6.4.1): data is an error.
    #[default]
    Bodyless,
    /// The request was HEAD: data is ignored.
    Ignored,
    /// Content-Length.
    Length { announced: u64, due: u64 },
    /// RFC 9112 7.1
    Chunked,
    /// HTTP/1.0: the body ends with the connection.
    Close,
}

/// A body that is being sent.
#[derive(Debug, Default)]
pub struct Body {
    framing: Framing,
    /// Data that waits to be joined with further data: not framed yet.
    joined: Vec<u8>,
    /// Bytes of data ignored since [`Body::takes_ignored`] last counted them.
    ignored: usize,
}

impl Body {
    /// Prepares for the next response; memory is kept.
    pub fn clear(&mut self) {
        self.joined.clear();
        (self.framing, self.ignored) = (Framing::Bodyless, 0);
    }

    /// The head is complete: the body is framed like this.
    pub fn begin(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// Whether data may follow the head.
    pub fn may_follow(&self) -> bool {
        !matches!(self.framing, Framing::Bodyless | Framing::Ignored)
    }

    /// The announced length and how much of it was sent, while that counts.
    pub fn length(&self) -> Option<(u64, u64)> {
        match self.framing {
            Framing::Length { announced, due } => Some((announced, announced.saturating_sub(due))),
            _ => None,
        }
    }

    /// Takes a piece that is not empty. Returns true if [`Body::parts`] are to be sent with it, behind
    /// what is added to `out`; false if it is ignored, or joined with what follows until there are
    /// `minimum` bytes.
    pub fn take(
        &mut self,
        piece: &[u8],
        minimum: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Misuse> {
        match &mut self.framing {
            Framing::Ignored => {
                self.ignored = self.ignored.saturating_add(piece.len());
                return Ok(false);
            }
            Framing::Bodyless => return Err(BODYLESS),
            Framing::Length { due, .. } => {
                *due = due.checked_sub(piece.len() as u64).ok_or(LENGTH_EXCEEDED)?;
            }
            Framing::Chunked | Framing::Close => {}
        }
        let size = self.joined.len() + piece.len();
        if size < minimum {
            self.joined.extend_from_slice(piece);
            return Ok(false);
        }
        if self.framing == Framing::Chunked {
            push_chunk_size(out, size);
        }
        Ok(true)
    }

    /// What follows the chunk size: the joined data, the piece, the end of the chunk.
    pub fn parts<'a>(&'a self, piece: &'a [u8]) -> [&'a [u8]; 3] {
        let end: &[u8] = if self.framing == Framing::Chunked { b"\r\n" } else { b"" };
        [&self.joined, piece, end]
    }

    /// Forgets the joined data: they are sent, or replaced.
    pub fn drop_joined(&mut self) {
        self.joined.clear();
    }

    /// Adds the joined data to `out`.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if self.joined.is_empty() {
            return;
        }
        if self.framing == Framing::Chunked {
            push_chunk_size(out, self.joined.len());
        }
        self.parts(b"").iter().for_each(|part| out.extend_from_slice(part));
        self.joined.clear();
    }

    /// Adds the joined data and the end of the body to `out`.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Misuse> {
        if matches!(self.framing, Framing::Length { due, .. } if due > 0) {
            return Err(LENGTH_NOT_USED);
        }
        self.flush(out);
        if self.framing == Framing::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        Ok(())
    }

    /// Whether at least `minimum` bytes were ignored since the last time: where a response with a body
    /// would have sent some.
    pub fn takes_ignored(&mut self, minimum: usize) -> bool {
        let due = self.ignored > 0 && self.ignored >= minimum;
        if due {
            self.ignored = 0;
        }
        due
    }

    /// Gives back memory.
    pub fn shrink_to(&mut self, keep: usize) {
        self.joined.shrink_to(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(framing: Framing) -> Body {
        let mut body = Body::default();
        body.begin(framing);
        body
    }

    /// Sends a piece, with everything joined up to 4 bytes.
    fn send(body: &mut Body, out: &mut Vec<u8>, piece: &str) -> Result<(), Misuse> {
        if body.take(piece.as_bytes(), 4, out)? {
            out.extend(body.parts(piece.as_bytes()).concat());
            body.drop_joined();
        }
        Ok(())
    }

    #[test]
    fn small_pieces_are_joined_and_a_flush_sends_what_there_is() {
        for (framing, expected) in
            [(Framing::Chunked, "5\r\nabcde\r\n1\r\nf\r\n0\r\n\r\n"), (Framing::Close, "abcdef")]
        {
            let (mut body, mut out) = (body(framing), Vec::new());
            for piece in ["ab", "c", "de", "f"] {
                send(&mut body, &mut out, piece).unwrap();
            }
            body.flush(&mut out);
            body.flush(&mut out);
            body.finish(&mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn an_announced_length_is_kept_to() {
        let mut body = body(Framing::Length { announced: 5, due: 5 });
        let mut out = Vec::new();
        send(&mut body, &mut out, "abc").unwrap();
        assert_eq!(body.length(), Some((5, 3)));
        assert_eq!(send(&mut body, &mut out, "def"), Err(LENGTH_EXCEEDED));
        assert_eq!(body.finish(&mut out), Err(LENGTH_NOT_USED));
        send(&mut body, &mut out, "de").unwrap();
        body.finish(&mut out).unwrap();
        assert_eq!(out, b"abcde");
    }

    #[test]
    fn data_without_a_body_is_ignored_or_refused() {
        let mut out = Vec::new();
        let mut ignoring = body(Framing::Ignored);
        for expected in [false, true, false] {
            send(&mut ignoring, &mut out, "abc").unwrap();
            assert_eq!(ignoring.takes_ignored(6), expected);
        }
        let mut bodyless = body(Framing::Bodyless);
        assert_eq!(send(&mut bodyless, &mut out, "abc"), Err(BODYLESS));
        assert!(!ignoring.may_follow() && !bodyless.may_follow());
        ignoring.finish(&mut out).unwrap();
        bodyless.finish(&mut out).unwrap();
        assert!(out.is_empty());
    }
}
