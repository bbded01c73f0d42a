//! Classification of `accept(2)` errors (pure).

use std::io;

use nix::errno::Errno;

/// The classes of `accept(2)` errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptError {
    /// This connection has failed; try the next one.
    Retry,
    /// No connection is waiting.
    Nothing,
    /// A problem that lasts: pause.
    Pause,
    /// The socket was shut down.
    Closed,
}

/// Classifies an error of `accept(2)`.
pub fn classify(error: &io::Error) -> AcceptError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => AcceptError::Nothing,
        Some(Errno::EINVAL | Errno::EBADF | Errno::ENOTSOCK) => AcceptError::Closed,
        // Network errors of the new connection, which Linux returns here, and an interrupted call:
        // they do not affect other connections.
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
        // A lack of descriptors, memory or permission (EPERM, EACCES).
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
