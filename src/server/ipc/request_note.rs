//! Where a worker notes which request it is handling, in shared memory.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::numbers::word;
use super::request_record::{NUMBERS, Opening, with_names};

/// Words of a note. Those of long texts are touched by long texts only: the kernel gives no memory for the others.
pub const NOTE: usize = 4 * 1024 + 64;

/// In the place of the length: a request is about to be read. Its numbers are known, but for the version and the lengths.
const ANNOUNCED: u64 = u64::MAX;

/// The same: the request is over. It is still there, until another one is about to be read.
const OVER: u64 = u64::MAX - 1;

/// Words of the note of a response that is being sent. What does not fit of the request line is cut.
pub const SENDING: usize = 1 + NUMBERS + 64;

/// The opening of a request's record ([`super::request_record::Opening`]), after its length in words.
#[derive(Clone, Copy)]
pub struct RequestNote<'a>(&'a [AtomicU64]);

impl<'a> RequestNote<'a> {
    /// The note in this memory of [`NOTE`] words.
    pub fn over(words: &'a [AtomicU64]) -> Self {
        RequestNote(words)
    }

    /// The worker's side: it handles this request.
    #[inline(always)]
    pub fn write(&self, opening: &Opening<'_>) {
        let Some((length, rest)) = self.0.split_first() else { return };
        let Some((to, mut rest)) = rest.split_first_chunk::<NUMBERS>() else { return };
        let most = rest.len();
        let (numbers, texts) = opening.parts();
        to.iter().zip(numbers).for_each(|(to, number)| to.store(number, Relaxed));
        for text in texts {
            if !text.is_empty() {
                put_text(&mut rest, text);
            }
        }
        length.store((NUMBERS + most - rest.len()) as u64, Relaxed);
    }

    /// The worker's side: it is about to read a request of which these numbers are known, see [`Opening::numbers`].
    #[inline(always)]
    pub fn announce(&self, numbers: [u64; NUMBERS]) {
        let Some((length, rest)) = self.0.split_first() else { return };
        let Some(to) = rest.first_chunk::<NUMBERS>() else { return };
        to.iter().zip(numbers).for_each(|(to, number)| to.store(number, Relaxed));
        length.store(ANNOUNCED, Relaxed);
    }

    /// The worker's side: there was no request, unless one has been noted or is over.
    #[inline]
    pub fn retract(&self) {
        if self.0[0].load(Relaxed) == ANNOUNCED {
            self.clear();
        }
    }

    /// As [`RequestNote::read`], also for a request that was about to be read.
    pub fn read_begun(&self) -> Vec<u8> {
        let numbers = match self.0[0].load(Relaxed) {
            ANNOUNCED => &self.0[1..=NUMBERS],
            _ => self.words(),
        };
        bytes(numbers)
    }

    /// The worker's side: the request it handles, which has had no names, has these.
    pub fn add_names(&self, names: &[u8]) {
        let lengths = &self.0[NUMBERS];
        let (Some(with), Some(mut rest)) =
            (with_names(lengths.load(Relaxed), names), self.0.get(1 + self.length()..))
        else {
            return;
        };
        if self.length() == 0 {
            return;
        }
        put_text(&mut rest, names);
        lengths.store(with, Relaxed);
        self.0[0].store((self.0.len() - 1 - rest.len()) as u64, Relaxed);
    }

    /// The worker's side: the request that it was handling is over.
    pub fn finish(&self) {
        self.0[0].store(OVER, Relaxed);
    }

    /// The worker's side: the numbers and the request line of the request that was over last; empty if that is not known
    /// any more.
    pub fn last(&self) -> Vec<u8> {
        if self.0[0].load(Relaxed) != OVER {
            return Vec::new();
        }
        let line = usize::from(self.0[NUMBERS].load(Relaxed) as u16).div_ceil(8);
        bytes(&self.0[1..self.0.len().min(1 + NUMBERS + line)])
    }

    /// Whether nothing is noted.
    pub fn is_clear(&self) -> bool {
        self.0[0].load(Relaxed) == 0
    }

    /// It is handling none, and nothing is known of the last one.
    pub fn clear(&self) {
        self.0[0].store(0, Relaxed);
    }

    /// The worker's side: when the request began that is noted.
    pub fn begun(&self) -> Option<u64> {
        (self.length() != 0).then(|| self.0[1].load(Relaxed))
    }

    /// What was noted last. For another process it may be a mixture, if the worker is just noting something
    /// else.
    pub fn words(&self) -> &'a [AtomicU64] {
        &self.0[1..1 + self.length()]
    }

    /// The same as bytes.
    pub fn read(&self) -> Vec<u8> {
        bytes(self.words())
    }

    /// The worker's side: what [`RequestNote::words`] gave before.
    pub fn restore(&self, words: &[u64]) {
        let Some((length, mut rest)) = self.0.split_first() else { return };
        put(&mut rest, words.iter().copied());
        length.store((self.0.len() - 1 - rest.len()) as u64, Relaxed);
    }

    fn length(&self) -> usize {
        match self.0[0].load(Relaxed) {
            ANNOUNCED | OVER => 0,
            length => usize::try_from(length).unwrap_or(0).min(self.0.len() - 1),
        }
    }
}

