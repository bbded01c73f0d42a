//! Whether the peer has ended a connection, without reading or writing.

use std::os::fd::{AsRawFd, BorrowedFd};

/// What a peer has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing.
    Nothing,
    /// It will send no more.
    Sending,
    /// The connection.
    Both,
}

/// What the peer of a socket has ended, as far as the kernel knows now. Consumes no input.
pub fn ended(socket: BorrowedFd<'_>) -> Ended {
    let mut set = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: `set` is one valid entry and lives through the call, which does not wait.
    let count = unsafe { libc::poll(&mut set, 1, 0) };
    if count > 0 && set.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 {
        Ended::Both
    } else if count > 0 && set.revents & libc::POLLRDHUP != 0 {
        Ended::Sending
    } else {
        Ended::Nothing
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn each_step_towards_the_end_is_seen_behind_input() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"x").unwrap();
        assert_eq!(ended(ours.as_fd()), Ended::Nothing);
        theirs.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ended(ours.as_fd()), Ended::Sending);
        drop(theirs);
        assert_eq!(ended(ours.as_fd()), Ended::Both);
    }
}
