//! Content-Disposition: under which name a browser is to save a file (pure).
//!
//! Sources: RFC 6266, RFC 8187 3.2.

use std::fmt::Write;

/// The value of a Content-Disposition field that makes a browser save a file under that name.
///
/// Control characters and slashes become underscores. A name with other characters than those of ASCII is given twice,
/// the first time for clients that do not know RFC 8187.
pub fn attachment(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let safe: String = name
        .chars()
        .map(|char| if char.is_control() || matches!(char, '/' | '\\') { '_' } else { char })
        .collect();
    let mut value = String::from("attachment; filename=\"");
    for char in safe.chars() {
        match char {
            '"' => value.push_str("\\\""),
            // Some clients decode escapes in the plain form.
            '%' if !safe.is_ascii() => value.push('_'),
            char if char.is_ascii() => value.push(char),
            _ => value.push('_'),
        }
    }
    value.push('"');
    if !safe.is_ascii() || safe.contains(['%', '"']) {
        value.push_str("; filename*=UTF-8''");
        for byte in safe.bytes() {
            match byte {
                byte if is_attr_char(byte) => value.push(char::from(byte)),
                byte => drop(write!(value, "%{byte:02X}")),
            }
        }
    }
    value
}

/// RFC 8187 3.2.1
fn is_attr_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::attachment;

    #[test]
    fn a_name_of_any_characters_is_told() {
        for (name, expected) in [
            (&b"report.pdf"[..], "attachment; filename=\"report.pdf\""),
            (b"two words.txt", "attachment; filename=\"two words.txt\""),
            (
                "Übersicht 5%.pdf".as_bytes(),
                "attachment; filename=\"_bersicht 5_.pdf\"; filename*=UTF-8''%C3%9Cbersicht%205%25.pdf",
            ),
            (
                b"a\"b;c.txt",
                "attachment; filename=\"a\\\"b;c.txt\"; filename*=UTF-8''a%22b%3Bc.txt",
            ),
            (b"../etc\r\nSet-Cookie: x", "attachment; filename=\".._etc__Set-Cookie: x\""),
            (b"\xff", "attachment; filename=\"_\"; filename*=UTF-8''%EF%BF%BD"),
        ] {
            assert_eq!(attachment(name), expected);
        }
    }
}
