//! SIGTERM as a flag, and waiting without losing it.
//!
//! The handler only sets the flag. A signal that arrives between checking the flag and waiting
//! would be missed. So block the signal ([`block`]), check the flag, and pass
//! [`BlockedSigterm::mask`] to `ppoll` or `epoll_pwait`, which unblock it atomically.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, sigaction,
};

static RECEIVED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: libc::c_int) {
    RECEIVED.store(true, Ordering::Relaxed);
}

/// Makes SIGTERM set the flag instead of ending the process. Returns the previous disposition.
///
/// # Errors
/// What `sigaction(2)` reports.
pub fn catch() -> io::Result<SigAction> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing but store to an atomic, and the library stays mapped.
    Ok(unsafe { sigaction(Signal::SIGTERM, &action) }?)
}

/// Whether SIGTERM has arrived since the start or the last [`clear`].
pub fn received() -> bool {
    RECEIVED.load(Ordering::Relaxed)
}

/// Clears the flag; returns whether it was set.
pub fn clear() -> bool {
    RECEIVED.swap(false, Ordering::Relaxed)
}

/// SIGTERM is blocked in this thread while this value exists.
#[derive(Debug)]
pub struct BlockedSigterm {
    /// The mask before.
    before: SigSet,
    /// The mask for waiting: the previous one, with SIGTERM unblocked.
    waiting: SigSet,
}

/// Blocks SIGTERM in this thread.
///
/// # Errors
/// What `pthread_sigmask(3)` reports.
pub fn block() -> io::Result<BlockedSigterm> {
    let mut before = SigSet::empty();
    let term = SigSet::from(Signal::SIGTERM);
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&term), Some(&mut before))?;
    let mut waiting = before;
    waiting.remove(Signal::SIGTERM);
    Ok(BlockedSigterm { before, waiting })
}

impl BlockedSigterm {
    /// The signal mask to wait with, which does not block SIGTERM.
    pub fn mask(&self) -> SigSet {
        self.waiting
    }
}

impl Drop for BlockedSigterm {
    fn drop(&mut self) {
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::time::TimeSpec;

    use super::*;

    #[test]
    fn a_signal_between_the_check_and_the_wait_ends_the_wait() {
        let previous = catch().unwrap();
        let blocked = block().unwrap();
        assert!(!received());
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        assert!(!received(), "the signal is blocked back");
        let outcome = nix::poll::ppoll(&mut [], Some(TimeSpec::new(5, 0)), Some(blocked.mask()));
        assert_eq!(outcome, Err(nix::errno::Errno::EINTR));
        assert!(received());
        drop(blocked);
        assert!(clear() && !received());
        super::super::dispositions::restore(Signal::SIGTERM, &previous);
    }
}
