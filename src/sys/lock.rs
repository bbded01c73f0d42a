//! Locks on files that tell whether a server runs.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Locks an open file exclusively, without waiting.
///
/// The lock belongs to the open file: forked processes share it, and it is released when the last
/// of them has closed it. Nothing else releases it, so that a worker may drop its copy.
///
/// # Errors
/// `EWOULDBLOCK` if another process holds the lock, else what `flock(2)` reports.
pub fn lock(file: &File) -> io::Result<()> {
    loop {
        // SAFETY: `flock` takes a descriptor and flags, no memory.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
