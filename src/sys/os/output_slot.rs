//! Output that waits in a slot, which two threads share without a lock.
//!
//! Each slot has a state, and the thread that changes it by compare-and-exchange has the content.
//!
//! | state | who has the content | what follows |
//! |---|---|---|
//! | free | nobody | owned, when output is deferred |
//! | owned | its owner | waiting, when it is complete; free, when it was taken back |
//! | waiting | nobody | sending, by the thread or by who waits for something; owned |
//! | sending | who sends it | begun or done |
//! | begun | nobody; a part was sent | sending, owned |
//! | done | nobody; all was sent, or sending has failed | owned |

use std::cell::UnsafeCell;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::thread;

/// A function, and the position it needs to know.
pub type Completion = (fn(&mut Vec<u8>, usize), usize);

/// Output that may wait.
#[derive(Debug, Default)]
pub struct DeferredOutput {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What has to be done with them before they are sent without more.
    pub completion: Option<Completion>,
    /// Whether the thread has seen it wait before: taking output back for more does not make it new.
    pub is_old: bool,
}

impl DeferredOutput {
    /// The bytes are to be sent without more.
    pub fn complete(&mut self) {
        if let Some((complete, from)) = self.completion.take() {
            complete(&mut self.bytes, from);
        }
    }
}

/// What has become of output that was waiting.
#[derive(Debug)]
pub enum Retrieved {
    /// Nothing was sent: all of it.
    Untouched(DeferredOutput),
    /// A part was sent, or all, and this is the rest.
    Begun(Vec<u8>),
    /// Sending has failed with this errno.
    Failed(i32),
}

const FREE: u8 = 0;
const OWNED: u8 = 1;
const WAITING: u8 = 2;
const SENDING: u8 = 3;
const BEGUN: u8 = 4;
const DONE: u8 = 5;

#[derive(Default)]
struct Content {
    fd: RawFd,
    output: DeferredOutput,
    sent: usize,
    errno: Option<i32>,
}

/// A slot.
pub(super) struct OutputSlot {
    state: AtomicU8,
    /// Whether the thread has seen it since it was filled.
    seen: AtomicBool,
    content: UnsafeCell<Content>,
}

// SAFETY: only who has brought the slot into a state of its own uses the content, see the table above.
unsafe impl Sync for OutputSlot {}

impl OutputSlot {
    /// A free slot.
    pub(super) const fn free() -> OutputSlot {
        let output = DeferredOutput { bytes: Vec::new(), completion: None, is_old: false };
        let content = UnsafeCell::new(Content { fd: -1, output, sent: 0, errno: None });
        OutputSlot { state: AtomicU8::new(FREE), seen: AtomicBool::new(false), content }
    }

    fn changes(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Acquire, Relaxed).is_ok()
    }

    /// Makes a free slot the caller's.
    pub(super) fn claim(&self) -> bool {
        self.changes(FREE, OWNED)
    }

    /// Lets output for a socket wait in a slot that was claimed. What the thread must see has to be
    /// changed before: that is visible to all threads once the slot is filled.
    pub(super) fn fill(&self, fd: RawFd, output: DeferredOutput) {
        self.seen.store(output.is_old, Relaxed);
        let content = Content { fd, output, sent: 0, errno: None };
        // SAFETY: the state is this caller's.
        unsafe { *self.content.get() = content };
        self.state.swap(WAITING, SeqCst);
    }

    /// Forgets the content: what is there after a fork is the parent's.
    pub(super) fn forget(&self) {
        self.state.store(FREE, Relaxed);
    }

    /// Takes the output back; the slot is free.
    #[inline]
    pub(super) fn take(&self) -> Retrieved {
        let state = loop {
            let state = self.state.load(Relaxed);
            if state == SENDING {
                // It does not block.
                thread::yield_now();
            } else if self.changes(state, OWNED) {
                break state;
            }
        };
        // SAFETY: the state is this caller's.
        let content = mem::take(unsafe { &mut *self.content.get() });
        let is_old = self.seen.load(Relaxed);
        self.state.store(FREE, Release);
        match (state, content) {
            (WAITING, Content { output, .. }) => {
                Retrieved::Untouched(DeferredOutput { is_old, ..output })
            }
            (_, Content { errno: Some(errno), .. }) => Retrieved::Failed(errno),
            (_, Content { mut output, sent, .. }) => Retrieved::Begun(output.bytes.split_off(sent)),
        }
    }

    /// Whether output waits, for a thread that is about to sleep.
    pub(super) fn is_waiting(&self) -> bool {
        self.state.load(SeqCst) == WAITING
    }

    /// Sends what was there before.
    pub(super) fn send_old(&self) {
        if self.is_due() && self.seen.swap(true, Relaxed) {
            self.send();
        }
    }

    /// Whether there is something to be sent.
    pub(super) fn is_due(&self) -> bool {
        matches!(self.state.load(Relaxed), WAITING | BEGUN)
    }

    /// Sends what goes without blocking, if nobody else has the output.
    pub(super) fn send(&self) {
        if self.changes(WAITING, SENDING) || self.changes(BEGUN, SENDING) {
            // SAFETY: the state is this caller's.
            let is_done = unsafe { &mut *self.content.get() }.send();
            self.state.store(if is_done { DONE } else { BEGUN }, Release);
        }
    }
}

impl Content {
    /// Whether nothing is left to be sent.
    fn send(&mut self) -> bool {
        self.output.complete();
        let rest = self.output.bytes.get(self.sent..).unwrap_or_default();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the pointer and the length are those of a slice. The descriptor is open: its owner takes
        // the output back before it closes it (see [`super::flusher::defer`]).
        let n = unsafe { libc::send(self.fd, rest.as_ptr().cast(), rest.len(), flags) };
        if let Ok(n) = usize::try_from(n) {
            self.sent += n;
        } else {
            let errno = io::Error::last_os_error().raw_os_error();
            self.errno = errno.filter(|errno| !matches!(*errno, libc::EAGAIN | libc::EINTR));
        }
        self.errno.is_some() || self.sent == self.output.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn output(text: &str) -> DeferredOutput {
        DeferredOutput { bytes: text.into(), completion: None, is_old: false }
    }

    #[test]
    fn only_output_that_was_seen_before_is_sent_as_old() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let slot = OutputSlot::free();
        assert!(slot.claim() && !slot.claim() && !slot.is_due());
        slot.fill(ours.as_raw_fd(), output("abc"));
        slot.send_old();
        assert!(slot.is_waiting());
        slot.send_old();
        assert!(!slot.is_due());
        assert_eq!(theirs.read(&mut [0; 9]).unwrap(), 3);
        assert!(matches!(slot.take(), Retrieved::Begun(rest) if rest.is_empty()));
        assert!(slot.claim());
    }

    #[test]
    fn output_that_is_taken_back_remembers_that_it_was_seen() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let slot = OutputSlot::free();
        assert!(slot.claim());
        slot.fill(ours.as_raw_fd(), output("abc"));
        slot.send_old();
        assert!(matches!(slot.take(), Retrieved::Untouched(waiting) if waiting.is_old));
    }
}
