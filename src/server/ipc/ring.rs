//! A queue of strings of words in shared memory, from one process to another one.
//!
//! One process writes and one reads, neither waits for the other or makes a system call. What does not fit is
//! counted and lost. The queue outlives the writer: what it has written is read all the same, and another
//! process may go on writing in its place.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::numbers::word;

/// Words of a header: where is written next, where is read next, and how many strings were lost. Each has a
/// cache line of its own.
pub const HEADER: usize = 24;
const WRITTEN: usize = 0;
const READ: usize = 8;
const LOST: usize = 16;

/// A queue. A string takes its words, and one more.
#[derive(Clone, Copy)]
pub struct Ring<'a> {
    header: &'a [AtomicU64],
    data: &'a [AtomicU64],
}

/// Where a string is written: up to the end of the memory, and then from its beginning on.
pub struct RingWriter<'a> {
    here: &'a [AtomicU64],
    data: &'a [AtomicU64],
}

impl RingWriter<'_> {
    /// Writes words. No more than [`Ring::push`] was told of, or others are overwritten.
    #[inline(always)]
    pub fn put<const N: usize>(&mut self, words: [u64; N]) {
        match self.here.split_first_chunk::<N>() {
            // Without a loop.
            Some((here, rest)) => {
                here.iter().zip(words).for_each(|(to, word)| to.store(word, Relaxed));
                self.here = rest;
            }
            None => words.iter().for_each(|word| self.put_one(*word)),
        }
    }

    /// Writes the words that are there.
    #[inline]
    pub fn copy(&mut self, words: &[AtomicU64]) {
        match self.here.split_at_checked(words.len()) {
            Some((here, rest)) => {
                copy(here, words);
                self.here = rest;
            }
            None => words.iter().for_each(|word| self.put_one(word.load(Relaxed))),
        }
    }

    /// Writes bytes, filled up to whole words.
    #[inline]
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        let (whole, rest) = bytes.as_chunks::<8>();
        whole.iter().for_each(|bytes| self.put_one(u64::from_le_bytes(*bytes)));
        if !rest.is_empty() {
            self.put_one(word(bytes, rest));
        }
    }

    fn put_one(&mut self, word: u64) {
        if self.here.is_empty() {
            self.here = self.data;
        }
        let Some((to, rest)) = self.here.split_first() else { return };
        to.store(word, Relaxed);
        self.here = rest;
    }
}

/// Copies words, four at once: the compiler leaves a loop over atomics as it is.
#[inline]
fn copy(to: &[AtomicU64], from: &[AtomicU64]) {
    let ((to, to_rest), (from, from_rest)) = (to.as_chunks::<4>(), from.as_chunks::<4>());
    let one = |(to, from): (&AtomicU64, &AtomicU64)| to.store(from.load(Relaxed), Relaxed);
    to.iter().zip(from).for_each(|(to, from)| to.iter().zip(from).for_each(one));
    to_rest.iter().zip(from_rest).for_each(one);
}

/// Copies words, four at once, to bytes.
#[inline]
fn load(to: &mut [[u8; 8]], from: &[AtomicU64]) {
    let ((to, to_rest), (from, from_rest)) = (to.as_chunks_mut::<4>(), from.as_chunks::<4>());
    let one = |(to, from): (&mut [u8; 8], &AtomicU64)| *to = from.load(Relaxed).to_le_bytes();
    to.iter_mut().zip(from).for_each(|(to, from)| to.iter_mut().zip(from).for_each(one));
    to_rest.iter_mut().zip(from_rest).for_each(one);
}

impl<'a> Ring<'a> {
    /// The queue in this memory, which was all zero when the first process used it: [`HEADER`] words, and a power of
    /// two of words for the strings.
    pub fn over(header: &'a [AtomicU64], data: &'a [AtomicU64]) -> Self {
        debug_assert!(data.len().is_power_of_two());
        Ring { header, data }
    }

