//! The body of a response: its framing (RFC 9112 6), and joining small pieces.

use crate::http::wire::header_lines::Misuse;
use crate::http::wire::header_lines::push_chunk_size;
use crate::sys::os::output_slot::Completion;

/// More was to be sent than Content-Length has announced.
pub const LENGTH_EXCEEDED: Misuse = "Content length exceeded";
/// Less was sent.
pub const LENGTH_NOT_USED: Misuse = "Content length not used";
/// The response has no body.
pub const BODYLESS: Misuse = "Cannot send response data for body-less status message";

/// How the client learns where the body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyEnd {
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

/// What becomes of a piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceTaken {
    /// Nothing: there is no body.
    Ignored,
    /// It was added to the output, where it waits for further pieces to be joined with.
    Joined,
    /// It was added to the output and completes a chunk, or the like.
    Complete,
    /// It was added to the output, of which so much is there that it should be sent.
    Full,
    /// It completes a chunk but is too large to be copied: it is to be sent after the output,
    /// followed by [`Body::chunk_end`].
    Large,
}

/// A body that is being sent: its framing, and the pieces that are still to be joined.
#[derive(Debug, Default)]
pub struct Body {
    framing: BodyEnd,
    /// Where in the output the pieces begin that wait to be joined with further ones. They are not
    /// framed yet.
    open: Option<usize>,
    /// Bytes of data ignored since [`Body::takes_ignored`] last counted them.
    ignored: usize,
}

impl Body {
    /// The head is complete: the body is framed like this.
    pub fn begin(&mut self, framing: BodyEnd) {
        self.framing = framing;
    }

    /// Whether data may follow the head.
    pub fn may_follow(&self) -> bool {
        !matches!(self.framing, BodyEnd::Bodyless | BodyEnd::Ignored)
    }

    /// How the client learns where it ends.
    pub fn framing(&self) -> BodyEnd {
        self.framing
    }

    /// The announced length and how much of it was sent, while that counts.
    pub fn length(&self) -> Option<(u64, u64)> {
        match self.framing {
            BodyEnd::Length { announced, due } => Some((announced, announced.saturating_sub(due))),
            _ => None,
        }
    }

    /// Takes a piece that is not empty. Pieces are joined until there are `minimum` bytes; those of which
    /// `out` would have more than `most` bytes are large.
    pub fn take(
        &mut self,
        piece: &[u8],
        minimum: usize,
        most: usize,
        out: &mut Vec<u8>,
    ) -> Result<PieceTaken, Misuse> {
        match &mut self.framing {
            BodyEnd::Ignored => {
                self.ignored = self.ignored.saturating_add(piece.len());
                return Ok(PieceTaken::Ignored);
            }
            BodyEnd::Bodyless => return Err(BODYLESS),
            BodyEnd::Length { due, .. } => {
                *due = due.checked_sub(piece.len() as u64).ok_or(LENGTH_EXCEEDED)?;
            }
            BodyEnd::Chunked | BodyEnd::Close => {}
        }
        let start = self.open.unwrap_or(out.len());
        if out.len() - start + piece.len() < minimum {
            out.extend_from_slice(piece);
            self.open = Some(start);
            return Ok(PieceTaken::Joined);
        }
        self.open = None;
        if self.framing == BodyEnd::Chunked {
            insert_chunk_size(out, start, piece.len());
        }
        if out.len() + piece.len() > most {
            return Ok(PieceTaken::Large);
        }
        out.extend_from_slice(piece);
        out.extend_from_slice(self.chunk_end());
        Ok(PieceTaken::Complete)
    }

    /// So many bytes of the body, all that was announced, are sent without passing through here; false if there is no
    /// body to be sent.
    pub fn take_elsewhere(&mut self, size: u64) -> Result<bool, Misuse> {
        match &mut self.framing {
            BodyEnd::Ignored => Ok(false),
            BodyEnd::Bodyless => Err(BODYLESS),
            BodyEnd::Length { due, .. } if *due == size => {
                *due = 0;
                Ok(true)
            }
            BodyEnd::Length { .. } | BodyEnd::Chunked | BodyEnd::Close => Err(LENGTH_NOT_USED),
        }
    }

