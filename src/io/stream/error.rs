//! The error of one direction of a stream, which sticks (pure).

use std::io;

/// Whether reading, or writing, has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StickyError {
    /// It has not.
    #[default]
    None,
    /// An error (errno) that the caller has not seen yet.
    Unreported(i32),
    /// The caller has seen the error.
    Reported,
}

impl StickyError {
    /// Keeps an error for the next call of [`StickyError::report`].
    pub fn keep(&mut self, error: &io::Error) {
        if let Some(errno) = error.raw_os_error() {
            *self = StickyError::Unreported(errno);
        }
    }

    /// Reports the error, if there is one: itself the first time, and then `later`.
    ///
    /// # Errors
    /// The error.
    pub fn report(&mut self, later: &str) -> io::Result<()> {
        match *self {
            StickyError::None => Ok(()),
            StickyError::Unreported(errno) => {
                *self = StickyError::Reported;
                Err(io::Error::from_raw_os_error(errno))
            }
            StickyError::Reported => Err(io::Error::other(later)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_reported_once_and_then_by_another_text() {
        let mut error = StickyError::None;
        assert!(error.report("again").is_ok());
        error.keep(&io::Error::from_raw_os_error(libc::EPIPE));
        assert_eq!(error.report("again").unwrap_err().raw_os_error(), Some(libc::EPIPE));
        assert_eq!(error.report("again").unwrap_err().to_string(), "again");
        assert_eq!(error, StickyError::Reported);
    }
}
