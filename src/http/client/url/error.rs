//! Why a URL cannot be requested.

use std::fmt;

/// Why a URL cannot be requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// It breaks the grammar.
    Invalid(&'static str),
    /// It has another scheme than `http`, `https` and `unix`.
    Scheme,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UrlError::Invalid(what) => write!(f, "invalid URL: {what}"),
            UrlError::Scheme => {
                f.write_str("unsupported URL scheme: expected http:, https: or unix:")
            }
        }
    }
}
