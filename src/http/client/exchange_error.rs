//! Why an exchange with a server has failed.

use std::io;

use super::body::BodyError;
use super::head::HeadError;
use crate::sys::os::error_text::{self, ErrorCode};

/// Why an exchange has failed. The connection cannot be used any more.
#[derive(Debug)]
pub enum ExchangeError {
    /// A system error.
    Io(io::Error),
    /// The head is refused.
    Head(HeadError),
    /// The body is refused.
    Body(BodyError),
    /// A finalizer that runs during a step uses the same connection.
    InUse,
    /// The connection no longer exists.
    Gone,
}

impl ExchangeError {
    /// The message for Lua.
    pub fn text(&self) -> String {
        match self {
            ExchangeError::Io(error) => error_text::reason(error),
            ExchangeError::Head(error) => error.to_string(),
            ExchangeError::Body(error) => error.to_string(),
            ExchangeError::InUse => "connection is in use".to_owned(),
            ExchangeError::Gone => "connection is gone".to_owned(),
        }
    }

    /// The errno, or what stands in its place.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ExchangeError::Io(error) => ErrorCode::of(error),
            _ => None,
        }
    }
}

impl From<io::Error> for ExchangeError {
    fn from(error: io::Error) -> Self {
        ExchangeError::Io(error)
    }
}

impl From<BodyError> for ExchangeError {
    fn from(error: BodyError) -> Self {
        ExchangeError::Body(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_system_errors_have_a_code() {
        let refused = ExchangeError::from(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        assert_eq!(refused.text(), "Connection refused");
        assert!(refused.code().is_some());
        assert!(ExchangeError::from(BodyError::Truncated).code().is_none());
        assert_eq!(ExchangeError::Gone.text(), "connection is gone");
    }
}