    /// What follows the data of a chunk.
    pub fn chunk_end(&self) -> &'static [u8] {
        if self.framing == BodyEnd::Chunked { b"\r\n" } else { b"" }
    }

    /// Where in the output the pieces begin that wait to be joined with further ones.
    pub fn open(&self) -> Option<usize> {
        self.open
    }

    /// Nothing waits: it has left, or was dropped.
    pub fn forget_open(&mut self) {
        self.open = None;
    }

    /// The output before the pieces that wait has become longer by `by` bytes, or shorter.
    pub fn shift_open(&mut self, by: isize) {
        self.open = self.open.map(|open| open.saturating_add_signed(by));
    }

    /// What makes a chunk of the pieces that wait in the output; `None` if there is nothing to be done.
    pub fn completion(&self) -> Option<Completion> {
        let start = self.open.filter(|_| self.framing == BodyEnd::Chunked)?;
        Some((complete_chunk, start))
    }

    /// The same if there will be more in the output behind its `end`.
    pub fn completion_of_more(&self, end: usize) -> Option<Completion> {
        let is_chunked = self.framing == BodyEnd::Chunked;
        is_chunked.then_some((complete_chunk, self.open.unwrap_or(end)))
    }

    /// The pieces that wait in `out` do so no more.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if let Some((complete, start)) = self.completion() {
            complete(out, start);
        }
        self.open = None;
    }

    /// Adds the end of the body to `out`.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Misuse> {
        if matches!(self.framing, BodyEnd::Length { due, .. } if due > 0) {
            return Err(LENGTH_NOT_USED);
        }
        self.flush(out);
        if self.framing == BodyEnd::Chunked {
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
}

/// Makes a chunk of all bytes of `out` from `start` on (RFC 9112 7.1).
fn complete_chunk(out: &mut Vec<u8>, start: usize) {
    insert_chunk_size(out, start, 0);
    out.extend_from_slice(b"\r\n");
}

/// Puts the size of a chunk at `start`: of all bytes from there on and `more`.
fn insert_chunk_size(out: &mut Vec<u8>, start: usize, more: usize) {
    let end = out.len();
    let joined = end.saturating_sub(start);
    push_chunk_size(out, joined + more);
    if let Some(bytes) = out.get_mut(start..).filter(|_| joined > 0) {
        bytes.rotate_left(joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(framing: BodyEnd) -> Body {
        let mut body = Body::default();
        body.begin(framing);
        body
    }

    /// Sends a piece, with everything joined up to 4 bytes and no more than 40 bytes of output.
    fn send(body: &mut Body, out: &mut Vec<u8>, piece: &str) -> Result<PieceTaken, Misuse> {
        let taken = body.take(piece.as_bytes(), 4, 40, out)?;
        if taken == PieceTaken::Large {
            out.extend_from_slice(piece.as_bytes());
            out.extend_from_slice(body.chunk_end());
        }
        Ok(taken)
    }

    #[test]
    fn small_pieces_are_joined_and_a_flush_ends_that() {
        use PieceTaken::{Complete, Joined};
        for (framing, expected) in
            [(BodyEnd::Chunked, "5\r\nabcde\r\n1\r\nf\r\n0\r\n\r\n"), (BodyEnd::Close, "abcdef")]
        {
            let (mut body, mut out) = (body(framing), Vec::new());
            for (piece, taken) in [("ab", Joined), ("c", Joined), ("de", Complete), ("f", Joined)] {
                assert_eq!(send(&mut body, &mut out, piece), Ok(taken));
            }
            body.flush(&mut out);
            body.flush(&mut out);
            body.finish(&mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn a_large_piece_is_not_copied_and_takes_with_it_what_waits() {
        let (mut body, mut out) = (body(BodyEnd::Chunked), b"head".to_vec());
        assert_eq!(send(&mut body, &mut out, "ab"), Ok(PieceTaken::Joined));
        assert_eq!((body.open(), body.completion().is_some()), (Some(4), true));
        assert_eq!(body.take(&[b'x'; 40], 4, 40, &mut out), Ok(PieceTaken::Large));
        assert_eq!((&out[..], body.open()), (&b"head2A\r\nab"[..], None));
    }

    #[test]
    fn an_announced_length_is_kept_to() {
        let mut body = body(BodyEnd::Length { announced: 5, due: 5 });
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
        let mut ignoring = body(BodyEnd::Ignored);
        for expected in [false, true, false] {
            send(&mut ignoring, &mut out, "abc").unwrap();
            assert_eq!(ignoring.takes_ignored(6), expected);
        }
        let mut bodyless = body(BodyEnd::Bodyless);
        assert_eq!(send(&mut bodyless, &mut out, "abc"), Err(BODYLESS));
        assert!(!ignoring.may_follow() && !bodyless.may_follow());
        ignoring.finish(&mut out).unwrap();
        bodyless.finish(&mut out).unwrap();
        assert!(out.is_empty());
    }
}
