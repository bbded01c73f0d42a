//! What workers tell the process that writes the access log, in shared memory: no system call, and no waiting.
//!
//! Each cell of the scoreboards has a queue of its own, and so has the supervisor.

use std::io::PipeWriter;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::numbers::{Malformed, only, optional, present, split};
use super::request_record::Closing;
use super::ring::{HEADER, Ring};
use crate::sys::os::shared::SharedWords;

/// Words of a queue, a MiB: some thousand requests, for the time in which the reader waits for a processor.
const WORDS: usize = 128 * 1024;

/// Words before the queues: how many lines could not be written, the last reason, and how many requests the reader
/// has taken whose lines are not written yet.
const TROUBLE: usize = 8;
const UNWRITTEN: usize = 0;
const REASON: usize = 1;
const IN_HAND: usize = 2;

/// A response of a worker whose output the client has not taken yet: the number of the queue, and a number
/// there.
pub type UnsentResponse = u64;

/// What follows a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequel {
    /// The output is sent, or lost.
    Sent {
        /// Which.
        unsent: UnsentResponse,
        /// When, in microseconds of the monotonic clock.
        at: u64,
        /// Bytes that were not sent; none if all were.
        lost: Option<u64>,
    },
    /// The output is another process's concern: the end of this one says nothing about it.
    Moved(UnsentResponse),
    /// The worker with this queue has died.
    Died(u64),
}

/// What is read in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueEntry<'a> {
    /// A [record](super::request_record). With a number: its response's output is queued, and
    /// [`Sequel::Sent`] follows.
    Record(Option<UnsentResponse>, &'a [u8]),
    /// What has become of such output.
    Sequel(Sequel),
}

const RECORD: u64 = 0;
const UNSENT: u64 = 1;
const SENT: u64 = 2;
const MOVED: u64 = 3;
const DIED: u64 = 4;

impl<'a> QueueEntry<'a> {
    /// The entry in the bytes.
    ///
    /// # Errors
    /// There is none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let ([kind], rest) = split::<1>(bytes)?;
        Ok(QueueEntry::Sequel(match kind {
            RECORD => return Ok(QueueEntry::Record(None, rest)),
            UNSENT => {
                let ([unsent], record) = split::<1>(rest)?;
                return Ok(QueueEntry::Record(Some(unsent), record));
            }
            SENT => {
                let [unsent, at, lost] = only::<3>(rest)?;
                Sequel::Sent { unsent, at, lost: present(lost) }
            }
            MOVED => Sequel::Moved(only::<1>(rest)?[0]),
            DIED => Sequel::Died(only::<1>(rest)?[0]),
            _ => return Err(Malformed),
        }))
    }
}

/// What the lines of the log have, so that nobody tells more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WantedFields {
    /// The names of a request.
    pub names: bool,
    /// Fields of its header.
    pub headers: bool,
}

/// A worker's queue.
#[derive(Clone)]
pub struct OwnQueue {
    queue: Rc<AccessQueue>,
    number: usize,
    /// What lines have.
    pub wanted: WantedFields,
    /// Open as long as something may be told.
    _open: Option<Rc<PipeWriter>>,
}

impl OwnQueue {
    /// The queue with that number.
    pub fn new(
        queue: &Rc<AccessQueue>,
        number: usize,
        wanted: WantedFields,
        open: Option<Rc<PipeWriter>>,
    ) -> Self {
        OwnQueue { queue: queue.clone(), number, wanted, _open: open }
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number as u64
    }

    /// As [`AccessQueue::push_record`].
    pub fn push_record(
        &self,
        unsent: Option<UnsentResponse>,
        opening: &[AtomicU64],
        closing: &Closing<'_>,
    ) {
        self.queue.push_record(self.number, unsent, opening, closing);
    }

    /// As [`AccessQueue::push`].
    pub fn push(&self, sequel: Sequel) {
        self.queue.push(self.number, sequel);
    }
}

