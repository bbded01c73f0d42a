//! Sends output that waits for more when it has waited too long, whatever the process does meanwhile.
//!
//! A handler may go on in Lua or block in a foreign function, where nothing of this library runs, so
//! a thread does it. It starts with the first output that waits, looks every [`TICK`] and sends what
//! it has seen before, and sleeps when nothing has waited for a while. It blocks all signals, so that
//! it interrupts none of the application's calls. No system call and no lock tells it of output: each
//! slot has a state, and whoever changes it by compare-and-exchange has the content.
//!
//! | state | who has the content | what follows |
//! |---|---|---|
//! | free | nobody | owned, when output is deferred |
//! | owned | its owner | waiting, when it is complete; free, when it was taken back |
//! | waiting | nobody | sending, by the thread or by who waits for something; owned |
//! | sending | who sends it | begun or done |
//! | begun | nobody; a part was sent | sending, owned |
//! | done | nobody; all was sent, or sending has failed | owned |
//!
//! A child of this process has no such thread and must not send what is its parent's: there, the
//! parent's output is gone.

use std::cell::UnsafeCell;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use super::fork_detection::generation;

/// How often the thread looks: output waits for two ticks at most.
const TICK: Duration = Duration::from_millis(400);

/// After so many ticks without output, the thread sleeps until there is some.
const IDLE_TICKS: u32 = 10;

/// The thread only sends: it needs little memory.
const STACK: usize = 128 * 1024;

/// How many connections can have output that waits: a worker needs one.
const SLOTS: usize = 64;

static TABLE: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];
/// The process whose thread looks after the table; 0: none.
static PROCESS: AtomicU64 = AtomicU64::new(0);
/// The process that the system has refused a thread; 0: none.
static REFUSED: AtomicU64 = AtomicU64::new(0);
/// How often output was deferred.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// 1 while the thread sleeps until it is woken.
static ASLEEP: AtomicU32 = AtomicU32::new(0);

/// A function, and the position it needs to know.
pub type Completion = (fn(&mut Vec<u8>, usize), usize);

/// Output that may wait.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What has to be done with them before they are sent without more.
    pub completion: Option<Completion>,
    /// Whether the thread has seen it wait before: taking output back for more does not make it new.
    pub is_old: bool,
}

impl Waiting {
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
    Untouched(Waiting),
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
    output: Waiting,
    sent: usize,
    errno: Option<i32>,
}

struct Slot {
    state: AtomicU8,
    /// Whether the thread has seen it since it was filled.
    seen: AtomicBool,
    content: UnsafeCell<Content>,
}

// SAFETY: only who has brought the slot into a state of its own uses the content, see the table above.
unsafe impl Sync for Slot {}

impl Slot {
    const fn new() -> Slot {
        let output = Waiting { bytes: Vec::new(), completion: None, is_old: false };
        let content = UnsafeCell::new(Content { fd: -1, output, sent: 0, errno: None });
        Slot { state: AtomicU8::new(FREE), seen: AtomicBool::new(false), content }
    }

    fn changes(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Acquire, Relaxed).is_ok()
    }

    /// Whether there is something to be sent.
    fn is_due(&self) -> bool {
        matches!(self.state.load(Relaxed), WAITING | BEGUN)
    }

    /// Sends what goes without blocking, if nobody else has the output.
    fn send(&self) {
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
        // the output back before it closes it (see `defer`).
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

/// Starts the thread for this process.
#[cold]
fn start(process: u64) -> bool {
    if REFUSED.load(Relaxed) == process {
        return false;
    }
    // What is there is the parent's.
    TABLE.iter().for_each(|slot| slot.state.store(FREE, Relaxed));
    ASLEEP.store(0, Relaxed);
    let is_started = spawn().is_ok();
    let started_for = if is_started { &PROCESS } else { &REFUSED };
    started_for.store(process, Relaxed);
    is_started
}

/// The thread inherits the signal mask.
fn spawn() -> io::Result<()> {
    let mut mask = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))?;
    let outcome = thread::Builder::new().name("flusher".into()).stack_size(STACK).spawn(run);
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
    outcome.map(drop)
}

fn run() {
    let (mut count, mut idle) = (COUNT.load(Relaxed), 0);
    loop {
        thread::sleep(TICK);
        let mut is_busy = COUNT.load(Relaxed) != count;
        count = COUNT.load(Relaxed);
        for slot in &TABLE {
            if slot.is_due() && slot.seen.swap(true, Relaxed) {
                slot.send();
            }
            is_busy |= slot.is_due();
        }
        idle = if is_busy { 0 } else { idle + 1 };
        if idle > IDLE_TICKS {
            sleep();
            idle = 0;
        }
    }
}

/// Until output is deferred.
fn sleep() {
    ASLEEP.store(1, SeqCst);
    if TABLE.iter().any(|slot| slot.state.load(SeqCst) == WAITING) {
        ASLEEP.store(0, Relaxed);
    }
    while ASLEEP.load(SeqCst) == 1 {
        futex(libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG);
    }
}

#[cold]
fn wake() {
    if ASLEEP.swap(0, SeqCst) == 1 {
        futex(libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG);
    }
}

/// `futex(2)`, with 1 as the value to wait at or the number of threads to wake.
fn futex(operation: libc::c_int) {
    let (word, timeout) = (ASLEEP.as_ptr(), ptr::null::<libc::timespec>());
    // SAFETY: the word is a static, the timeout is null.
    unsafe { libc::syscall(libc::SYS_futex, word, operation, 1, timeout) };
}

/// Output that waits. Dropping it drops the output.
#[derive(Debug)]
pub struct Deferred {
    index: usize,
    process: u64,
}

