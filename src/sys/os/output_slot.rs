//! Output that waits in a slot, which two threads share without a lock.
//!
//! Each slot has a state, and the thread that changes it by compare-and-exchange has the content.
//!
//! | state | who has the content | what follows |
//! |---|---|---|
//! | free | nobody | owned, when output is deferred |
//! | owned | its owner | waiting, when it is complete; free, when it was taken back |
//! | waiting | nobody | sending, by the thread or by who waits for something; owned |
//! | sending | who sends it | waiting, if a part is left; done |
//! | done | nobody; all was sent, or sending has failed | owned |

use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8};
use std::thread;

use super::transfer::send;

/// A function, and the position it needs to know.
pub type Completion = (fn(&mut Vec<u8>, usize), usize);

/// What bytes pass through on their way to a socket.
pub trait Seal: Send + Sync {
    /// Sends the bytes as far as it goes without blocking; how many. If that is not all, the next call
    /// must begin with the rest.
    ///
    /// # Errors
    /// `WouldBlock` if nothing can be sent now, else why nothing will be any more.
    fn send(&self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize>;
}

/// What keeps a part of its input until more comes.
pub trait Encode: Send + Sync {
    /// The rest of what it has made of its input so far.
    fn take_rest(&self) -> Vec<u8>;
}

/// Output that may wait.
#[derive(Debug, Default)]
pub struct DeferredOutput {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What has to be done with them before they are sent without more.
    pub completion: Option<Completion>,
    /// Whether the thread has seen it wait before: taking output back for more does not make it new.
    pub is_old: bool,
    /// What most output does without.
    pub extras: Option<Box<OutputExtras>>,
}

/// What belongs to output that waits, beside its own bytes.
#[derive(Default)]
pub struct OutputExtras {
    /// What goes before the bytes, as the system had no room for it, and where the part begins that was not sent.
    pub queue: (Vec<u8>, usize),
    /// What has more of the output, behind the bytes.
    pub encoder: Option<Arc<dyn Encode>>,
    /// What all of it passes through.
    pub seal: Option<Arc<dyn Seal>>,
}

impl fmt::Debug for OutputExtras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputExtras").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl OutputExtras {
    /// Whether the system had no room for something that goes before the bytes.
    fn is_blocked(&self) -> bool {
        self.queue.1 < self.queue.0.len()
    }
}

impl DeferredOutput {
    /// Whether there is nothing to be sent.
    pub fn is_empty(&self) -> bool {
        let is_more = |extras: &OutputExtras| extras.is_blocked() || extras.encoder.is_some();
        self.bytes.is_empty() && !self.extras.as_deref().is_some_and(is_more)
    }

    /// The extras, to be added to.
    pub fn extras(&mut self) -> &mut OutputExtras {
        self.extras.get_or_insert_default()
    }

    /// The bytes are to be sent without more.
    pub fn complete(&mut self) {
        if let Some(encoder) = self.extras.as_mut().and_then(|extras| extras.encoder.take()) {
            self.bytes.append(&mut encoder.take_rest());
        }
        if let Some((complete, from)) = self.completion.take()
            && self.bytes.len() > from
        {
            complete(&mut self.bytes, from);
        }
    }
}

/// What has become of output that was waiting.
#[derive(Debug)]
pub enum Retrieved {
    /// None of its bytes was sent; of the queue before them, perhaps a part.
    Untouched(DeferredOutput),
    /// The bytes that were not sent, and how many were; the queue before them was.
    Begun(Vec<u8>, usize),
    /// Sending has failed.
    Failed {
        /// Why.
        error: io::Error,
        /// How many of the bytes were sent before.
        sent: usize,
        /// How many of the queue were not.
        queued: usize,
    },
}

const FREE: u8 = 0;
const OWNED: u8 = 1;
const WAITING: u8 = 2;
const SENDING: u8 = 3;
const DONE: u8 = 4;

/// No descriptor.
const NONE: RawFd = -1;

/// Output on its way.
struct Content {
    fd: RawFd,
    output: DeferredOutput,
    progress: Progress,
}

/// What has become of the bytes so far.
enum Progress {
    /// They wait for more.
    Waits,
    /// So many were sent.
    Sent(usize),
    /// Sending has failed, with so many sent before.
    Failed(io::Error, usize),
}

/// A slot.
pub(super) struct OutputSlot {
    state: AtomicU8,
    /// Whether the thread has seen it since it was filled.
    seen: AtomicBool,
    /// The socket that had no room for all of it.
    blocked: AtomicI32,
    /// There as long as the slot is waiting, sending or done.
    content: UnsafeCell<MaybeUninit<Content>>,
}

// SAFETY: only who has brought the slot into a state of its own uses the content, see the table above.
unsafe impl Sync for OutputSlot {}