/// The queues of a server.
pub struct AccessQueue {
    words: SharedWords,
    queues: usize,
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
        let words = SharedWords::new(TROUBLE + (HEADER + WORDS) * queues)?;
        Ok(AccessQueue { words, queues, wake })
    }

    /// The headers come first: memory that nobody uses is not touched.
    #[inline]
    fn ring(&self, queue: usize) -> Ring<'_> {
        let header = TROUBLE + queue * HEADER;
        let data = TROUBLE + self.queues * HEADER + queue * WORDS;
        Ring::over(&self.words[header..header + HEADER], &self.words[data..data + WORDS])
    }

    /// How many queues there are.
    pub fn len(&self) -> usize {
        self.queues
    }

    /// The writer's side: adds a record, which begins with the words of its
    /// [opening](super::request_record::Opening). One that does not fit is counted and lost. `unsent`: its output is
    /// queued.
    #[inline]
    pub fn push_record(
        &self,
        queue: usize,
        unsent: Option<UnsentResponse>,
        opening: &[AtomicU64],
        closing: &Closing<'_>,
    ) {
        let [a, b, c, d, e] = closing.numbers();
        let fields = closing.fields.len().div_ceil(8);
        let words = 1 + usize::from(unsent.is_some()) + opening.len() + 5 + fields;
        let hurry = self.ring(queue).push(words, |to| {
            match unsent {
                None => to.put([RECORD]),
                Some(unsent) => to.put([UNSENT, unsent]),
            }
            to.copy(opening);
            to.put([a, b, c, d, e]);
            to.put_bytes(closing.fields);
        });
        self.hurry(hurry);
    }

    /// The writer's side: adds to its queue what follows a record.
    pub fn push(&self, queue: usize, sequel: Sequel) {
        let ring = self.ring(queue);
        self.hurry(match sequel {
            Sequel::Sent { unsent, at, lost } => {
                ring.push(4, |to| to.put([SENT, unsent, at, optional(lost)]))
            }
            Sequel::Moved(unsent) => ring.push(2, |to| to.put([MOVED, unsent])),
            Sequel::Died(queue) => ring.push(2, |to| to.put([DIED, queue])),
        });
    }

    fn hurry(&self, hurry: bool) {
        if hurry {
            let _ = self.wake.write(1);
        }
    }

    /// The reader's side: calls `take` with each entry of a queue, oldest first. Another reader would read them again
    /// until `release` has been called.
    pub fn drain(
        &self,
        queue: usize,
        bytes: &mut Vec<u8>,
        mut take: impl FnMut(QueueEntry<'_>),
        release: impl FnMut(),
    ) {
        let take = |bytes: &[u8]| {
            // Garbage of a worker that has scribbled over its memory is ignored.
            if let Ok(entry) = QueueEntry::decode(bytes) {
                take(entry);
            }
        };
        self.ring(queue).drain(bytes, take, release);
    }

    /// The reader's side: calls `take` with the oldest entry of a queue. False if there is none.
    pub fn take_one(
        &self,
        queue: usize,
        bytes: &mut Vec<u8>,
        take: impl FnOnce(QueueEntry<'_>),
    ) -> bool {
        self.ring(queue).take_one(bytes, |bytes| {
            if let Ok(entry) = QueueEntry::decode(bytes) {
                take(entry);
            }
        })
    }

    /// Whether there is something to read.
    pub fn has_more(&self) -> bool {
        (0..self.len()).any(|queue| self.ring(queue).has_more())
    }

    /// The reader's side: it has taken so many requests whose lines are not written yet.
    pub fn hold(&self, requests: usize) {
        self.words[IN_HAND].store(requests as u64, Relaxed);
    }

    /// The reader has ended: what it had in hand is lost.
    pub fn abandon(&self) {
        let in_hand = self.words[IN_HAND].swap(0, Relaxed);
        self.words[UNWRITTEN].fetch_add(in_hand, Relaxed);
    }

    /// There will be no reader any more: what nobody has read is lost.
    pub fn close(&self) {
        let mut unread = 0;
        for queue in 0..self.len() {
            let count = |entry: QueueEntry<'_>| {
                unread += u64::from(matches!(entry, QueueEntry::Record(..)));
            };
            self.drain(queue, &mut Vec::new(), count, || {});
        }
        self.words[UNWRITTEN].fetch_add(unread, Relaxed);
    }

    /// The reader's side: this number of lines could not be written, for this reason.
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
    use super::super::numbers::words;
    use super::super::request_record::{Opening, decode};
    use super::*;

    #[test]
    fn entries_come_out_as_they_went_in() {
        let queue = AccessQueue::new(2).unwrap();
        let sequels = [
            Sequel::Sent { unsent: 7, at: 9, lost: None },
            Sequel::Sent { unsent: 7, at: 9, lost: Some(0) },
            Sequel::Moved(8),
            Sequel::Died(1),
        ];
        sequels.iter().for_each(|sequel| queue.push(1, *sequel));
        let mut seen = 0;
        let mut bytes = Vec::new();
        queue.drain(0, &mut bytes, |_| panic!("another queue"), || {});
        let take = |entry: QueueEntry<'_>| {
            assert_eq!(entry, QueueEntry::Sequel(sequels[seen]));
            seen += 1;
        };
        queue.drain(1, &mut bytes, take, || {});
        assert_eq!((seen, queue.lost()), (sequels.len(), (0, None)));
    }

    #[test]
    fn records_come_out_as_they_went_in() {
        let queue = AccessQueue::new(1).unwrap();
        let opening = Opening { line: b"GET /", begun: 5, ..Opening::default() };
        let mut bytes = Vec::new();
        opening.encode(&mut bytes);
        for fields in [&b""[..], b"12345678", b"123456789", b"123"] {
            let closing = Closing { status: 200, fields, ..Closing::default() };
            for unsent in [None, Some(3)] {
                queue.push_record(0, unsent, &words(&bytes), &closing);
                let mut count = 0;
                let take = |entry: QueueEntry<'_>| {
                    let QueueEntry::Record(read, record) = entry else { panic!("{entry:?}") };
                    assert_eq!((read, decode(record)), (unsent, Ok((opening, closing))));
                    count += 1;
                };
                queue.drain(0, &mut Vec::new(), take, || {});
                assert_eq!(count, 1);
            }
        }
    }

    #[test]
    fn what_no_reader_completes_is_lost() {
        let queue = AccessQueue::new(2).unwrap();
        queue.push_record(1, Some(1), &words(&[0; 64]), &Closing::default());
        queue.push(1, Sequel::Moved(1));
        queue.push_record(0, None, &words(&[0; 64]), &Closing::default());
        queue.hold(3);
        assert!(queue.has_more() && queue.take_one(0, &mut Vec::new(), |_| {}));
        queue.abandon();
        queue.abandon();
        assert_eq!(queue.lost(), (3, None));
        assert!(queue.has_more());
        queue.close();
        assert_eq!((queue.lost(), queue.has_more()), ((4, None), false));
    }

    #[test]
    fn garbage_is_no_entry() {
        for (kind, rest) in [(5, &b""[..]), (2, b"123"), (1, b""), (4, b"123456789")] {
            let bytes = [&[kind, 0, 0, 0, 0, 0, 0, 0], rest].concat();
            assert_eq!(QueueEntry::decode(&bytes), Err(Malformed));
            assert_eq!(QueueEntry::decode(&bytes[..7]), Err(Malformed));
        }
    }

    #[test]
    fn the_reader_is_woken_when_a_queue_is_half_full() {
        let queue = AccessQueue::new(1).unwrap();
        let mut sent = 0usize;
        while queue.wake.read().is_err() {
            queue.push_record(0, None, &words(&[0; 8 * 93]), &Closing::default());
            sent += 1;
        }
        assert!((sent * 100).abs_diff(WORDS / 2) < 1000);
    }
}