/// Lets output for a socket wait: it is sent after a second at the latest. The caller takes the output back,
/// or drops it, before the descriptor is closed.
///
/// # Errors
/// The output, if no thread can be started, or too many connections have output that waits.
#[inline]
pub fn defer(socket: BorrowedFd<'_>, output: Waiting) -> Result<Deferred, Waiting> {
    let process = generation();
    if PROCESS.load(Relaxed) != process && !start(process) {
        return Err(output);
    }
    let Some(index) = TABLE.iter().position(|slot| slot.changes(FREE, OWNED)) else {
        return Err(output);
    };
    if let Some(slot) = TABLE.get(index) {
        slot.seen.store(output.is_old, Relaxed);
        let content = Content { fd: socket.as_raw_fd(), output, sent: 0, errno: None };
        // SAFETY: the state is this caller's.
        unsafe { *slot.content.get() = content };
        COUNT.store(COUNT.load(Relaxed).wrapping_add(1), Relaxed);
        // Before `ASLEEP` is read: the thread does it the other way round.
        slot.state.swap(WAITING, SeqCst);
    }
    if ASLEEP.load(SeqCst) == 1 {
        wake();
    }
    Ok(Deferred { index, process })
}

/// Sends all output that waits, as far as it goes without blocking: for whoever is about to wait for
/// something.
pub fn send_now() {
    if PROCESS.load(Relaxed) == generation() {
        TABLE.iter().filter(|slot| slot.is_due()).for_each(Slot::send);
    }
}

impl Deferred {
    /// Takes the output back; in a child of the process that has deferred it, nothing of it.
    #[inline]
    pub fn take(self) -> Retrieved {
        let removed = self.remove();
        mem::forget(self);
        match removed {
            Some((WAITING, Content { output, .. })) => Retrieved::Untouched(output),
            Some((_, Content { errno: Some(errno), .. })) => Retrieved::Failed(errno),
            Some((_, Content { mut output, sent, .. })) => {
                Retrieved::Begun(output.bytes.split_off(sent))
            }
            None => Retrieved::Begun(Vec::new()),
        }
    }

    /// The state and the content.
    #[inline]
    fn remove(&self) -> Option<(u8, Content)> {
        let slot = TABLE.get(self.index).filter(|_| self.process == generation())?;
        let state = loop {
            let state = slot.state.load(Relaxed);
            if state == SENDING {
                // It does not block.
                thread::yield_now();
            } else if slot.changes(state, OWNED) {
                break state;
            }
        };
        // SAFETY: the state is this caller's.
        let mut content = mem::take(unsafe { &mut *slot.content.get() });
        content.output.is_old = slot.seen.load(Relaxed);
        slot.state.store(FREE, Release);
        Some((state, content))
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// The table is one for all threads.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclaim(bytes: &mut Vec<u8>, from: usize) {
        bytes.insert(from, b'!');
    }

    fn output(text: &str) -> Waiting {
        Waiting { bytes: text.into(), completion: Some((exclaim, 1)), is_old: false }
    }

    fn text(output: Waiting) -> String {
        String::from_utf8(output.bytes).unwrap()
    }

    #[test]
    fn output_that_is_taken_back_in_time_is_untouched() {
        let _alone = alone();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let deferred = defer(ours.as_fd(), output("abc")).unwrap();
        match deferred.take() {
            Retrieved::Untouched(output) => assert_eq!(text(output), "abc"),
            other => panic!("{other:?}"),
        }
        drop(defer(ours.as_fd(), output("def")).unwrap());
        send_now();
        assert_eq!(theirs.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn output_does_not_become_new_by_being_taken_back() {
        let _alone = alone();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut waiting = output("abc");
        for _ in 0..1000 {
            let deferred = defer(ours.as_fd(), waiting).unwrap();
            thread::sleep(Duration::from_millis(10));
            match deferred.take() {
                Retrieved::Untouched(output) => waiting = output,
                _ => return assert_eq!(theirs.read(&mut [0; 9]).unwrap(), 4),
            }
        }
        panic!("nothing was sent");
    }

    #[test]
    fn output_that_nobody_takes_back_is_completed_and_sent_after_a_while() {
        let _alone = alone();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (other, mut others) = UnixStream::pair().unwrap();
        let first = defer(ours.as_fd(), output("abc")).unwrap();
        let second = defer(other.as_fd(), output("de")).unwrap();
        let mut buffer = [0; 9];
        assert_eq!((theirs.read(&mut buffer).unwrap(), &buffer[..4]), (4, &b"a!bc"[..]));
        assert_eq!((others.read(&mut buffer).unwrap(), &buffer[..3]), (3, &b"d!e"[..]));
        for deferred in [first, second] {
            match deferred.take() {
                Retrieved::Begun(rest) => assert!(rest.is_empty()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn who_waits_for_something_sends_at_once_and_errors_are_kept() {
        let _alone = alone();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let deferred = defer(ours.as_fd(), output("abc")).unwrap();
        send_now();
        assert_eq!(theirs.read(&mut [0; 9]).unwrap(), 4);
        drop((deferred, theirs));
        let deferred = defer(ours.as_fd(), output("abc")).unwrap();
        send_now();
        match deferred.take() {
            Retrieved::Failed(errno) => assert_eq!(errno, libc::EPIPE),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_peer_that_does_not_read_gets_the_rest_later() {
        let _alone = alone();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let size = 4 * 1024 * 1024;
        let deferred = defer(ours.as_fd(), output(&"x".repeat(size))).unwrap();
        send_now();
        match deferred.take() {
            Retrieved::Begun(rest) => assert!(!rest.is_empty() && rest.len() < size),
            other => panic!("{other:?}"),
        }
    }
}
