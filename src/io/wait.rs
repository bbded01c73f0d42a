//! Waiting for one descriptor.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::sys::os::flusher;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Until input (or EOF, or an error) can be read.
    Read,
    /// Until output can be written (or an error is pending).
    Write,
}

impl Direction {
    /// The condition for `poll(2)`.
    fn flags(self) -> PollFlags {
        match self {
            Direction::Read => PollFlags::POLLIN,
            Direction::Write => PollFlags::POLLOUT,
        }
    }
}

/// Waits until `fd` is ready, or for `timeout` (`None`: without limit). Returns whether it is
/// ready. Signals do not end the wait. Before, sends the output that waits for more.
///
/// # Errors
/// What `ppoll(2)` reports except `EINTR`.
pub fn ready(
    fd: BorrowedFd<'_>,
    direction: Direction,
    timeout: Option<Duration>,
) -> io::Result<bool> {
    ready_for(fd, direction.flags(), timeout)
}

/// Like [`ready`], for any conditions of `poll(2)`.
///
/// # Errors
/// What `ppoll(2)` reports except `EINTR`.
pub fn ready_for(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    timeout: Option<Duration>,
) -> io::Result<bool> {
    if timeout != Some(Duration::ZERO) {
        flusher::send_now();
    }
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let mut set = [PollFd::new(fd, flags)];
        match ppoll(&mut set, left.map(TimeSpec::from_duration), None) {
            Ok(n) => return Ok(n > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
