//! The shared memory of all metrics: blocks of words, each found by its key. It passes from generation to
//! generation, whose workers add to the same words, so that no value is lost at a reload.
//!
//! Only one process adds blocks at a time: the supervisor of a generation that does not serve yet. So a block is
//! complete for everybody who looks for it: the number of used words grows last. Blocks that no generation
//! uses any more stay.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::sys::os::shared::SharedWords;

/// The size, in words (64 MiB). The kernel gives memory to what is used of it.
const WORDS: usize = 8 * 1024 * 1024;

/// A generation that finds fewer free words begins with an area of its own: a script that changes its declarations
/// at each reload must not run out of them.
const ROOM: usize = WORDS / 2;

/// What the area begins with: the layout of blocks, and their meaning.
const VERSION: u64 = 0x6d6f_6f6e_0000_0001;

/// Words of a cache line.
pub const LINE: usize = 8;

/// Words before the first block: the version, and how many words are used.
const HEADER: usize = LINE;
const USED: usize = 1;

/// The area.
pub struct Area {
    words: SharedWords,
    /// For the next generation; none if this one's values end with it.
    file: Option<OwnedFd>,
}

/// A block.
#[derive(Clone)]
pub struct Block {
    area: Rc<Area>,
    at: usize,
    length: usize,
}

impl Area {
    /// The area of the previous generation, if it can be used, or else a new one.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(file: Option<OwnedFd>) -> Result<Self, Errno> {
        if let Some(area) = file.and_then(Self::adopt) {
            return Ok(area);
        }
        let file = memfd_create(c"moonbridge metrics", MFdFlags::MFD_CLOEXEC);
        let mapped = file.and_then(|file| Ok((SharedWords::in_file(&file, WORDS)?, Some(file))));
        // The process may not be allowed to make files of that size.
        let (words, file) = mapped.or_else(|_| Ok::<_, Errno>((SharedWords::new(WORDS)?, None)))?;
        words[USED].store(HEADER as u64, Relaxed);
        words[0].store(VERSION, Release);
        Ok(Area { words, file })
    }

    fn adopt(file: OwnedFd) -> Option<Self> {
        let words = SharedWords::in_file(&file, WORDS).ok()?;
        let area = Area { words, file: Some(file) };
        let fits = area.words[0].load(Acquire) == VERSION && WORDS - area.used() >= ROOM;
        fits.then_some(area)
    }

    /// The file, for the next generation.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    fn used(&self) -> usize {
        let used = usize::try_from(self.words[USED].load(Acquire)).unwrap_or(WORDS);
        used.clamp(HEADER, WORDS)
    }

    /// The block of that many words with that key; a new one is all zero. None if there is no room.
    pub fn block(self: &Rc<Self>, key: &[u8], length: usize) -> Option<Block> {
        let head = (2 + key.len().div_ceil(8)).next_multiple_of(LINE);
        let mut at = HEADER;
        while at < self.used() {
            let [size, bytes] = [at, at + 1].map(|word| self.words[word].load(Relaxed) as usize);
            if size == head + length.next_multiple_of(LINE)
                && bytes == key.len()
                && self.has(at + 2, key)
            {
                return Some(Block { area: self.clone(), at: at + head, length });
            }
            at += size.max(LINE);
        }
        let at = self.used();
        let size = head + length.next_multiple_of(LINE);
        let end = at.checked_add(size).filter(|end| *end <= WORDS)?;
        self.words[at].store(size as u64, Relaxed);
        self.words[at + 1].store(key.len() as u64, Relaxed);
        put(&self.words[at + 2..], key);
        self.words[USED].store(end as u64, Release);
        Some(Block { area: self.clone(), at: at + head, length })
    }

    fn has(&self, at: usize, key: &[u8]) -> bool {
        is(&self.words[at..], key)
    }
}

impl Block {
    /// A part of it.
    pub fn part(&self, at: usize, length: usize) -> Block {
        let at = at.min(self.length);
        let length = length.min(self.length - at);
        Block { area: self.area.clone(), at: self.at + at, length }
    }

    /// Its words.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // Both were checked when the block was made.
        self.area.words.get(self.at..self.at + self.length).unwrap_or_default()
    }
}

/// Puts bytes into words.
pub fn put(words: &[AtomicU64], bytes: &[u8]) {
    for (word, bytes) in words.iter().zip(bytes.chunks(8)) {
        word.store(padded(bytes), Relaxed);
    }
}

/// Whether words begin with these bytes.
pub fn is(words: &[AtomicU64], bytes: &[u8]) -> bool {
    let mut pairs = words.iter().zip(bytes.chunks(8));
    words.len() * 8 >= bytes.len() && pairs.all(|(word, part)| word.load(Relaxed) == padded(part))
}

/// The first `length` bytes in words.
pub fn bytes(words: &[AtomicU64], length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = words
        .iter()
        .take(length.div_ceil(8))
        .flat_map(|it| it.load(Relaxed).to_le_bytes())
        .collect();
    bytes.truncate(length);
    bytes
}

fn padded(bytes: &[u8]) -> u64 {
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_by_its_key_and_its_size() {
        let area = Rc::new(Area::new(None).unwrap());
        for key in ["", "one", "one more that is longer than the others"] {
            let block = area.block(key.as_bytes(), 3).unwrap();
            assert_eq!(block.words().len(), 3);
            assert!(block.words().iter().all(|word| word.load(Relaxed) == 0));
            block.words()[2].store(key.len() as u64 + 1, Relaxed);
        }
        for key in ["one", "", "one more that is longer than the others"] {
            let block = area.block(key.as_bytes(), 3).unwrap();
            assert_eq!(block.words()[2].load(Relaxed), key.len() as u64 + 1);
        }
        assert_eq!(area.block(b"one", 30).unwrap().words()[2].load(Relaxed), 0);
        assert!(area.block(b"large", WORDS).is_none());
    }

    #[test]
    fn the_next_generation_has_the_same_words() {
        let one = Rc::new(Area::new(None).unwrap());
        let before = one.block(b"x", 1).unwrap();
        let file = one.file().unwrap().try_clone_to_owned().unwrap();
        let other = Rc::new(Area::new(Some(file)).unwrap());
        let after = other.block(b"x", 1).unwrap();
        before.words()[0].store(7, Relaxed);
        assert_eq!(after.words()[0].load(Relaxed), 7);
        // What is none, or nearly full, is left alone.
        let file = one.file().unwrap().try_clone_to_owned().unwrap();
        one.words[USED].store((WORDS - ROOM + 1) as u64, Relaxed);
        let fresh = Rc::new(Area::new(Some(file)).unwrap());
        assert_eq!(fresh.block(b"x", 1).unwrap().words()[0].load(Relaxed), 0);
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(Area::new(Some(null.into())).unwrap().used(), HEADER);
    }

    #[test]
    fn bytes_survive_in_words() {
        let words = SharedWords::new(3).unwrap();
        put(&words, b"some bytes");
        assert_eq!(bytes(&words, 10), b"some bytes");
        assert!(is(&words, b"some bytes") && !is(&words, b"some bytez") && !is(&words, &[0; 25]));
    }
}