    /// Where in `data` a position is that is counted on and on: without a division, which takes as long as to write
    /// the string.
    #[inline(always)]
    fn place(&self, position: u64) -> usize {
        position as usize & (self.data.len() - 1)
    }

    /// The writer's side: adds a string of that many words, which `put` gives. Returns whether the queue has become
    /// half full, so that the reader should hurry.
    #[inline]
    pub fn push(&self, words: usize, put: impl FnOnce(&mut RingWriter<'a>)) -> bool {
        let data = self.data;
        let written = self.header[WRITTEN].load(Relaxed);
        let used = written.wrapping_sub(self.header[READ].load(Acquire)) as usize;
        let needed = 1 + words;
        if used.saturating_add(needed) > data.len() {
            self.header[LOST].fetch_add(1, Relaxed);
            return false;
        }
        let mut writer = RingWriter { here: &data[self.place(written)..], data };
        writer.put([words as u64]);
        put(&mut writer);
        self.header[WRITTEN].store(written.wrapping_add(needed as u64), Release);
        let half = data.len() / 2;
        used < half && used + needed >= half
    }

    /// The reader's side: calls `take` with each string, oldest first. Their room is free from time to time and
    /// at the end, after a call of `release`: a writer whose cache line is taken away for each string would wait for
    /// it each time.
    pub fn drain(
        &self,
        bytes: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]),
        mut release: impl FnMut(),
    ) {
        let batch = (self.data.len() / 8) as u64;
        let mut read = self.header[READ].load(Relaxed);
        let mut freed = read;
        while let Some(next) = self.next(read, bytes) {
            take(bytes);
            read = next;
            if read.wrapping_sub(freed) >= batch {
                freed = read;
                release();
                self.header[READ].store(read, Release);
            }
        }
        if read != freed {
            release();
            self.header[READ].store(read, Release);
        }
    }

    /// The reader's side: calls `take` with the oldest string, whose room is free then. False if there is none.
    pub fn take_one(&self, bytes: &mut Vec<u8>, take: impl FnOnce(&[u8])) -> bool {
        let next = self.next(self.header[READ].load(Relaxed), bytes);
        if let Some(next) = next {
            take(bytes);
            self.header[READ].store(next, Release);
        }
        next.is_some()
    }

    /// Reads the string at this position. Returns the next position; none if there is no string.
    #[inline]
    fn next(&self, read: u64, bytes: &mut Vec<u8>) -> Option<u64> {
        let data = self.data;
        let written = self.header[WRITTEN].load(Acquire);
        let there = written.wrapping_sub(read) as usize;
        if there == 0 {
            return None;
        }
        if there > data.len() {
            // More than fits is what a writer claims that scribbles: nothing of it can be told apart.
            self.header[READ].store(written, Release);
            return None;
        }
        let at = self.place(read);
        // A writer that has overwritten it can only have its own strings misread.
        let words = (data[at].load(Relaxed) as usize).min(there - 1);
        bytes.resize(8 * words, 0);
        let (to, _) = bytes.as_chunks_mut::<8>();
        let (after, before) = (&data[at + 1..], &data[..at]);
        let (first, rest) = to.split_at_mut(words.min(after.len()));
        load(first, &after[..first.len()]);
        load(rest, &before[..rest.len()]);
        Some(read.wrapping_add(1 + words as u64))
    }

    /// Whether there is a string.
    pub fn has_more(&self) -> bool {
        self.header[WRITTEN].load(Acquire) != self.header[READ].load(Relaxed)
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
        ring.drain(&mut Vec::new(), |bytes| taken.push(bytes.to_vec()), || {});
        taken
    }

    fn push(ring: &Ring<'_>, text: &[u8]) -> bool {
        let words: Vec<AtomicU64> =
            text.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word).into()).collect();
        let third = words.len() / 3;
        ring.push(words.len(), |to| {
            to.copy(&words[..third]);
            to.put([]);
            match &words[third..] {
                [first, second, third] => to.put([first, second, third].map(|it| it.load(Relaxed))),
                rest if third.is_multiple_of(2) => to.copy(rest),
                _ => to.put_bytes(&text[8 * third..]),
            }
        })
    }

    #[test]
    fn strings_come_out_as_they_went_in_whatever_their_length() {
        let memory = memory(64);
        let ring = Ring::over(&memory[..HEADER], &memory[HEADER..]);
        for words in (0..63).chain(30..63).rev() {
            let text: Vec<u8> = (0..8 * words).map(|byte| byte as u8).collect();
            push(&ring, &text);
            assert_eq!(taken(ring), [text]);
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let memory = memory(16);
        let ring = Ring::over(&memory[..HEADER], &memory[HEADER..]);
        let mut hurries = 0;
        for _ in 0..10 {
            hurries += u32::from(push(&ring, b"0123456789abcdef"));
        }
        assert_eq!((taken(ring).len(), ring.lost(), hurries), (5, 5, 1));
        push(&ring, &[b'x'; 8 * 15]);
        assert_eq!(taken(ring), [vec![b'x'; 8 * 15]]);
        push(&ring, &[b'x'; 8 * 16]);
        assert_eq!((taken(ring).len(), ring.lost()), (0, 6));
    }

    #[test]
    fn a_writer_that_scribbles_confuses_only_the_strings() {
        let memory = memory(16);
        let ring = Ring::over(&memory[..HEADER], &memory[HEADER..]);
        push(&ring, b"12345678");
        ring.data[0].store(u64::MAX, Relaxed);
        assert_eq!(taken(ring).len(), 1);
        push(&ring, b"the next");
        assert_eq!(taken(ring), [b"the next"]);
        for claimed in [17, u64::MAX / 2, u64::MAX] {
            let read = ring.header[READ].load(Relaxed);
            ring.header[WRITTEN].store(read.wrapping_add(claimed), Relaxed);
            push(&ring, b"are lost");
            assert_eq!(taken(ring).len(), 0);
            push(&ring, b"the next");
            assert_eq!(taken(ring), [b"the next"]);
        }
    }

    fn text(number: u32) -> Vec<u8> {
        u64::from(number).to_le_bytes().repeat(1 + number as usize % 7)
    }

    #[test]
    fn two_threads_pass_strings_on_in_order() {
        let memory = memory(512);
        let ring = Ring::over(&memory[..HEADER], &memory[HEADER..]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0u32..20_000 {
                    let text = text(number);
                    let before = ring.lost();
                    loop {
                        push(&ring, &text);
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
                ring.drain(
                    &mut bytes,
                    |bytes| {
                        let text = text(number);
                        assert_eq!(bytes, text);
                        number += 1;
                    },
                    || {},
                );
            }
        });
    }

    #[test]
    fn room_is_free_after_each_string_or_when_the_reader_says_so() {
        let memory = memory(64);
        let ring = Ring::over(&memory[..HEADER], &memory[HEADER..]);
        for number in 0..10 {
            push(&ring, &text(number));
        }
        let read = || ring.header[READ].load(Relaxed);
        let mut bytes = Vec::new();
        assert!(ring.take_one(&mut bytes, |bytes| assert_eq!(bytes, text(0))));
        assert!(ring.has_more() && read() == 2);
        let mut seen = 1;
        let released = std::cell::Cell::new(0);
        ring.drain(
            &mut bytes,
            |bytes| {
                assert_eq!(bytes, text(seen));
                seen += 1;
            },
            || {
                assert!(read() < ring.header[WRITTEN].load(Relaxed));
                released.set(released.get() + 1);
            },
        );
        assert!(seen == 10 && released.get() > 1 && !ring.has_more());
        assert!(!ring.take_one(&mut bytes, |_| panic!("nothing is there")));
    }
}
