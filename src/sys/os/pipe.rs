//! Writing to descriptors that are no sockets, without a signal and without blocking.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use nix::sys::signal::Signal;

use super::blocked_signals::without;

/// What a pipe that is ready for output takes without blocking (pipe(7), PIPE_BUF).
pub const ATOMIC: usize = libc::PIPE_BUF;

/// Writes the beginning of `parts` (as much as a ready pipe takes without blocking); the number of
/// bytes written.
///
/// The descriptor may be shared with other processes, so `O_NONBLOCK` is not touched. A broken pipe
/// is `EPIPE` and a file that may not grow `EFBIG`, and nothing else.
///
/// # Errors
/// What `write(2)` reports.
pub fn write(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let Some(part) = parts.iter().find(|part| !part.is_empty()) else { return Ok(0) };
    let part = part.get(..ATOMIC).unwrap_or(part);
    without(&[Signal::SIGPIPE, Signal::SIGXFSZ], || Ok(nix::unistd::write(fd, part)?))
}
