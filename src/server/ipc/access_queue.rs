//! What workers tell the process that writes the access log, in shared memory: no system call, and no waiting.
//!
//! Each cell of the scoreboards has a queue of its own, and so has the supervisor.

use std::io::PipeWriter;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::numbers::{Malformed, only, optional, present, split};
use super::ring::{HEADER, Ring};
use crate::sys::os::shared::SharedWords;

/// Words of a queue, a MiB: some thousand requests, for the time in which the reader waits for a processor.
const WORDS: usize = 128 * 1024;

/// Words before the queues: how many lines could not be written, and the last reason.
const TROUBLE: usize = 8;
const UNWRITTEN: usize = 0;
const REASON: usize = 1;

/// A response of a worker whose output the client has not taken yet: the number of the queue, and a number
/// there.
pub type Unsent = u64;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A [record](super::request_record), in two parts; the second one is empty when it is read.
    Record(&'a [u8], &'a [u8]),
    /// A record of a response whose output is queued. That it is sent is told by [`Entry::Sent`].
    Unsent(Unsent, &'a [u8], &'a [u8]),
    /// The output is sent, or lost.
    Sent {
        /// Which.
        unsent: Unsent,
        /// When, in microseconds of the monotonic clock.
        at: u64,
        /// Bytes that were not sent; none if all were.
        lost: Option<u64>,
    },
    /// The output is another process's concern: the end of this one says nothing about it.
    Moved(Unsent),
    /// The worker with this queue has died.
    Died(u64),
}

impl<'a> Entry<'a> {
    /// Its encoding: what stands before the record, and the record.
    fn encode(&self) -> (Head, [&'a [u8]; 2]) {
        let none: [&[u8]; 2] = [&[], &[]];
        match *self {
            Entry::Record(first, rest) => (Head::new(0, []), [first, rest]),
            Entry::Unsent(unsent, first, rest) => (Head::new(1, [unsent]), [first, rest]),
            Entry::Sent { unsent, at, lost } => (Head::new(2, [unsent, at, optional(lost)]), none),
            Entry::Moved(unsent) => (Head::new(3, [unsent]), none),
            Entry::Died(queue) => (Head::new(4, [queue]), none),
        }
    }

    /// The entry in the bytes.
    ///
    /// # Errors
    /// There is none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let ([kind], rest) = split::<1>(bytes)?;
        Ok(match kind {
            0 => Entry::Record(rest, &[]),
            1 => {
                let ([unsent], record) = split::<1>(rest)?;
                Entry::Unsent(unsent, record, &[])
            }
            2 => {
                let [unsent, at, lost] = only::<3>(rest)?;
                Entry::Sent { unsent, at, lost: present(lost) }
            }
            3 => Entry::Moved(only::<1>(rest)?[0]),
            4 => Entry::Died(only::<1>(rest)?[0]),
            _ => return Err(Malformed),
        })
    }
}

/// What an entry begins with: its kind, and numbers.
struct Head {
    bytes: [u8; 32],
    length: usize,
}

impl Head {
    fn new<const N: usize>(kind: u64, numbers: [u64; N]) -> Self {
        let mut head = Head { bytes: [0; 32], length: 8 + 8 * N };
        let numbers = std::iter::once(kind).chain(numbers);
        for (number, bytes) in numbers.zip(head.bytes.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        head
    }
}

/// A worker's queue.
#[derive(Clone)]
pub struct OwnQueue {
    queue: Rc<AccessQueue>,
    number: usize,
    /// Open as long as something may be told.
    _open: Rc<PipeWriter>,
}

impl OwnQueue {
    /// The queue with that number.
    pub fn new(queue: &Rc<AccessQueue>, number: usize, open: &Rc<PipeWriter>) -> Self {
        OwnQueue { queue: queue.clone(), number, _open: open.clone() }
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number as u64
    }

    /// As [`AccessQueue::push`].
    pub fn push(&self, entry: Entry<'_>) {
        self.queue.push(self.number, entry);
    }
}

/// The queues of a server.
pub struct AccessQueue {
    words: SharedWords,
    /// Told when a queue is half full.
    wake: EventFd,
}

impl AccessQueue {
    /// So many queues.
    ///
    /// # Errors
    /// There is no memory, or no descriptor.
    pub fn new(queues: usize) -> Result<Self, Errno> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(AccessQueue { words: SharedWords::new(TROUBLE + (HEADER + WORDS) * queues)?, wake })
    }

