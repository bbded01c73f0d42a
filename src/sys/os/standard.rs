//! The standard streams of the process, on whose numbers other code relies.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// One of the descriptors 0, 1 and 2.
pub fn stream(number: u8) -> BorrowedFd<'static> {
    // SAFETY: nothing is assumed of the descriptor: if it is closed, operations on it fail.
    unsafe { BorrowedFd::borrow_raw(RawFd::from(number.min(2))) }
}

/// Closes a standard stream by replacing it with `/dev/null`: its peer sees the end, and the number
/// is not reused.
///
/// # Errors
/// What `open(2)` and `dup2(2)` report.
pub fn replace_by_null(fd: BorrowedFd<'_>) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    // SAFETY: both descriptors are open; `dup2` replaces the second one atomically.
    match unsafe { libc::dup2(null.as_raw_fd(), fd.as_raw_fd()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
