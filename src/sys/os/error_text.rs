//! What messages and results say about an error: of the system, or one with a code of its own.

use std::{fmt, io};

/// The C library's message for an errno, without the number that std appends.
pub fn describe(errno: i32) -> String {
    let mut text = io::Error::from_raw_os_error(errno).to_string();
    if let Some(end) = text.rfind(" (os error ") {
        text.truncate(end);
    }
    text
}

/// The message of a system error; the C library's if it has an errno.
pub fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), describe)
}

/// An error that is not the system's: a code, which programs can compare, in place of the errno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodedError {
    /// A word, e.g. `expired`.
    pub code: &'static str,
    /// What is wrong, and what to do about it.
    pub text: String,
}

impl fmt::Display for CodedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CodedError {}

impl From<CodedError> for io::Error {
    fn from(error: CodedError) -> io::Error {
        io::Error::other(error)
    }
}

/// The third result of functions that return `nil, message, errno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// An errno.
    Errno(i32),
    /// The code of a [`CodedError`].
    Word(&'static str),
}

impl ErrorCode {
    /// The code of an error, if it has one.
    pub fn of(error: &io::Error) -> Option<ErrorCode> {
        let word = || Some(ErrorCode::Word(error.get_ref()?.downcast_ref::<CodedError>()?.code));
        error.raw_os_error().map(ErrorCode::Errno).or_else(word)
    }
}

/// The same error once more; one that has neither errno nor code has the same text.
pub fn copy(error: &io::Error) -> io::Error {
    match (error.raw_os_error(), error.get_ref().and_then(|inner| inner.downcast_ref())) {
        (Some(errno), _) => io::Error::from_raw_os_error(errno),
        (None, Some(coded)) => CodedError::clone(coded).into(),
        (None, None) => io::Error::new(error.kind(), error.to_string()),
    }
}
