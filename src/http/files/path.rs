//! The path of a request as a path below a folder (pure).

use std::borrow::Cow;

use crate::http::wire::escape::{Plus, decode};

/// The only name with a leading dot that is served by default: RFC 8615.
const WELL_KNOWN: &[u8] = b".well-known";

/// A path below a folder, decoded once, without empty steps and dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath {
    /// Names with slashes between them; "." for the folder itself.
    pub relative: Vec<u8>,
    /// It ends with a slash, or is the folder itself: only a folder can have it.
    pub is_folder: bool,
}

impl FilePath {
    /// Reads the path of a URI, without the slash in front. None if nothing can have it: it has an encoded slash, a NUL,
    /// a backslash, "." or ".." as a name, or a `hidden` name (with a dot in front) that is not served.
    pub fn of_uri(path: &[u8], serves_hidden: bool) -> Option<FilePath> {
        let mut relative = Vec::with_capacity(path.len());
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let name: Cow<'_, [u8]> = decode(name, Plus::Literal);
            let is_dot = matches!(&name[..], b"." | b"..");
            let is_hidden = name.first() == Some(&b'.') && name != WELL_KNOWN;
            let is_odd = name.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0));
            if is_dot || is_odd || is_hidden && !serves_hidden {
                return None;
            }
            if !relative.is_empty() {
                relative.push(b'/');
            }
            relative.extend_from_slice(&name);
        }
        let is_folder = relative.is_empty() || path.last() == Some(&b'/');
        if relative.is_empty() {
            relative.push(b'.');
        }
        Some(FilePath { relative, is_folder })
    }

    /// The last name.
    pub fn name(&self) -> &[u8] {
        name_of(&self.relative)
    }
}

/// The last name of a path.
pub fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Option<(String, bool)> {
        let path = FilePath::of_uri(text.as_bytes(), false)?;
        Some((String::from_utf8_lossy(&path.relative).into_owned(), path.is_folder))
    }

    #[test]
    fn a_path_is_decoded_once() {
        for (text, expected, is_folder) in [
            ("", ".", true),
            ("/", ".", true),
            ("a/b.txt", "a/b.txt", false),
            ("a//b/", "a/b", true),
            ("a%20b", "a b", false),
            ("a+b", "a+b", false),
            ("%2525", "%25", false),
            ("caf%C3%A9", "café", false),
            (".well-known/x", ".well-known/x", false),
            ("100%", "100%", false),
        ] {
            assert_eq!(path(text), Some((expected.into(), is_folder)), "{text}");
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_nothing() {
        for text in [
            "..",
            "../a",
            "a/..",
            "a/../b",
            "%2e%2e/a",
            ".%2E",
            ".",
            "./a",
            "a/.",
            "a%2fb",
            "a%2F..",
            "a%00b",
            "a%5Cb",
            "..\\a",
            ".git/config",
            "a/.env",
            ".%67it",
            "...a",
        ] {
            assert_eq!(path(text), None, "{text}");
        }
        assert!(FilePath::of_uri(b".git/config", true).is_some());
        assert!(FilePath::of_uri(b"a/..", true).is_none());
    }

    proptest! {
        #[test]
        fn no_path_leads_out(text in "([a./%\\\\]|%2[eEfF]|%5c|%00){0,24}", hidden: bool) {
            if let Some(path) = FilePath::of_uri(text.as_bytes(), hidden) {
                prop_assert!(!path.relative.starts_with(b"/") && !path.relative.contains(&0));
                let names: Vec<&[u8]> = path.relative.split(|byte| *byte == b'/').collect();
                prop_assert!(path.relative == b"." || names.iter().all(|n| *n != b"." && *n != b".." && !n.is_empty()));
            }
        }
    }
}
