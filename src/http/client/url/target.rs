//! Path and query: the part of a URL that a request line carries.
//!
//! Sources: RFC 3986 3.3 and 5.2, RFC 9110 4.2.3.

use memchr::memchr;

use super::error::UrlError;

/// The text without a fragment, which is not sent.
pub fn strip_fragment(text: &[u8]) -> &[u8] {
    text.split(|&byte| byte == b'#').next().unwrap_or_default()
}

/// The path, and the query with its question mark.
pub fn split_query(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(memchr(b'?', text).unwrap_or(text.len()))
}

/// The target of an absolute URL: `/` if there is no path (RFC 9110 4.2.3).
pub fn normal_target(text: &[u8]) -> Result<Vec<u8>, UrlError> {
    match text.first() {
        None => Ok(b"/".to_vec()),
        Some(b'/') => Ok(escape(text)),
        Some(b'?') => Ok([b"/", &*escape(text)].concat()),
        Some(_) => Err(UrlError::Invalid("the target must begin with a slash")),
    }
}

/// Percent-encodes what no URI may hold: bytes beyond ASCII and delimiters of other texts.
pub fn escape(text: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(text.len());
    for &byte in text {
        if byte >= 0x80 || b"\"<>\\^`{|}".contains(&byte) {
            escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            escaped.push(byte);
        }
    }
    escaped
}

/// RFC 3986 5.2.4, for a path that begins with a slash.
pub fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut resolved: Vec<&[u8]> = Vec::new();
    let mut segments = path.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    resolved.pop();
                }
                if last {
                    resolved.push(b"");
                }
            }
            _ => resolved.push(segment),
        }
    }
    let mut result = Vec::with_capacity(path.len());
    for segment in resolved {
        result.push(b'/');
        result.extend_from_slice(segment);
    }
    if result.is_empty() { b"/".to_vec() } else { result }
}
