//! The headers of a part.

use memchr::memchr3;

use super::Error;
use crate::http::head::is_token;
use crate::http::list::trim;
use crate::http::media_type::MediaType;
use crate::http::params::split_once;

/// What the headers of a part say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Parameter `name` of Content-Disposition.
    pub field_name: Vec<u8>,
    /// Parameter `filename` of Content-Disposition, for files. It is the client's: it may hold
    /// slashes and line ends. `filename*` is not used in forms (RFC 7578 4.2).
    pub file_name: Option<Vec<u8>>,
    /// The Content-Type as it was sent.
    pub content_type: Option<Vec<u8>>,
}

impl Part {
    /// Reads header lines, each ended by CRLF; None if they do not name a form field.
    ///
    /// Fields other than Content-Disposition and Content-Type are ignored (RFC 7578 4.8).
    pub(super) fn parse(head: &[u8]) -> Result<Option<Part>, Error> {
        let mut disposition = None;
        let mut content_type = None;
        for line in head.split_inclusive(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r\n").ok_or(Error::Header)?;
            if memchr3(b'\r', b'\n', 0, line).is_some() {
                return Err(Error::Header);
            }
            let (name, value) = split_once(line, b':').ok_or(Error::Header)?;
            if !is_token(name) {
                return Err(Error::Header);
            }
            let known = match () {
                _ if name.eq_ignore_ascii_case(b"Content-Disposition") => &mut disposition,
                _ if name.eq_ignore_ascii_case(b"Content-Type") => &mut content_type,
                _ if name.eq_ignore_ascii_case(b"Content-Transfer-Encoding") => {
                    return Err(Error::TransferEncoding);
                }
                _ => continue,
            };
            if known.replace(trim(value)).is_some() {
                return Err(Error::Header);
            }
        }
        let Some(part) = disposition.map(named).transpose()?.flatten() else { return Ok(None) };
        Ok(Some(Part { content_type: content_type.map(<[u8]>::to_vec), ..part }))
    }
}

/// The part that a Content-Disposition names; None if it has no name or is not of a form.
fn named(disposition: &[u8]) -> Result<Option<Part>, Error> {
    let disposition = MediaType::parse(disposition);
    let (mut field_name, mut file_name) = (None, None);
    for parameter in disposition.parameters() {
        let parameter = parameter.map_err(|_| Error::Header)?;
        let known = match () {
            _ if parameter.is("name") => &mut field_name,
            _ if parameter.is("filename") => &mut file_name,
            _ => continue,
        };
        if known.replace(parameter.form_value().into_owned()).is_some() {
            return Err(Error::Header);
        }
    }
    let field_name = field_name.filter(|_| disposition.is("form-data"));
    Ok(field_name.map(|field_name| Part { field_name, file_name, content_type: None }))
}
