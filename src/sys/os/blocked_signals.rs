//! Suppresses signals for a single call: writing to a broken pipe, beyond the file size limit, or
//! to a terminal from the background.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

/// Makes a call while the given signals are blocked, and discards those that it has raised.
///
/// # Errors
/// What `pthread_sigmask(3)` and the call report.
pub fn without<T>(signals: &[Signal], action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let held: SigSet = signals.iter().copied().collect();
    let before = pending(&held);
    let mut mask = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&held), Some(&mut mask))?;
    let outcome = action();
    for signal in pending(&held).iter().filter(|signal| !before.contains(*signal)) {
        take(signal);
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
    outcome
}

/// Which of the signals are pending.
fn pending(among: &SigSet) -> SigSet {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigpending` fills the set when it returns 0; only then it is read.
    let pending = unsafe {
        match libc::sigpending(set.as_mut_ptr()) {
            0 => SigSet::from_sigset_t_unchecked(set.assume_init()),
            _ => return SigSet::empty(),
        }
    };
    among.iter().filter(|signal| pending.contains(*signal)).collect()
}

fn take(signal: Signal) {
    let set = SigSet::from(signal);
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both pointers are valid for the call; a null siginfo pointer is allowed.
    unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &zero) };
}
