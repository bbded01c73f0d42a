//! Bodies that come compressed: their content coding, and what decodes it (pure).
//!
//! Source: RFC 9110 8.4; RFC 1952 for gzip and RFC 1950 for deflate.

use flate2::{Decompress, FlushDecompress, Status};

use super::list::elements;
use super::refusal::Refusal;

/// How much room is made at once for what is decoded.
const ROOM: usize = 16 * 1024;

const BROKEN: Refusal =
    Refusal::bad_request("The request body is not what its Content-Encoding says");
const TRUNCATED: Refusal = Refusal::bad_request("The compressed request body is truncated");
const TOO_LONG: Refusal = Refusal::content_too_large("The decompressed request body is too big");

/// A content coding that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    /// RFC 9110 8.4.1.3: one or more members (RFC 1952 2.2).
    Gzip,
    /// RFC 9110 8.4.1.2: the zlib format.
    Deflate,
}

impl ContentCoding {
    /// The coding that the list of a Content-Encoding field tells, if any.
    ///
    /// # Errors
    /// 415 for other codings, and for several: each layer would multiply what comes out.
    pub fn of(list: &[u8]) -> Result<Option<ContentCoding>, Refusal> {
        let is_coding = |name: &&[u8]| !name.eq_ignore_ascii_case(b"identity");
        let mut codings = elements(list).filter(is_coding);
        match (codings.next(), codings.next()) {
            (None, _) => Ok(None),
            (Some(name), None) if is_gzip(name) => Ok(Some(ContentCoding::Gzip)),
            (Some(name), None) if name.eq_ignore_ascii_case(b"deflate") => {
                Ok(Some(ContentCoding::Deflate))
            }
            _ => Err(Refusal::unsupported_coding()),
        }
    }

    fn decoder(self) -> Decompress {
        match self {
            ContentCoding::Gzip => Decompress::new_gzip(15),
            ContentCoding::Deflate => Decompress::new(true),
        }
    }
}

/// RFC 9110 8.4.1.3: recipients take x-gzip for gzip.
fn is_gzip(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip")
}

/// A body that is being decoded.
#[derive(Debug)]
pub struct ContentDecoder {
    coding: ContentCoding,
    state: Decompress,
    /// What has come and was not decoded, after `start`.
    pending: Vec<u8>,
    start: usize,
    /// How many bytes may still come out.
    left: u64,
    /// The stream has begun and not ended: what has come so far is not all.
    is_within: bool,
    /// A stream has ended.
    has_ended: bool,
}

impl ContentDecoder {
    /// For a body with that coding, of which at most `limit` bytes may come out.
    pub fn new(coding: ContentCoding, limit: u64) -> Self {
        ContentDecoder {
            coding,
            state: coding.decoder(),
            pending: Vec::new(),
            start: 0,
            left: limit,
            is_within: false,
            has_ended: false,
        }
    }

    /// Where to append more, once [`ContentDecoder::wants_more`].
    pub fn input(&mut self) -> &mut Vec<u8> {
        self.pending.drain(..self.start);
        self.start = 0;
        &mut self.pending
    }

    /// Whether all that has come was decoded, as far as there was a goal.
    pub fn wants_more(&self) -> bool {
        self.start == self.pending.len()
    }

    /// Appends to `out` until it has `goal` bytes, or all that has come is decoded.
    ///
    /// # Errors
    /// 400 if this is no such coding, 413 if more comes out than is allowed.
    pub fn decode(&mut self, out: &mut Vec<u8>, goal: usize) -> Result<(), Refusal> {
        while out.len() < goal {
            let input = self.pending.get(self.start..).unwrap_or_default();
            if !self.is_within {
                if input.is_empty() {
                    return Ok(());
                }
                self.begin()?;
                continue;
            }
            // One byte more than is allowed tells whether there is one.
            let room = ROOM.min(goal - out.len());
            let room = room.min(usize::try_from(self.left.saturating_add(1)).unwrap_or(ROOM));
            let from = out.len();
            out.resize(from + room, 0);
            let (was_in, was_out) = (self.state.total_in(), self.state.total_out());
            let room = out.get_mut(from..).unwrap_or_default();
            let outcome = self.state.decompress(input, room, FlushDecompress::None);
            let used = (self.state.total_in() - was_in) as usize;
            let made = (self.state.total_out() - was_out) as usize;
            self.start += used;
            let Some(left) = self.left.checked_sub(made as u64) else {
                out.truncate(from);
                return Err(TOO_LONG);
            };
            self.left = left;
            out.truncate(from + made);
            match outcome {
                Ok(Status::StreamEnd) => (self.is_within, self.has_ended) = (false, true),
                Ok(_) if used > 0 || made > 0 => {}
                Ok(_) if self.wants_more() => return Ok(()),
                Ok(_) | Err(_) => return Err(BROKEN),
            }
        }
        Ok(())
    }

    /// Begins with the first stream, or with a further member of gzip.
    fn begin(&mut self) -> Result<(), Refusal> {
        if self.has_ended {
            if self.coding != ContentCoding::Gzip {
                return Err(BROKEN);
            }
            self.state = self.coding.decoder();
        }
        self.is_within = true;
        Ok(())
    }

