//! Sends output that waits for more when it has waited too long, whatever the process does meanwhile.
//!
//! A handler may go on in Lua or block in a foreign function, where nothing of this library runs, so
//! a thread does it. It starts with the first output that waits, looks every [`TICK`] and sends what
//! it has seen before, and sleeps when nothing has waited for a while. It blocks all signals, so that
//! it interrupts none of the application's calls. No system call and no lock tells it of output,
//! which waits in a [slot](super::output_slot).
//!
//! A child of this process has no such thread and must not send what is its parent's: there, the
//! parent's output is gone.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use super::fork_detection::generation;
use super::output_slot::{DeferredOutput, OutputSlot, Retrieved};

/// How often the thread looks: output waits for two ticks at most.
const TICK: Duration = Duration::from_millis(400);

/// After this number of ticks without output, the thread sleeps until there is some.
const IDLE_TICKS: u32 = 10;

/// The thread only sends: it needs little memory.
const STACK: usize = 128 * 1024;

/// How many connections can have output that waits: a worker needs one.
const SLOTS: usize = 64;

static TABLE: [OutputSlot; SLOTS] = [const { OutputSlot::free() }; SLOTS];
/// The process whose thread looks after the table; 0: none.
static PROCESS: AtomicU64 = AtomicU64::new(0);
/// The process that the system has refused a thread; 0: none.
static REFUSED: AtomicU64 = AtomicU64::new(0);
/// How often output was deferred.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// 1 while the thread sleeps until it is woken.
static ASLEEP: AtomicU32 = AtomicU32::new(0);

/// Starts the thread for this process.
#[cold]
fn start(process: u64) -> bool {
    if REFUSED.load(Relaxed) == process {
        return false;
    }
    // What is there is the parent's.
    TABLE.iter().for_each(OutputSlot::forget);
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
            slot.send_old();
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
    if TABLE.iter().any(OutputSlot::is_waiting) {
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
pub fn defer(socket: BorrowedFd<'_>, output: DeferredOutput) -> Result<Deferred, DeferredOutput> {
    let process = generation();
    if PROCESS.load(Relaxed) != process && !start(process) {
        return Err(output);
    }
    let Some(index) = TABLE.iter().position(OutputSlot::claim) else { return Err(output) };
    COUNT.store(COUNT.load(Relaxed).wrapping_add(1), Relaxed);
    if let Some(slot) = TABLE.get(index) {
        // Before `ASLEEP` is read: the thread does it the other way round.
        slot.fill(socket.as_raw_fd(), output);
    }
    if ASLEEP.load(SeqCst) == 1 {
        wake();
    }
    Ok(Deferred { index, process })
}

/// Sends all output that waits, as far as it goes without blocking: before a wait.
pub fn send_now() {
    if PROCESS.load(Relaxed) == generation() {
        TABLE.iter().filter(|slot| slot.is_due()).for_each(OutputSlot::send);
    }
}

impl Deferred {
    /// Takes the output back; in a child of the process that has deferred it, nothing of it.
    #[inline]
    pub fn take(self) -> Retrieved {
        let retrieved = self.remove();
        mem::forget(self);
        retrieved.unwrap_or(Retrieved::Begun(Vec::new()))
    }

    #[inline]
    fn remove(&self) -> Option<Retrieved> {
        let slot = TABLE.get(self.index).filter(|_| self.process == generation())?;
        Some(slot.take())
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

    fn output(text: &str) -> DeferredOutput {
        DeferredOutput { bytes: text.into(), completion: Some((exclaim, 1)), is_old: false }
    }

    fn text(output: DeferredOutput) -> String {
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
