//! Why a multipart form is refused.

use std::fmt;

/// Why a form is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultipartError {
    /// The Content-Type has no valid boundary.
    Boundary,
    /// Something else than blanks and CRLF follows a boundary, or something else than CRLF goes before
    /// the first one.
    Delimiter,
    /// A part's header breaks the grammar, or is doubled.
    Header,
    /// A part is encoded (RFC 7578 4.7 deprecates Content-Transfer-Encoding).
    TransferEncoding,
    /// The headers of a part are beyond their limits.
    HeaderTooBig,
    /// There are more parts than the limit.
    TooManyParts,
    /// The body ended before its closing delimiter.
    Truncated,
}

impl MultipartError {
    /// The status code of the refusal.
    pub fn status(self) -> u16 {
        match self {
            MultipartError::HeaderTooBig | MultipartError::TooManyParts => 413,
            _ => 400,
        }
    }
}

impl fmt::Display for MultipartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MultipartError::Boundary => "No valid boundary in multipart Content-Type",
            MultipartError::Delimiter => "Invalid multipart delimiter",
            MultipartError::Header => "Invalid header in multipart body",
            MultipartError::TransferEncoding => {
                "Content-Transfer-Encoding not supported in multipart body"
            }
            MultipartError::HeaderTooBig => "Header of part in multipart body too big",
            MultipartError::TooManyParts => "Too many parts in multipart body",
            MultipartError::Truncated => "Multipart body ended before its closing delimiter",
        })
    }
}
