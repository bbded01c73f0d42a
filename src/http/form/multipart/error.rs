//! Why a multipart form is refused.

use std::fmt;

/// Why a form is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultipartError {
    /// The Content-Type has no valid boundary.
    Boundary,
    /// A boundary is followed by something other than blanks and CRLF, or the first one is preceded
    /// by something other than CRLF.
    Delimiter,
    /// A part's header is malformed or repeated.
    Header,
    /// A part is encoded (RFC 7578 4.7 deprecates Content-Transfer-Encoding).
    TransferEncoding,
    /// The headers of a part exceed their limits.
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
