//! What errors of `accept(2)` mean (pure).

use std::io;

use nix::errno::Errno;

/// What an error of `accept(2)` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptError {
    /// The connection is gone, the next one may be there.
    Retry,
    /// No connection waits.
    Nothing,
    /// It will not be better at once.
    Pause,
    /// The socket was shut down.
    Closed,
}

/// Tells errors of `accept(2)` apart.
pub fn classify(error: &io::Error) -> AcceptError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => AcceptError::Nothing,
        Some(Errno::EINVAL | Errno::EBADF | Errno::ENOTSOCK) => AcceptError::Closed,
        // Pending network errors that Linux passes on from the new connection, and a call that was
        // interrupted: they concern that connection alone.
        Some(
            Errno::EINTR
            | Errno::ECONNABORTED
            | Errno::ECONNRESET
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::EOPNOTSUPP
            | Errno::ETIMEDOUT
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ENONET,
        ) => AcceptError::Retry,
        // Descriptors, memory, or leave (EPERM, EACCES) are lacking.
        _ => AcceptError::Pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_accept_are_told_apart() {
        let verdict = |errno: Errno| classify(&io::Error::from_raw_os_error(errno as i32));
        assert_eq!(verdict(Errno::EAGAIN), AcceptError::Nothing);
        assert_eq!(verdict(Errno::ECONNABORTED), AcceptError::Retry);
        assert_eq!(verdict(Errno::ENETDOWN), AcceptError::Retry);
        assert_eq!(verdict(Errno::EMFILE), AcceptError::Pause);
        assert_eq!(verdict(Errno::ENOMEM), AcceptError::Pause);
        assert_eq!(verdict(Errno::EPERM), AcceptError::Pause);
        assert_eq!(verdict(Errno::EACCES), AcceptError::Pause);
        assert_eq!(verdict(Errno::ENOSYS), AcceptError::Pause);
        assert_eq!(verdict(Errno::EINVAL), AcceptError::Closed);
    }
}
