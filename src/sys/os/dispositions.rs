//! Signal dispositions of the host program, changed while serving.

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Gives a signal its default disposition; returns the one it had.
///
/// # Errors
/// What `sigaction(2)` reports.
pub fn reset(signal: Signal) -> Result<SigAction, Errno> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default disposition runs no code of this process.
    unsafe { sigaction(signal, &default) }
}

/// Puts back what [`reset`] returned.
pub fn restore(signal: Signal, previous: &SigAction) {
    // SAFETY: `previous` was in force before.
    let _ = unsafe { sigaction(signal, previous) };
}
