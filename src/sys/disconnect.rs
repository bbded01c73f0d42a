//! Resetting a TCP connection whose descriptor other processes hold as well.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Dissolves the connection at once: a TCP peer gets RST, whoever else holds a duplicate of the
/// descriptor. (Closing would do that only with the last duplicate.)
///
/// # Errors
/// What `connect(2)` with an unspecified address reports.
pub fn disconnect(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a zeroed `sockaddr` is valid, and of the family AF_UNSPEC, which is what asks the
    // kernel to dissolve the connection.
    let outcome = unsafe {
        let address: libc::sockaddr = std::mem::zeroed();
        libc::connect(socket.as_raw_fd(), &address, size_of::<libc::sockaddr>() as libc::socklen_t)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
