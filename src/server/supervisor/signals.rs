//! The signals of the supervisor arrive through a descriptor. Handlers that the host has installed stay.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigAction, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpid};

use crate::sys::os::dispositions;

/// Signals that the supervisor takes from its descriptor. SIGPIPE is among them so that a closed
/// standard error does not end it.
const WATCHED: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGQUIT,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGCHLD,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGPIPE,
];

/// The watched signals. When this is dropped, what the host had set up counts again.
pub struct Signals {
    descriptor: SignalFd,
    previous_mask: SigSet,
    /// What the host does about ended children: the supervisor has to wait for them.
    previous_sigchld: SigAction,
    supervisor: Pid,
}

impl Signals {
    /// Watches the signals from now on.
    pub fn watch() -> Result<Self, Errno> {
        let watched: SigSet = WATCHED.into_iter().collect();
        let mut previous_mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched), Some(&mut previous_mask))?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Signals {
            descriptor: SignalFd::with_flags(&watched, flags)?,
            previous_mask,
            previous_sigchld: dispositions::reset(Signal::SIGCHLD)?,
            supervisor: getpid(),
        })
    }

    /// The signal mask of the host.
    pub fn previous_mask(&self) -> SigSet {
        self.previous_mask
    }

    /// The next signal that has come.
    pub fn next(&self) -> Option<Signal> {
        let signal = self.descriptor.read_signal().ok()??;
        Signal::try_from(signal.ssi_signo as i32).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Also in a new worker, which inherits the mask: there it is the host's again.
        while self.next().is_some() {}
        if getpid() == self.supervisor {
            dispositions::restore(Signal::SIGCHLD, &self.previous_sigchld);
        }
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.previous_mask), None);
    }
}
