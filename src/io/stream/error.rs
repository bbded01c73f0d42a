//! The error of one direction of a stream, which sticks (pure).

use std::io;

use crate::sys::os::error_text;

/// Whether reading, or writing, has failed.
#[derive(Debug, Default)]
pub enum StickyError {
    /// It has not.
    #[default]
    None,
    /// An error that the caller has not seen yet.
    Unreported(io::Error),
    /// The caller has seen the error.
    Reported,
}

impl StickyError {
    /// Keeps an error for the next call of [`StickyError::report`].
    pub fn keep(&mut self, error: &io::Error) {
        *self = StickyError::Unreported(error_text::copy(error));
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        matches!(self, StickyError::None)
    }

    /// Reports the error, if there is one: itself the first time, and then `later`.
    ///
    /// # Errors
    /// The error.
    pub fn report(&mut self, later: &str) -> io::Result<()> {
        match self {
            StickyError::None => Ok(()),
            _ => match std::mem::replace(self, StickyError::Reported) {
                StickyError::Unreported(error) => Err(error),
                _ => Err(io::Error::other(later)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::os::error_text::{CodedError, ErrorCode};

    #[test]
    fn an_error_is_reported_once_and_then_by_another_text() {
        let mut error = StickyError::None;
        assert!(error.report("again").is_ok() && error.is_none());
        error.keep(&io::Error::from_raw_os_error(libc::EPIPE));
        assert_eq!(error.report("again").unwrap_err().raw_os_error(), Some(libc::EPIPE));
        assert_eq!(error.report("again").unwrap_err().to_string(), "again");
        assert!(!error.is_none());
    }

    #[test]
    fn an_error_with_a_code_keeps_it() {
        let mut error = StickyError::None;
        error.keep(&CodedError { code: "expired", text: "too old".to_owned() }.into());
        let reported = error.report("again").unwrap_err();
        assert_eq!(reported.to_string(), "too old");
        assert_eq!(ErrorCode::of(&reported), Some(ErrorCode::Word("expired")));
    }
}