fn bytes(words: &[AtomicU64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect()
}

fn put(to: &mut &[AtomicU64], words: impl IntoIterator<Item = u64, IntoIter: ExactSizeIterator>) {
    let words = words.into_iter();
    let (here, rest) = to.split_at(words.len().min(to.len()));
    here.iter().zip(words).for_each(|(to, word)| to.store(word, Relaxed));
    *to = rest;
}

#[inline]
fn put_text(to: &mut &[AtomicU64], text: &[u8]) {
    let (whole, rest) = text.as_chunks::<8>();
    put(to, whole.iter().map(|bytes| u64::from_le_bytes(*bytes)));
    if let Some((first, after)) = to.split_first().filter(|_| !rest.is_empty()) {
        first.store(word(text, rest), Relaxed);
        *to = after;
    }
}

#[cfg(test)]
mod tests {
    use super::super::request_names::RequestNames;
    use super::super::request_record::{LONGEST, decode_opening};
    use super::*;
    use crate::sys::os::shared::SharedWords;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let memory = SharedWords::new(NOTE).unwrap();
        let note = RequestNote::over(&memory);
        let long = vec![b'x'; LONGEST];
        let names = vec![b'n'; 200];
        for line in [&b""[..], b"GET /", b"GET /something/longer", &long] {
            for text in [&b""[..], b"123456789", &long] {
                let opening = Opening {
                    begun: 7,
                    line,
                    referer: text,
                    user_agent: text,
                    names: RequestNames::Told(&names),
                    ..Opening::default()
                };
                note.write(&opening);
                assert_eq!(decode_opening(&note.read()), Ok((opening, &b""[..])));
                assert_eq!(note.begun(), Some(7));
                note.write(&Opening { names: RequestNames::None, ..opening });
                note.add_names(&names);
                assert_eq!(decode_opening(&note.read()), Ok((opening, &b""[..])));
                note.add_names(b"more");
                assert_eq!(decode_opening(&note.read()), Ok((opening, &b""[..])));
            }
        }
        let words: Vec<u64> = note.words().iter().map(|word| word.load(Relaxed)).collect();
        let read = note.read();
        note.clear();
        assert_eq!((note.read(), note.begun()), (vec![], None));
        note.add_names(&names);
        assert_eq!(note.read(), []);
        note.restore(&words);
        assert_eq!((note.read(), note.read_begun()), (read.clone(), read));
    }

    #[test]
    fn a_request_that_is_over_is_known_for_a_while() {
        let memory = SharedWords::new(NOTE + SENDING).unwrap();
        let (note, sending) =
            (RequestNote::over(&memory[..NOTE]), RequestNote::over(&memory[NOTE..]));
        let long = vec![b'x'; LONGEST];
        for line in [&b"GET /"[..], b"GET /something/longer", &long] {
            let opening = Opening { begun: 7, line, user_agent: b"x", ..Opening::default() };
            note.write(&opening);
            assert_eq!(note.last(), []);
            note.finish();
            assert_eq!((note.read(), note.read_begun(), note.begun()), (vec![], vec![], None));
            let last = note.last();
            let (last, _) = decode_opening(&last).unwrap();
            assert_eq!((last.begun, last.line, last.user_agent), (7, line, &b""[..]));
            sending.write(&last);
            let read = sending.read();
            let cut = &line[..line.len().min(64 * 8)];
            assert_eq!(decode_opening(&read).unwrap().0.line, cut);
        }
        note.retract();
        assert!(!note.last().is_empty());
        note.announce(Opening::default().numbers([0; 4]));
        assert_eq!(note.last(), []);
        note.clear();
        assert!(note.is_clear() && !sending.is_clear());
    }

    #[test]
    fn a_request_that_is_announced_is_not_handled_yet() {
        let memory = SharedWords::new(NOTE).unwrap();
        let note = RequestNote::over(&memory);
        let client = Some("192.0.2.1:80".parse().unwrap());
        let opening =
            Opening { begun: 7, queued: 2, pool: 1, pid: 3, client, ..Opening::default() };
        note.announce(opening.numbers([0; 4]));
        assert_eq!((note.read(), note.begun()), (vec![], None));
        assert_eq!(decode_opening(&note.read_begun()), Ok((opening, &b""[..])));
        note.retract();
        assert_eq!(note.read_begun(), []);
        note.announce(opening.numbers([0; 4]));
        let opening = Opening { line: b"GET /", ..opening };
        note.write(&opening);
        note.retract();
        assert_eq!(decode_opening(&note.read()), Ok((opening, &b""[..])));
        assert_eq!(note.read_begun(), note.read());
    }
}