impl OutputSlot {
    /// A free slot.
    pub(super) const fn free() -> OutputSlot {
        OutputSlot {
            state: AtomicU8::new(FREE),
            seen: AtomicBool::new(false),
            blocked: AtomicI32::new(NONE),
            content: UnsafeCell::new(MaybeUninit::uninit()),
        }
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
    #[inline(always)]
    pub(super) fn fill(&self, fd: RawFd, output: DeferredOutput) {
        let is_blocked = output.extras.as_deref().is_some_and(OutputExtras::is_blocked);
        if is_blocked {
            self.blocked.store(fd, Relaxed);
        }
        self.seen.store(output.is_old | is_blocked, Relaxed);
        let content = Content { fd, output, progress: Progress::Waits };
        // SAFETY: the state is this caller's, and there is no content.
        unsafe { (*self.content.get()).write(content) };
        self.state.swap(WAITING, SeqCst);
    }

    /// Forgets the content: what is there after a fork is the parent's.
    pub(super) fn forget(&self) {
        self.blocked.store(NONE, Relaxed);
        self.state.store(FREE, Relaxed);
    }

    /// Takes the output back; the slot is free.
    #[inline(always)]
    pub(super) fn take(&self) -> Retrieved {
        if !self.changes(WAITING, OWNED) {
            self.own();
        }
        // SAFETY: the state is this caller's, and there is content, which nobody reads again.
        let Content { output, progress, .. } = unsafe { (*self.content.get()).assume_init_read() };
        let is_old = self.seen.load(Relaxed);
        let waits = matches!(progress, Progress::Waits);
        if !waits || output.extras.is_some() {
            self.blocked.store(NONE, Relaxed);
        }
        self.state.store(FREE, Release);
        if waits {
            return Retrieved::Untouched(DeferredOutput { is_old, ..output });
        }
        progress.of(output)
    }

    /// Makes a slot with content the caller's.
    #[cold]
    fn own(&self) {
        loop {
            let state = self.state.load(Relaxed);
            if state == SENDING {
                // It does not block.
                thread::yield_now();
            } else if self.changes(state, OWNED) {
                return;
            }
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
        self.state.load(Relaxed) == WAITING
    }

    /// The socket without which nothing can be sent, until it has room. Its owner may have closed it meanwhile.
    pub(super) fn blocked(&self) -> Option<RawFd> {
        Some(self.blocked.load(Relaxed)).filter(|fd| *fd != NONE && self.is_due())
    }

    /// Sends what goes without blocking, if nobody else has the output.
    pub(super) fn send(&self) {
        if self.changes(WAITING, SENDING) {
            // SAFETY: the state is this caller's, and there is content.
            let content = unsafe { (*self.content.get()).assume_init_mut() };
            let is_done = content.send();
            self.blocked.store(if is_done { NONE } else { content.fd }, Relaxed);
            self.state.store(if is_done { DONE } else { WAITING }, Release);
        }
    }
}

impl Progress {
    /// What it has come to with this output.
    #[cold]
    fn of(self, mut output: DeferredOutput) -> Retrieved {
        match self {
            Progress::Waits => Retrieved::Untouched(output),
            Progress::Sent(sent) => Retrieved::Begun(output.bytes.split_off(sent), sent),
            Progress::Failed(error, sent) => {
                let queue = output.extras.map(|extras| extras.queue);
                let queued = queue.map_or(0, |(bytes, from)| bytes.len().saturating_sub(from));
                Retrieved::Failed { error, sent, queued }
            }
        }
    }
}

impl Content {
    /// Whether nothing is left to be sent.
    fn send(&mut self) -> bool {
        use io::ErrorKind::{Interrupted, WouldBlock};
        match self.send_parts() {
            Ok(is_done) => is_done,
            Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => false,
            Err(error) => {
                let sent = if let Progress::Sent(sent) = self.progress { sent } else { 0 };
                self.progress = Progress::Failed(error, sent);
                true
            }
        }
    }

    fn send_parts(&mut self) -> io::Result<bool> {
        // SAFETY: the descriptor is open: its owner takes the output back before it closes it (see
        // [`super::flusher::defer`]).
        let socket = unsafe { BorrowedFd::borrow_raw(self.fd) };
        if let Some(extras) = self.output.extras.as_deref_mut() {
            let (queue, sent) = &mut extras.queue;
            if !send_part(socket, extras.seal.as_deref(), queue, sent)? {
                return Ok(false);
            }
        }
        if matches!(self.progress, Progress::Waits) {
            self.output.complete();
            self.progress = Progress::Sent(0);
        }
        let Progress::Sent(sent) = &mut self.progress else { return Ok(true) };
        let seal = self.output.extras.as_ref().and_then(|extras| extras.seal.as_deref());
        send_part(socket, seal, &self.output.bytes, sent)
    }
}

/// Sends what goes without blocking of the bytes behind the first `sent` ones; whether that is all.
fn send_part(
    socket: BorrowedFd<'_>,
    seal: Option<&dyn Seal>,
    bytes: &[u8],
    sent: &mut usize,
) -> io::Result<bool> {
    let rest = bytes.get(*sent..).unwrap_or_default();
    if !rest.is_empty() {
        *sent += match seal {
            Some(seal) => seal.send(socket, rest),
            None => send(socket, rest),
        }?;
    }
    Ok(*sent == bytes.len())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn output(text: &str) -> DeferredOutput {
        DeferredOutput { bytes: text.into(), ..DeferredOutput::default() }
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
        assert!(matches!(slot.take(), Retrieved::Begun(rest, 3) if rest.is_empty()));
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
