//! Writes to descriptors that are not sockets, without raising a signal and without blocking.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use nix::sys::signal::Signal;

use super::blocked_signals::without;

/// How much a writable pipe accepts without blocking (pipe(7), PIPE_BUF).
pub const ATOMIC: usize = libc::PIPE_BUF;

/// Writes the beginning of `parts` (as much as a writable pipe accepts without blocking); returns
/// the number of bytes written.
///
/// The descriptor may be shared with other processes, so `O_NONBLOCK` is not changed. A broken pipe
/// returns `EPIPE`, and a file at its size limit `EFBIG`; neither raises a signal.
///
/// # Errors
/// What `write(2)` reports.
pub fn write(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let Some(part) = parts.iter().find(|part| !part.is_empty()) else { return Ok(0) };
    let part = part.get(..ATOMIC).unwrap_or(part);
    without(&[Signal::SIGPIPE, Signal::SIGXFSZ], || Ok(nix::unistd::write(fd, part)?))
}
