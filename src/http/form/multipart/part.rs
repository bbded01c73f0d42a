//! The headers of a part.

use memchr::memchr3;

use super::disposition::ContentDisposition;
use super::error::MultipartError;
use crate::http::wire::head::is_token;
use crate::http::wire::list::trim;
use crate::http::wire::params::split_once;

/// The parsed headers of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Parameter `name` of Content-Disposition.
    pub field_name: Vec<u8>,
    /// Parameter `filename` of Content-Disposition, for files. Chosen by the client: it may contain
    /// slashes, `..` and line breaks.
    pub file_name: Option<Vec<u8>>,
    /// The Content-Type as sent.
    pub content_type: Option<Vec<u8>>,
}

impl Part {
    /// Parses header lines, each ended by CRLF; `None` if they do not name a form field.
    ///
    /// Fields other than Content-Disposition and Content-Type are ignored (RFC 7578 4.8).
    pub(in crate::http) fn parse(head: &[u8]) -> Result<Option<Part>, MultipartError> {
        let mut disposition = None;
        let mut content_type = None;
        for line in head.split_inclusive(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r\n").ok_or(MultipartError::Header)?;
            if memchr3(b'\r', b'\n', 0, line).is_some() {
                return Err(MultipartError::Header);
            }
            let (name, value) = split_once(line, b':').ok_or(MultipartError::Header)?;
            if !is_token(name) {
                return Err(MultipartError::Header);
            }
            let known = match () {
                _ if name.eq_ignore_ascii_case(b"Content-Disposition") => &mut disposition,
                _ if name.eq_ignore_ascii_case(b"Content-Type") => &mut content_type,
                // RFC 2045 6.2: these three mean that the data is not encoded.
                _ if name.eq_ignore_ascii_case(b"Content-Transfer-Encoding") => {
                    let plain = [&b"7bit"[..], b"8bit", b"binary"];
                    match plain.iter().any(|name| trim(value).eq_ignore_ascii_case(name)) {
                        true => continue,
                        false => return Err(MultipartError::TransferEncoding),
                    }
                }
                _ => continue,
            };
            if known.replace(trim(value)).is_some() {
                return Err(MultipartError::Header);
            }
        }
        let Some(disposition) = disposition else { return Ok(None) };
        let ContentDisposition { is_form_data, name, file_name } =
            ContentDisposition::parse(disposition).map_err(|_| MultipartError::Header)?;
        let content_type = content_type.map(<[u8]>::to_vec);
        let name = name.filter(|_| is_form_data);
        Ok(name.map(|field_name| Part { field_name, file_name, content_type }))
    }
}
