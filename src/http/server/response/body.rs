//! The body of a response: its framing, and joining small pieces.

use super::{
    BODYLESS, FINISHED, Framing, LENGTH_EXCEEDED, LENGTH_NOT_USED, NO_STATUS, Response, Stage,
};
use crate::http::wire::header_lines::Misuse;
use crate::http::wire::header_lines::push_chunk_size;

impl Response {
    /// Takes a piece of the body, the header section being finished.
    ///
    /// Returns false if nothing is to be done: the piece was ignored, or is kept to be joined with
    /// further ones until there are `minimum` bytes. If true is returned, the caller must send
    /// [`Response::parts`] with the same piece, then call [`Response::sent`].
    pub fn data(&mut self, piece: &[u8], minimum: usize) -> Result<bool, Misuse> {
        match self.stage {
            Stage::Body => {}
            Stage::Start | Stage::Interim | Stage::Head => return Err(NO_STATUS),
            Stage::Finished => return Err(FINISHED),
        }
        if piece.is_empty() {
            return Ok(false);
        }
        match self.framing {
            Framing::Ignored => {
                self.ignored = self.ignored.saturating_add(piece.len());
                return Ok(false);
            }
            Framing::Bodyless => return Err(BODYLESS),
            Framing::Length(due) => {
                let left = due.checked_sub(piece.len() as u64).ok_or(LENGTH_EXCEEDED)?;
                self.framing = Framing::Length(left);
            }
            Framing::Chunked | Framing::Close => {}
        }
        let joined = self.body.len() + piece.len();
        if joined < minimum {
            self.body.extend_from_slice(piece);
            return Ok(false);
        }
        if self.framing == Framing::Chunked {
            push_chunk_size(&mut self.out, joined);
        }
        Ok(true)
    }

    /// Whether `minimum` bytes were ignored since the last time: where a response with a body would have
    /// sent some.
    pub fn takes_ignored(&mut self, minimum: usize) -> bool {
        let due = self.ignored > 0 && self.ignored >= minimum;
        if due {
            self.ignored = 0;
        }
        due
    }

    /// What is to be sent for a piece that [`Response::data`] accepted.
    pub fn parts<'a>(&'a self, piece: &'a [u8]) -> [&'a [u8]; 4] {
        let end: &[u8] = if self.framing == Framing::Chunked { b"\r\n" } else { b"" };
        [&self.out, &self.body, piece, end]
    }

    /// Forgets what the caller has sent: all of [`Response::parts`].
    pub fn sent(&mut self) {
        self.out.clear();
        self.body.clear();
        self.has_left = true;
    }

    /// Frames what waits to be joined, so that [`Response::out`] holds all data so far.
    pub fn flush(&mut self) {
        if self.body.is_empty() {
            return;
        }
        let chunked = self.framing == Framing::Chunked;
        if chunked {
            push_chunk_size(&mut self.out, self.body.len());
        }
        self.out.extend_from_slice(&self.body);
        if chunked {
            self.out.extend_from_slice(b"\r\n");
        }
        self.body.clear();
    }

    /// Ends the response; a second call does nothing.
    pub fn finish(&mut self, date: Option<&[u8]>) -> Result<(), Misuse> {
        match self.stage {
            Stage::Finished => return Ok(()),
            Stage::Interim => {
                self.end_interim();
                return Err(NO_STATUS);
            }
            _ => self.finish_headers(date)?,
        }
        if matches!(self.framing, Framing::Length(due) if due > 0) {
            return Err(LENGTH_NOT_USED);
        }
        self.flush();
        if self.framing == Framing::Chunked {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        self.stage = Stage::Finished;
        Ok(())
    }
}
