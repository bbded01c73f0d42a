//! Writing to descriptors that are no sockets, without SIGPIPE and without blocking.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

/// What a pipe that is ready for output takes without blocking (pipe(7), PIPE_BUF).
const ATOMIC: usize = libc::PIPE_BUF;

/// Writes the beginning of `parts` (as much as a ready pipe takes without blocking); the number of
/// bytes written.
///
/// The descriptor may be shared with other processes, so `O_NONBLOCK` is not touched. SIGPIPE is
/// blocked during the call and a new one is taken away, so that a broken pipe is `EPIPE` and
/// nothing else.
pub fn write(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let Some(part) = parts.iter().find(|part| !part.is_empty()) else { return Ok(0) };
    let part = part.get(..ATOMIC).unwrap_or(part);
    without_sigpipe(|| Ok(nix::unistd::write(fd, part)?))
}

fn without_sigpipe<T>(action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let sigpipe = SigSet::from(Signal::SIGPIPE);
    let was_pending = sigpipe_is_pending();
    let mut old = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&sigpipe), Some(&mut old))?;
    let outcome = action();
    if !was_pending && sigpipe_is_pending() {
        take_sigpipe();
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&old), None)?;
    outcome
}

fn sigpipe_is_pending() -> bool {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigpending` fills the set when it returns 0; only then it is read.
    unsafe {
        libc::sigpending(set.as_mut_ptr()) == 0
            && libc::sigismember(set.as_ptr(), libc::SIGPIPE) == 1
    }
}

fn take_sigpipe() {
    let set = SigSet::from(Signal::SIGPIPE);
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both pointers are valid for the call; a null siginfo pointer is allowed.
    unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &zero) };
}
