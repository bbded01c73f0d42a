//! Signal dispositions of the host program that change while the server runs.

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Sets the default disposition of a signal; returns the previous one.
///
/// # Errors
/// What `sigaction(2)` reports.
pub fn reset(signal: Signal) -> Result<SigAction, Errno> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default disposition runs no code of this process.
    unsafe { sigaction(signal, &default) }
}

/// Restores what [`reset`] has returned.
pub fn restore(signal: Signal, previous: &SigAction) {
    // SAFETY: `previous` was in force before.
    let _ = unsafe { sigaction(signal, previous) };
}