    /// The headers come first: memory that nobody uses is not touched.
    fn ring(&self, queue: usize) -> Ring<'_> {
        let header = TROUBLE + queue * HEADER;
        let data = TROUBLE + self.len() * HEADER + queue * WORDS;
        Ring::over(&self.words[header..header + HEADER], &self.words[data..data + WORDS])
    }

    /// How many queues there are.
    pub fn len(&self) -> usize {
        (self.words.len() - TROUBLE) / (HEADER + WORDS)
    }

    /// The writer's side: adds an entry to its queue. One that does not fit is counted and lost.
    pub fn push(&self, queue: usize, entry: Entry<'_>) {
        let (head, [first, rest]) = entry.encode();
        if self.ring(queue).push(&[&head.bytes[..head.length], first, rest]) {
            let _ = self.wake.write(1);
        }
    }

    /// The reader's side: calls `take` with each entry of a queue, oldest first.
    pub fn drain(&self, queue: usize, bytes: &mut Vec<u8>, mut take: impl FnMut(Entry<'_>)) {
        self.ring(queue).drain(bytes, |bytes| {
            // Garbage of a worker that has scribbled over its memory is ignored.
            if let Ok(entry) = Entry::decode(bytes) {
                take(entry);
            }
        });
    }

    /// The reader's side: so many lines could not be written, for this reason.
    pub fn complain(&self, lines: u64, errno: i32) {
        self.words[REASON].store(errno.unsigned_abs().into(), Relaxed);
        self.words[UNWRITTEN].fetch_add(lines, Relaxed);
    }

    /// How many lines are missing in the log so far, and why, if a reason is known.
    pub fn lost(&self) -> (u64, Option<i32>) {
        let unread = (0..self.len()).map(|queue| self.ring(queue).lost());
        // A worker may have scribbled over a counter.
        let lost = unread.fold(self.words[UNWRITTEN].load(Relaxed), u64::saturating_add);
        let reason = i32::try_from(self.words[REASON].load(Relaxed)).unwrap_or(0);
        (lost, (reason != 0).then_some(reason))
    }

    /// Readable when a queue is half full; see [`AccessQueue::woken`].
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The reader's side: it was woken.
    pub fn woken(&self) {
        let _ = self.wake.read();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_as_they_went_in() {
        let queue = AccessQueue::new(2).unwrap();
        let entries = [
            Entry::Record(b"record", b""),
            Entry::Unsent(7, b"record", b""),
            Entry::Sent { unsent: 7, at: 9, lost: None },
            Entry::Sent { unsent: 7, at: 9, lost: Some(0) },
            Entry::Moved(8),
            Entry::Died(1),
        ];
        entries.iter().for_each(|entry| queue.push(1, *entry));
        let mut seen = 0;
        let mut bytes = Vec::new();
        queue.drain(0, &mut bytes, |_| panic!("another queue"));
        queue.drain(1, &mut bytes, |entry| {
            assert_eq!(entry, entries[seen]);
            seen += 1;
        });
        assert_eq!((seen, queue.lost()), (entries.len(), (0, None)));
    }

    #[test]
    fn garbage_is_no_entry() {
        for (kind, rest) in [(5, &b""[..]), (2, b"123"), (1, b""), (4, b"123456789")] {
            let bytes = [&[kind, 0, 0, 0, 0, 0, 0, 0], rest].concat();
            assert_eq!(Entry::decode(&bytes), Err(Malformed));
            assert_eq!(Entry::decode(&bytes[..7]), Err(Malformed));
        }
    }

    #[test]
    fn the_parts_of_a_record_are_read_as_one() {
        let queue = AccessQueue::new(1).unwrap();
        queue.push(0, Entry::Record(b"open", b"closed"));
        queue.push(0, Entry::Unsent(3, b"o", b"closed"));
        let mut read = Vec::new();
        queue.drain(0, &mut Vec::new(), |entry| match entry {
            Entry::Record(record, b"") | Entry::Unsent(3, record, b"") => {
                read.push(record.to_vec())
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(read, [&b"openclosed"[..], b"oclosed"]);
    }

    #[test]
    fn the_reader_is_woken_when_a_queue_is_half_full() {
        let queue = AccessQueue::new(1).unwrap();
        let record = vec![0; 1000];
        let mut sent = 0usize;
        while queue.wake.read().is_err() {
            queue.push(0, Entry::Record(&record, &[]));
            sent += 1;
        }
        assert!((sent * 1000 / 8).abs_diff(WORDS / 2) < 1000);
    }
}
