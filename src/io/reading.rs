//! Reading up to a length or a terminator (reference, "socket:read" and "socket:drain").

use std::io;

use super::stream::{Direction, Fill, Stream};

/// The maximum size of one receive, so that a large `maxlen` does not reserve memory for data that
/// may never arrive.
const CHUNK: usize = 256 * 1024;

/// How many bytes to search for a terminator before calling a vectorized search.
const NEAR: usize = 32;

/// Why a read ended: the second result of the read functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The last byte is the terminator.
    Term = 0,
    /// The requested number of bytes, without a terminator.
    MaxLen = 1,
    /// The peer will send no more.
    Eof = 2,
    /// Reading more would block.
    Block = 3,
}

impl Status {
    /// The word in the reference.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Term => "term",
            Status::MaxLen => "maxlen",
            Status::Eof => "eof",
            Status::Block => "block",
        }
    }
}

/// The arguments of a read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Want {
    /// The number of bytes at most; `None`: no limit.
    pub limit: Option<usize>,
    /// The byte that ends the read and is part of it.
    pub terminator: Option<u8>,
}

impl Want {
    /// How many bytes of `input` satisfy the read, and why; `None` if it needs more. The first
    /// `seen` bytes are known not to contain the terminator.
    #[inline]
    pub fn find(&self, input: &[u8], seen: usize) -> Option<(usize, Status)> {
        let window = match self.limit {
            Some(limit) => input.get(..limit).unwrap_or(input),
            None => input,
        };
        if let Some(terminator) = self.terminator
            && let Some(at) = position(terminator, window.get(seen..).unwrap_or_default())
        {
            return Some((seen + at + 1, Status::Term));
        }
        match self.limit {
            Some(limit) if input.len() >= limit => Some((limit, Status::MaxLen)),
            _ => None,
        }
    }

    /// How much to receive if `have` bytes are available.
    fn missing(&self, have: usize) -> usize {
        self.limit.map_or(0, |limit| limit.saturating_sub(have).min(CHUNK))
    }

    /// Receives until it is satisfied, or, unless it `waits`, until nothing more is available. Returns
    /// how many leading bytes of the input belong to the read, and why it ends; consumes nothing. The
    /// first `seen` bytes of the input are known not to contain the terminator.
    ///
    /// # Errors
    /// What the system reports; afterwards "Previous read error".
    pub fn receive(
        &self,
        stream: &mut Stream,
        mut seen: usize,
        waits: bool,
    ) -> io::Result<(usize, Status)> {
        stream.duplex.input.check()?;
        loop {
            let have = stream.duplex.input().len();
            if let Some(found) = self.find(stream.duplex.input(), seen.min(have)) {
                return Ok(found);
            }
            seen = have;
            match stream.duplex.fill_at_least(self.missing(have))? {
                Fill::Data(_) => {}
                Fill::Eof => return Ok((have, Status::Eof)),
                Fill::Block if waits => drop(stream.duplex.wait(Direction::Read, None)?),
                Fill::Block => return Ok((have, Status::Block)),
            }
        }
    }

    /// Consumes input until it is satisfied, or, unless it `waits`, until nothing more is available.
    /// Returns how many bytes it has consumed, and why it ends.
    ///
    /// # Errors
    /// What the system reports; afterwards "Previous read error".
    pub fn discard(&self, stream: &mut Stream, waits: bool) -> io::Result<(usize, Status)> {
        stream.duplex.input.check()?;
        let mut want = *self;
        let mut total = 0;
        loop {
            if let Some((n, status)) = want.find(stream.duplex.input(), 0) {
                stream.duplex.consume(n);
                return Ok((total + n, status));
            }
            let n = stream.duplex.input().len();
            stream.duplex.consume(n);
            total += n;
            want.limit = want.limit.map(|limit| limit - n);
            match stream.duplex.fill_at_least(want.missing(0))? {
                Fill::Data(_) => {}
                Fill::Eof => return Ok((total, Status::Eof)),
                Fill::Block if waits => drop(stream.duplex.wait(Direction::Read, None)?),
                Fill::Block => return Ok((total, Status::Block)),
            }
        }
    }
}