    /// No more will come: whether all was decoded.
    ///
    /// # Errors
    /// 400 if the end is missing.
    pub fn end(&self, is_full: bool) -> Result<bool, Refusal> {
        match self.wants_more() {
            true if !self.is_within => Ok(true),
            true if !is_full => Err(TRUNCATED),
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// What comes out of a body that arrives in pieces of such a size, taken out up to `goal` bytes at a time.
    fn decode(
        coding: ContentCoding,
        body: &[u8],
        piece: usize,
        goal: usize,
        limit: u64,
    ) -> Result<Vec<u8>, Refusal> {
        let (mut decoder, mut all) = (ContentDecoder::new(coding, limit), Vec::new());
        for piece in body.chunks(piece.max(1)) {
            decoder.input().extend_from_slice(piece);
            while !decoder.wants_more() {
                let mut out = Vec::new();
                decoder.decode(&mut out, goal)?;
                assert!(out.len() <= goal);
                all.extend(out);
            }
        }
        loop {
            let mut out = Vec::new();
            decoder.decode(&mut out, goal)?;
            let is_full = out.len() == goal;
            all.extend(out);
            if decoder.end(is_full)? {
                return Ok(all);
            }
        }
    }

    fn status(outcome: Result<Vec<u8>, Refusal>) -> Result<Vec<u8>, u16> {
        outcome.map_err(|refusal| refusal.code())
    }

    #[test]
    fn rfc_9110_8_4_one_coding_that_is_known() {
        for (list, expected) in [
            ("", Ok(None)),
            ("identity", Ok(None)),
            ("gzip", Ok(Some(ContentCoding::Gzip))),
            ("X-GZip", Ok(Some(ContentCoding::Gzip))),
            ("identity, Deflate ,", Ok(Some(ContentCoding::Deflate))),
            ("br", Err(415)),
            ("gzip, gzip", Err(415)),
            ("gzip;q=1", Err(415)),
        ] {
            let coding = ContentCoding::of(list.as_bytes()).map_err(|refusal| refusal.code());
            assert_eq!(coding, expected, "{list}");
        }
    }

    #[test]
    fn members_follow_one_another() {
        let body = [gzip(b"hello "), gzip(b""), gzip(b"world")].concat();
        for (piece, goal) in [(1, 1), (1, 100), (1000, 1), (1000, 100), (7, 3)] {
            let all = decode(ContentCoding::Gzip, &body, piece, goal, 11);
            assert_eq!(status(all), Ok(b"hello world".to_vec()));
            assert_eq!(status(decode(ContentCoding::Gzip, &body, piece, goal, 10)), Err(413));
        }
    }

    #[test]
    fn what_is_truncated_or_broken_or_followed_by_something_else_is_refused() {
        let text = gzip(&b"All work and no play".repeat(100));
        for end in 1..text.len() {
            assert_eq!(status(decode(ContentCoding::Gzip, &text[..end], 5, 64, 9999)), Err(400));
        }
        for broken in [[&text[..], b"\0"].concat(), [&text[..], b"garbage"].concat(), b"x".to_vec()]
        {
            assert_eq!(status(decode(ContentCoding::Gzip, &broken, 5, 64, 9999)), Err(400));
        }
        let mut wrong_sum = text.clone();
        let sum = text.len() - 8;
        wrong_sum[sum] ^= 1;
        assert_eq!(status(decode(ContentCoding::Gzip, &wrong_sum, 500, 9999, 9999)), Err(400));
    }

    #[test]
    fn deflate_is_the_zlib_format_once() {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"hello").unwrap();
        let body = encoder.finish().unwrap();
        let coding = ContentCoding::Deflate;
        assert_eq!(status(decode(coding, &body, 3, 2, 5)), Ok(b"hello".to_vec()));
        assert_eq!(status(decode(coding, &body.repeat(2), 100, 100, 100)), Err(400));
        assert_eq!(status(decode(coding, &gzip(b"hello"), 100, 100, 100)), Err(400));
    }

    #[test]
    fn a_bomb_ends_at_the_limit_and_nothing_comes_out_ahead_of_the_goal() {
        let bomb = gzip(&vec![0; 10 << 20]);
        let mut decoder = ContentDecoder::new(ContentCoding::Gzip, 1 << 20);
        decoder.input().extend_from_slice(&bomb);
        let mut out = Vec::new();
        assert_eq!(decoder.decode(&mut out, 100_000), Ok(()));
        assert_eq!((out.len(), decoder.wants_more()), (100_000, false));
        assert_eq!(decoder.decode(&mut out, usize::MAX), Err(TOO_LONG));
        assert!(out.len() <= 1 << 20 && out.capacity() < 4 << 20);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            text in proptest::collection::vec(0u8..4, 0..3000),
            piece in 1usize..100,
            goal in 1usize..200,
            cut in any::<prop::sample::Index>(),
            flip in any::<u8>(),
        ) {
            let mut body = gzip(&text);
            prop_assert_eq!(status(decode(ContentCoding::Gzip, &body, piece, goal, 3000)), Ok(text));
            let place = cut.index(body.len());
            body[place] ^= flip;
            let whole = status(decode(ContentCoding::Gzip, &body, 9999, 9999, 3000));
            prop_assert_eq!(status(decode(ContentCoding::Gzip, &body, piece, goal, 3000)), whole);
        }
    }
}
