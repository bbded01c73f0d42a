//! How much data the kernel holds for a connection: unsent output and unread input.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes in the kernel's send buffer of a socket, unsent or unacknowledged (tcp(7), unix(7),
/// `SIOCOUTQ`). A FIN that is not acknowledged counts as one. 0 if unknown.
pub fn unsent(socket: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `TIOCOUTQ`, which is `SIOCOUTQ` of a socket, writes one `int`, which lives through the
    // call.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    if outcome == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Bytes that a receive would find now (`SIOCINQ`). 0 if unknown.
pub fn unread(socket: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `FIONREAD`, which is `SIOCINQ` of a socket, writes one `int`, which lives through the call.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &mut bytes) };
    if outcome == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_the_other_end_has_not_taken_is_counted() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unsent(ours.as_fd()), 0);
        ours.write_all(&[7; 1000]).unwrap();
        assert!(unsent(ours.as_fd()) >= 1000);
        assert_eq!((unread(theirs.as_fd()), unread(ours.as_fd())), (1000, 0));
        theirs.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(unsent(ours.as_fd()), 0);
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(unsent(reader.as_fd()), 0);
    }
}
