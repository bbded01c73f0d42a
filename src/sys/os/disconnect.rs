//! Ends a connection even if other processes hold duplicates of the descriptor; closing would only
//! end it with the last duplicate.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockRef;

/// Aborts the connection: a TCP peer gets RST. The peer of a local socket reads EOF and cannot
/// write any more.
pub fn disconnect(socket: BorrowedFd<'_>) {
    if dissolve(socket).is_err() {
        // No longer connected: there is nothing to end.
        let _ = SockRef::from(&socket).shutdown(Shutdown::Both);
    }
}

/// `connect(2)` with an unspecified address.
fn dissolve(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a zeroed `sockaddr` is valid, and of the family AF_UNSPEC, which is what asks the
    // kernel to dissolve the connection.
    let outcome = unsafe {
        let address: libc::sockaddr = std::mem::zeroed();
        libc::connect(socket.as_raw_fd(), &address, size_of::<libc::sockaddr>() as libc::socklen_t)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
