//! Formats untrusted bytes for the log; escapes are `\xHH`.

use std::fmt::Write as _;

use crate::server::ipc::request_record::Opening;

/// `bytes` in printable ASCII. The backslash is escaped, too, so that the result is unambiguous.
pub fn ascii(bytes: &[u8]) -> Vec<u8> {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => escape(&mut text, &[byte]),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => escape(&mut text, &[byte]),
        }
    }
    text.into_bytes()
}

/// So many of something: `1 line`, `2 lines`.
pub fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Whether one or more were: the verb after [`counted`].
pub fn were(count: u64) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

/// Method and path of a request: what follows the path may be confidential.
pub fn path_of(request: &Opening<'_>) -> String {
    shown(request.line.split(|byte| *byte == b'?').next().unwrap_or_default())
}

/// The id of a request, if it has one, after a space.
pub fn id_of(request: &Opening<'_>) -> String {
    request.names.with_id(|id| match id {
        [] => String::new(),
        id => format!(" [{}]", shown(id)),
    })
}

/// A request that was being handled: method, target, client, age, and id if it has one.
///
/// `now`: microseconds of the monotonic clock.
pub fn handled(request: &Opening<'_>, now: u64) -> String {
    let what = shown(request.line);
    let who = match request.client {
        Some(client) if client.port() == 0 => client.ip().to_string(),
        Some(client) => client.to_string(),
        None => "a local socket".to_owned(),
    };
    let age = now.saturating_sub(request.begun);
    let id = id_of(request);
    format!("{what} from {who}, for {}.{:03} s{id}", age / 1_000_000, age % 1_000_000 / 1000)
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8(ascii(bytes)).unwrap_or_default()
}

/// A line written by an application. UTF-8 stays; other bytes, and control characters except tabs,
/// which could control the terminal, are escaped.
pub fn line(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() && character != '\t' {
                escape(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(character);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_counted_in_the_singular() {
        let counts = [0, 1, 2].map(|count| format!("{} {}", counted(count, "line"), were(count)));
        assert_eq!(counts, ["0 lines were", "1 line was", "2 lines were"]);
    }

    #[test]
    fn ascii_escapes_all_but_printable_characters() {
        assert_eq!(ascii(b"GET /a?b=%20~"), b"GET /a?b=%20~");
        assert_eq!(ascii(b"/\xe4\xc3\xa4\\\x1b\n\x7f"), br"/\xE4\xC3\xA4\x5C\x1B\x0A\x7F");
    }

    #[test]
    fn lines_keep_utf8_and_tabs() {
        assert_eq!(line("a\tb \u{e4} \u{1f319} \\".as_bytes()), "a\tb \u{e4} \u{1f319} \\");
        assert_eq!(
            line(b"\xe4 \x1b[31m\r\0 \xc3 \xc2\x9b"),
            r"\xE4 \x1B[31m\x0D\x00 \xC3 \xC2\x9B"
        );
    }
}