/// The first position of `byte`. Most lines are short, and calling a vectorized search is
/// expensive, so this searches the beginning itself, eight bytes at a time.
#[inline(always)]
fn position(byte: u8, bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let Some(head) = bytes.first_chunk::<NEAR>() else { return memchr::memchr(byte, bytes) };
    for (index, word) in head.as_chunks::<8>().0.iter().enumerate() {
        // Equal bytes become zero; the lowest byte that borrows is the first of them.
        let word = u64::from_le_bytes(*word) ^ (u64::from(byte) * ONES);
        let zeros = word.wrapping_sub(ONES) & !word & HIGH;
        if zeros != 0 {
            return Some(index * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    memchr::memchr(byte, bytes.get(NEAR..)?).map(|at| NEAR + at)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn want(limit: Option<usize>, terminator: Option<u8>) -> Want {
        Want { limit, terminator }
    }

    #[test]
    fn a_terminator_is_part_of_the_read() {
        assert_eq!(want(None, Some(b'\n')).find(b"ab\ncd", 0), Some((3, Status::Term)));
        assert_eq!(want(None, Some(b'\n')).find(b"abcd", 0), None);
    }

    #[test]
    fn a_terminator_that_is_the_last_allowed_byte_counts_as_terminator() {
        assert_eq!(want(Some(3), Some(b'\n')).find(b"ab\ncd", 0), Some((3, Status::Term)));
        assert_eq!(want(Some(2), Some(b'\n')).find(b"ab\ncd", 0), Some((2, Status::MaxLen)));
    }

    #[test]
    fn a_terminator_is_found_wherever_it_is_and_whatever_is_around_it() {
        for terminator in [0u8, 1, b'\n', 0x7f, 0x80, 0xff] {
            for other in [0u8, 1, 2, 9, 11, 0x7e, 0x80, 0x81, 0xfe, 0xff] {
                let other = if other == terminator { other.wrapping_add(1) } else { other };
                for length in 0..100 {
                    let mut input = vec![other; length];
                    assert_eq!(position(terminator, &input), None);
                    input.push(terminator);
                    input.extend([other; 50]);
                    assert_eq!(position(terminator, &input), Some(length));
                    input.truncate(length + 1);
                    assert_eq!(position(terminator, &input), Some(length));
                }
            }
        }
    }

    #[test]
    fn a_limit_of_zero_is_satisfied_at_once() {
        assert_eq!(want(Some(0), Some(b'\n')).find(b"", 0), Some((0, Status::MaxLen)));
    }

    #[test]
    fn a_terminator_is_found_across_the_borders_of_pieces() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut stream = Stream::accepted(OwnedFd::from(ours), None);
        let line = want(None, Some(b'\n'));
        for piece in ["a", "b", "c"] {
            theirs.write_all(piece.as_bytes()).unwrap();
            assert_eq!(line.receive(&mut stream, 0, false).unwrap().1, Status::Block);
        }
        theirs.write_all(b"\nnext").unwrap();
        assert_eq!(line.receive(&mut stream, 3, false).unwrap(), (4, Status::Term));
        stream.duplex.consume(4);
        drop(theirs);
        assert_eq!(line.receive(&mut stream, 0, true).unwrap(), (4, Status::Eof));
    }

    #[test]
    fn discard_counts_what_it_drops() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut stream = Stream::accepted(OwnedFd::from(ours), None);
        let writer = std::thread::spawn(move || {
            theirs.write_all(&vec![b'x'; 1_000_000]).unwrap();
            theirs.write_all(b"\nrest").unwrap();
        });
        let (n, status) = want(Some(400_000), Some(b'\n')).discard(&mut stream, true).unwrap();
        assert_eq!((n, status), (400_000, Status::MaxLen));
        let (n, status) = want(None, Some(b'\n')).discard(&mut stream, true).unwrap();
        assert_eq!((n, status), (600_001, Status::Term));
        writer.join().unwrap();
        assert_eq!(want(None, None).discard(&mut stream, false).unwrap(), (4, Status::Eof));
        assert_eq!(want(None, None).discard(&mut stream, false).unwrap(), (0, Status::Eof));
    }
}
