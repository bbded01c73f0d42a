//! Media types by the extensions of files' names.

use std::borrow::Cow;
use std::cell::RefCell;

use super::path::name_of;

/// What nobody knows more about.
const BYTES: &str = "application/octet-stream";

/// So many extensions are remembered.
const MOST: usize = 32;

/// The media types of a folder's files.
#[derive(Debug, Default)]
pub struct MediaTypes {
    /// Media types of extensions that precede the common ones.
    own: Vec<(Vec<u8>, String)>,
    /// What was found for the extensions that were looked for first.
    found: RefCell<Vec<(Vec<u8>, TypeOfFile)>>,
}

/// A media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeOfFile {
    /// Its name, with parameters.
    pub name: Cow<'static, str>,
    /// Whether such files become much smaller if they are compressed.
    pub is_compressible: bool,
}

impl MediaTypes {
    /// The common ones, and before them those of an application by extension.
    pub fn new(own: Vec<(Vec<u8>, String)>) -> Self {
        MediaTypes { own, found: RefCell::default() }
    }

    /// That of the file with this name.
    pub fn of(&self, file: &[u8]) -> TypeOfFile {
        let extension = extension_of(file).unwrap_or_default();
        if let Some((_, known)) = self.found.borrow().iter().find(|(known, _)| known == extension) {
            return known.clone();
        }
        let own = self.own.iter().find(|(own, _)| own.eq_ignore_ascii_case(extension));
        let name = own.map_or_else(|| media_type(file), |(_, name)| name.clone().into());
        let media_type = TypeOfFile { is_compressible: is_compressible(&name), name };
        let mut found = self.found.borrow_mut();
        if found.len() < MOST {
            found.push((extension.to_vec(), media_type.clone()));
        }
        media_type
    }
}

/// What follows the last dot of a file's name.
fn extension_of(path: &[u8]) -> Option<&[u8]> {
    let name = name_of(path);
    name.iter().rposition(|byte| *byte == b'.').map(|dot| &name[dot + 1..])
}

/// The media type of a file by the extension of its name; text is taken for UTF-8.
pub fn media_type(path: &[u8]) -> Cow<'static, str> {
    let extension = extension_of(path).and_then(|extension| str::from_utf8(extension).ok());
    let known = extension.and_then(|extension| mime_guess::from_ext(extension).first_raw());
    let known = known.unwrap_or(BYTES);
    match known {
        "text/html" => "text/html; charset=utf-8".into(),
        "text/css" => "text/css; charset=utf-8".into(),
        "text/javascript" => "text/javascript; charset=utf-8".into(),
        "text/plain" => "text/plain; charset=utf-8".into(),
        text if text.starts_with("text/") => format!("{text}; charset=utf-8").into(),
        other => other.into(),
    }
}

/// Whether files of a media type become much smaller if they are compressed.
fn is_compressible(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let (kind, subtype) = essence.split_once('/').unwrap_or((essence, ""));
    match kind {
        "image" => matches!(subtype, "svg+xml" | "bmp" | "x-icon" | "vnd.microsoft.icon"),
        "audio" | "video" => false,
        "font" => !matches!(subtype, "woff" | "woff2"),
        "application" => !matches!(
            subtype,
            "zip"
                | "gzip"
                | "x-gzip"
                | "x-7z-compressed"
                | "x-rar-compressed"
                | "zstd"
                | "x-bzip2"
                | "x-xz"
                | "pdf"
                | "font-woff"
                | "java-archive"
                | "epub+zip"
        ),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_known_by_the_extension() {
        for (path, expected) in [
            (&b"index.html"[..], "text/html; charset=utf-8"),
            (b"a/b/style.CSS", "text/css; charset=utf-8"),
            (b"app.js", "text/javascript; charset=utf-8"),
            (b"a.json", "application/json"),
            (b"a.svg", "image/svg+xml"),
            (b"a.webp", "image/webp"),
            (b"a.woff2", "font/woff2"),
            (b"a.wasm", "application/wasm"),
            (b"a.mp4", "video/mp4"),
            (b"a.tar.gz", "application/gzip"),
            (b"a.d/README", BYTES),
            (b"a.unknownextension", BYTES),
            (b"a.\xff", BYTES),
            (b"", BYTES),
        ] {
            assert_eq!(media_type(path), expected, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn pictures_and_archives_are_not_compressed_again() {
        for name in [&b"a.html"[..], b"a.js", b"a.svg", b"a.wasm", b"a.ttf", b"a.bin"] {
            assert!(is_compressible(&media_type(name)), "{}", name.escape_ascii());
        }
        for name in [&b"a.png"[..], b"a.mp4", b"a.zip", b"a.woff2", b"a.gz", b"a.ogg"] {
            assert!(!is_compressible(&media_type(name)), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn those_of_the_application_come_first_also_at_the_second_look() {
        let types = MediaTypes::new(vec![(b"lua".to_vec(), "text/x-lua".into())]);
        for _ in 0..2 {
            for (path, name, is_compressible) in [
                (&b"a.lua"[..], "text/x-lua", true),
                (b"a.LUA", "text/x-lua", true),
                (b"a.png", "image/png", false),
                (b"a", BYTES, true),
            ] {
                let expected = TypeOfFile { name: name.into(), is_compressible };
                assert_eq!(types.of(path), expected, "{}", path.escape_ascii());
            }
        }
        for index in 0..100 {
            types.of(format!("a.{index}").as_bytes());
        }
        assert_eq!(types.found.borrow().len(), MOST);
    }
}
