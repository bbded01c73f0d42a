//! A queue of byte strings in shared memory, from one process to another one.
//!
//! One process writes and one reads, neither waits for the other or makes a system call. What does not fit is
//! counted and lost. The queue outlives the writer: what it has written is read all the same, and another
//! process may go on writing in its place.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Words of a header: where is written next, where is read next, and how many strings were lost. Each has a
/// cache line of its own.
pub const HEADER: usize = 24;
const WRITTEN: usize = 0;
const READ: usize = 8;
const LOST: usize = 16;

/// A queue. A string takes its length, rounded up to words, and a word.
#[derive(Clone, Copy)]
pub struct Ring<'a> {
    header: &'a [AtomicU64],
    data: &'a [AtomicU64],
}

impl<'a> Ring<'a> {
    /// The queue in this memory, which was all zero when the first process used it: [`HEADER`] words, and any
    /// number of words for the strings.
    pub fn over(header: &'a [AtomicU64], data: &'a [AtomicU64]) -> Self {
        Ring { header, data }
    }

    /// The writer's side: adds a string made of these parts. Returns whether the queue has become half full,
    /// so that the reader should hurry.
    pub fn push(&self, parts: &[&[u8]]) -> bool {
        let data = self.data;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let written = self.header[WRITTEN].load(Relaxed);
        let used = written.wrapping_sub(self.header[READ].load(Acquire)) as usize;
        let needed = 1 + length.div_ceil(8);
        if used.saturating_add(needed) > data.len() {
            self.header[LOST].fetch_add(1, Relaxed);
            return false;
        }
        let mut at = written as usize % data.len();
        let mut put = |word: u64| {
            data[at].store(word, Relaxed);
            at += 1;
            if at == data.len() {
                at = 0;
            }
        };
        put(length as u64);
        // Parts need not end with a word.
        let (mut word, mut filled) = (0u64, 0);
        for part in parts {
            let mut part = *part;
            while filled > 0 && !part.is_empty() {
                word |= u64::from(part[0]) << (8 * filled);
                part = &part[1..];
                filled = (filled + 1) % 8;
                if filled == 0 {
                    put(std::mem::take(&mut word));
                }
            }
            let (whole, rest) = part.as_chunks::<8>();
            whole.iter().for_each(|bytes| put(u64::from_le_bytes(*bytes)));
            for byte in rest {
                word |= u64::from(*byte) << (8 * filled);
                filled += 1;
            }
        }
        if filled > 0 {
            put(word);
        }
        self.header[WRITTEN].store(written.wrapping_add(needed as u64), Release);
        let half = data.len() / 2;
        used < half && used + needed >= half
    }

    /// The reader's side: calls `take` with each string, oldest first. Their room is free from time to time and
    /// at the end: a writer whose cache line is taken away for each string would wait for it each time.
    pub fn drain(&self, bytes: &mut Vec<u8>, mut take: impl FnMut(&[u8])) {
        let data = self.data;
        let batch = (data.len() / 8) as u64;
        let mut read = self.header[READ].load(Relaxed);
        let mut freed = read;
        loop {
            let written = self.header[WRITTEN].load(Acquire);
            let there = written.wrapping_sub(read) as usize;
            if there == 0 || there > data.len() {
                // More than fits is what a writer claims that scribbles: nothing of it can be told apart.
                self.header[READ].store(written, Release);
                return;
            }
            let at = read as usize % data.len();
            // A writer that has overwritten it can only have its own strings misread.
            let length = (data[at].load(Relaxed) as usize).min(8 * (there - 1));
            let words = length.div_ceil(8);
            bytes.resize(8 * words, 0);
            let (to, _) = bytes.as_chunks_mut::<8>();
            let (behind, before) = (&data[at + 1..], &data[..at]);
            let (first, rest) = to.split_at_mut(words.min(behind.len()));
            for (to, word) in first.iter_mut().zip(behind) {
                *to = word.load(Relaxed).to_le_bytes();
            }
            for (to, word) in rest.iter_mut().zip(before) {
                *to = word.load(Relaxed).to_le_bytes();
            }
            take(&bytes[..length]);
            read = read.wrapping_add(1 + words as u64);
            if read.wrapping_sub(freed) >= batch {
                freed = read;
                self.header[READ].store(read, Release);
            }
        }
    }

    /// How many strings were lost so far.
    pub fn lost(&self) -> u64 {
        self.header[LOST].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::os::shared::SharedWords;

    fn memory(words: usize) -> SharedWords {
        SharedWords::new(HEADER + words).unwrap()
    }

    fn taken(ring: Ring<'_>) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        ring.drain(&mut Vec::new(), |bytes| taken.push(bytes.to_vec()));
        taken
    }

    #[test]
    fn strings_come_out_as_they_went_in_whatever_their_length() {
        let memory = memory(64);
        let ring = Ring::over(&memory[..HEADER], &memory[HEADER..]);
        for length in (0..200).chain(200..300) {
            let text: Vec<u8> = (0..length as u8).collect();
            let (first, rest) = text.split_at(text.len() / 3);
            ring.push(&[first, b"", rest]);
            assert_eq!(taken(ring), [text]);
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let memory = memory(16);
        let ring = Ring::over(&memory[..HEADER], &memory[HEADER..]);
        let mut hurries = 0;
        for _ in 0..10 {
            hurries += u32::from(ring.push(&[b"0123456789"]));
        }
        assert_eq!((taken(ring).len(), ring.lost(), hurries), (5, 5, 1));
        ring.push(&[&[b'x'; 8 * 15]]);
        assert_eq!(taken(ring), [vec![b'x'; 8 * 15]]);
        ring.push(&[&[b'x'; 8 * 15 + 1]]);
        assert_eq!((taken(ring).len(), ring.lost()), (0, 6));
    }

    #[test]
    fn a_writer_that_scribbles_confuses_only_the_strings() {
        let memory = memory(16);
        let ring = Ring::over(&memory[..HEADER], &memory[HEADER..]);
        ring.push(&[b"abc"]);
        ring.data[0].store(u64::MAX, Relaxed);
        assert_eq!(taken(ring).len(), 1);
        ring.push(&[b"next"]);
        assert_eq!(taken(ring), [b"next"]);
        for claimed in [17, u64::MAX / 2, u64::MAX] {
            let read = ring.header[READ].load(Relaxed);
            ring.header[WRITTEN].store(read.wrapping_add(claimed), Relaxed);
            ring.push(&[b"lost"]);
            assert_eq!(taken(ring).len(), 0);
            ring.push(&[b"next"]);
            assert_eq!(taken(ring), [b"next"]);
        }
    }

    #[test]
    fn two_threads_pass_strings_on_in_order() {
        let memory = memory(512);
        let ring = Ring::over(&memory[..HEADER], &memory[HEADER..]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0u32..20_000 {
                    let text = number.to_string().repeat(1 + number as usize % 7);
                    let before = ring.lost();
                    loop {
                        ring.push(&[text.as_bytes()]);
                        if ring.lost() == before {
                            break;
                        }
                        ring.header[LOST].store(before, Relaxed);
                        std::thread::yield_now();
                    }
                }
            });
            let mut bytes = Vec::new();
            let mut number = 0u32;
            while number < 20_000 {
                ring.drain(&mut bytes, |bytes| {
                    let text = number.to_string().repeat(1 + number as usize % 7);
                    assert_eq!(bytes, text.as_bytes());
                    number += 1;
                });
            }
        });
    }
}
