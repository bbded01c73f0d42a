//! `ppoll(2)` for descriptors by number: those of handles, and those of other libraries.

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::signal::SigSet;

/// The result of `ppoll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollOutcome {
    /// At least one descriptor is ready (or in error, which reading or writing will report).
    Ready,
    /// The timeout has expired.
    Timeout,
    /// A signal handler ran.
    Interrupted,
}

/// A set of descriptors to wait for.
#[derive(Default)]
pub struct PollSet {
    entries: Vec<libc::pollfd>,
}

impl PollSet {
    /// Adds a descriptor to wait for: until it is readable, or until it is writable.
    pub fn add(&mut self, fd: RawFd, write: bool) {
        let events = if write { libc::POLLOUT } else { libc::POLLIN };
        self.entries.push(libc::pollfd { fd, events, revents: 0 });
    }

    /// Adds a descriptor to wait for under any conditions.
    pub fn add_for(&mut self, fd: RawFd, conditions: PollFlags) {
        self.entries.push(libc::pollfd { fd, events: conditions.bits(), revents: 0 });
    }

    /// Waits for at least one of the descriptors, at most for `timeout` (`None`: without limit).
    /// While waiting, `mask` is the thread's signal mask.
    ///
    /// # Errors
    /// What `ppoll(2)` reports, and "Bad file descriptor" if one is not open.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
        mask: Option<&SigSet>,
    ) -> io::Result<PollOutcome> {
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        let mask = mask.map_or(ptr::null(), |mask| ptr::from_ref(mask.as_ref()));
        let count = self.entries.len() as libc::nfds_t;
        // SAFETY: the array has `count` entries; the other pointers are null or valid for the call.
        let n = unsafe { libc::ppoll(self.entries.as_mut_ptr(), count, timeout, mask) };
        match n {
            0 => Ok(PollOutcome::Timeout),
            n if n > 0 => {
                if self.entries.iter().any(|entry| entry.revents & libc::POLLNVAL != 0) {
                    return Err(io::Error::from_raw_os_error(libc::EBADF));
                }
                Ok(PollOutcome::Ready)
            }
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(PollOutcome::Interrupted),
                error => Err(error),
            },
        }
    }
}
