//! Sends output that waits for more when it has waited too long, whatever the process does meanwhile.
//!
//! A handler may go on in Lua or block in a foreign function, where nothing of this library runs, so
//! a thread does it. It starts with the first output that waits, looks every [`TICK`] and sends what
//! it has seen before; where the system has no room for all, it goes on as the client takes some. It
//! sleeps when nothing has waited for a while. It blocks all signals, so that it interrupts none of the
//! application's calls. No system call and no lock tells it of output, which waits in a
//! [slot](super::output_slot).
//!
//! A child of this process has no such thread and must not send what is its parent's: there, the
//! parent's output is gone. A process that exits sends before what goes without blocking.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

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
/// Whether the thread is sending, or must not, as the process forks or exits: nothing may be half done then.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Starts the thread for this process.
#[cold]
fn start(process: u64) -> bool {
    if REFUSED.load(Relaxed) == process {
        return false;
    }
    static HOOKS: Once = Once::new();
    HOOKS.call_once(hook);
    // What is there is the parent's.
    TABLE.iter().for_each(OutputSlot::forget);
    ASLEEP.store(0, Relaxed);
    let is_started = spawn().is_ok();
    let started_for = if is_started { &PROCESS } else { &REFUSED };
    started_for.store(process, Relaxed);
    is_started
}

/// Has the process look after the thread when it forks, and after output when it exits.
fn hook() {
    extern "C" fn pause() {
        while BUSY.swap(true, Acquire) {
            thread::yield_now();
        }
    }
    extern "C" fn resume() {
        BUSY.store(false, Release);
    }
    extern "C" fn exit() {
        if PROCESS.load(Relaxed) == generation() {
            pause();
            send_now();
            resume();
        }
    }
    // SAFETY: the functions stay, as the library stays mapped (build.rs), and they do not unwind.
    unsafe {
        libc::pthread_atfork(Some(pause), Some(resume), Some(resume));
        libc::atexit(exit);
    }
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
        let tick = Instant::now() + TICK;
        while awaits_room(tick) {
            send_with(|slot| slot.blocked().is_some(), OutputSlot::send);
        }
        let mut is_busy = COUNT.load(Relaxed) != count;
        count = COUNT.load(Relaxed);
        send_with(OutputSlot::is_due, OutputSlot::send_old);
        is_busy |= TABLE.iter().any(OutputSlot::is_due);
        idle = if is_busy { 0 } else { idle + 1 };
        if idle > IDLE_TICKS {
            sleep();
            idle = 0;
        }
    }
}

/// Whether a socket that had no room has some before that time.
fn awaits_room(until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    let mut sockets = [libc::pollfd { fd: -1, events: libc::POLLOUT, revents: 0 }; SLOTS];
    let mut count = 0;
    for (socket, blocked) in sockets.iter_mut().zip(TABLE.iter().filter_map(OutputSlot::blocked)) {
        socket.fd = blocked;
        count += 1;
    }
    let milliseconds = left.as_micros().div_ceil(1000) as libc::c_int;
    // SAFETY: the array has as many entries or more. Descriptors may be closed, which is told.
    let ready = unsafe { libc::poll(sockets.as_mut_ptr(), count, milliseconds) };
    if ready < 0 {
        thread::sleep(left);
    }
    ready > 0
}

/// The thread sends of the slots that are `due`, unless the process forks or exits.
fn send_with(due: fn(&OutputSlot) -> bool, send: fn(&OutputSlot)) {
    if !BUSY.swap(true, Acquire) {
        TABLE.iter().filter(|slot| due(slot)).for_each(send);
        BUSY.store(false, Release);
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

/// Output that waits. Dropping it sends what goes without blocking.
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
    #[inline(always)]
    pub fn take(self) -> Retrieved {
        let slot = self.slot();
        mem::forget(self);
        match slot {
            Some(slot) => slot.take(),
            None => Retrieved::Begun(Vec::new(), 0),
        }
    }

    #[inline(always)]
    fn slot(&self) -> Option<&'static OutputSlot> {
        TABLE.get(self.index).filter(|_| self.process == generation())
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        if let Some(slot) = self.slot() {
            slot.send();
            slot.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;
    use crate::sys::os::output_slot::OutputExtras;

    /// The table is one for all threads.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclaim(bytes: &mut Vec<u8>, from: usize) {
        bytes.insert(from, b'!');
    }

    fn output(text: &str) -> DeferredOutput {
        DeferredOutput { bytes: text.into(), completion: Some((exclaim, 1)), ..Default::default() }
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
        send_now();
        assert_eq!(theirs.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(defer(ours.as_fd(), output("def")).unwrap());
        assert_eq!(theirs.read(&mut [0; 9]).unwrap(), 4, "it is sent when its owner goes away");
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
                Retrieved::Begun(rest, _) => assert!(rest.is_empty()),
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
            Retrieved::Failed { error, .. } => assert_eq!(error.raw_os_error(), Some(libc::EPIPE)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_peer_that_reads_late_gets_the_rest_as_it_reads() {
        let _alone = alone();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let queue = (vec![b'q'; 4 * 1024 * 1024], 1);
        let extras = OutputExtras { queue, ..OutputExtras::default() };
        let waiting = DeferredOutput { extras: Some(Box::new(extras)), ..output("abc") };
        let deferred = defer(ours.as_fd(), waiting).unwrap();
        send_now();
        let waiting = match deferred.take() {
            Retrieved::Untouched(output) => output,
            other => panic!("{other:?}"),
        };
        let (queue, sent) = &waiting.extras.as_ref().unwrap().queue;
        assert!(*sent > 1 && *sent < queue.len() && waiting.bytes == b"abc");
        let expected = queue.len() - 1;
        let deferred = defer(ours.as_fd(), waiting).unwrap();
        let mut received = vec![0; expected + 4];
        theirs.read_exact(&mut received).unwrap();
        assert!(received[..expected].iter().all(|byte| *byte == b'q'));
        assert_eq!(&received[expected..], b"a!bc");
        assert!(matches!(deferred.take(), Retrieved::Begun(rest, 4) if rest.is_empty()));
    }
}
