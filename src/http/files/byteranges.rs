//! Several parts of a file in one body (RFC 9110 14.6).

use std::io;
use std::os::fd::BorrowedFd;

use crate::http::wire::range::ByteRange;
use crate::sys::os::file_transfer;

/// The media type of such a body.
pub fn media_type(boundary: &str) -> String {
    format!("multipart/byteranges; boundary={boundary}")
}

/// The value of Content-Range for a part of a representation of `size` bytes.
pub fn content_range(span: &ByteRange, size: u64) -> String {
    format!("bytes {}-{}/{size}", span.start, span.last())
}

/// The body with those parts of what a file has from `position` on: `size` bytes of that media type.
///
/// # Errors
/// What the system reports; `UnexpectedEof` if the file has become shorter.
pub fn body(
    file: BorrowedFd<'_>,
    position: u64,
    spans: &[ByteRange],
    size: u64,
    media_type: &str,
    boundary: &str,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    for span in spans {
        let range = content_range(span, size);
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {range}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        let start = body.len();
        body.resize(start + usize::try_from(span.length).unwrap_or(0), 0);
        file_transfer::read_at(file, position + span.start, &mut body[start..])?;
    }
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Ok(body)
}
