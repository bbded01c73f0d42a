//! References, e.g. that of a Location field (RFC 3986 5.2).

use std::borrow::Cow;

use memchr::memrchr;

use super::target::{escape, remove_dot_segments, split_query, strip_fragment};
use super::{Endpoint, Url, UrlError, check_characters, split_scheme};

/// The URL that a reference stands for where `base` is the URL of the document.
///
/// A reference never leads to another local socket: what a server says must not open files
/// of this machine.
///
/// Blanks, which many servers send as they are, are escaped, as browsers do it.
pub fn join(base: &Url, reference: &[u8]) -> Result<Url, UrlError> {
    let reference = &*escape_blanks(reference);
    check_characters(reference)?;
    let absolute = match (split_scheme(reference), reference) {
        (Some((scheme, _)), _) if scheme.eq_ignore_ascii_case(b"unix") => {
            return Err(UrlError::Scheme);
        }
        (Some(_), _) => Some(Url::parse(reference)?),
        (None, [b'/', b'/', rest @ ..]) => Some(Url::network(rest, base.secure)?),
        _ => None,
    };
    if let Some(url) = absolute {
        // A server on a local socket refers to itself by the name in the request.
        let is_local = matches!(base.endpoint, Endpoint::Local(_));
        let same = is_local && !url.secure && url.authority == base.authority;
        return Ok(if same { Url { target: url.target, ..base.clone() } } else { url });
    }
    Ok(Url { target: join_target(base, strip_fragment(reference)), ..base.clone() })
}

/// RFC 3986 5.2.2, for a reference without scheme and authority.
fn join_target(base: &Url, reference: &[u8]) -> Vec<u8> {
    let (base_path, _) = split_query(&base.target);
    let (path, query) = split_query(reference);
    if path.is_empty() {
        return match query {
            b"" => base.target.clone(),
            query => [base_path, &escape(query)].concat(),
        };
    }
    let merged = match path {
        [b'/', ..] => path.to_vec(),
        _ => {
            let folder = memrchr(b'/', base_path).map_or(0, |slash| slash + 1);
            [base_path.get(..folder).unwrap_or_default(), path].concat()
        }
    };
    [escape(&remove_dot_segments(&merged)), escape(query)].concat()
}

fn escape_blanks(reference: &[u8]) -> Cow<'_, [u8]> {
    if !reference.contains(&b' ') {
        return reference.into();
    }
    reference.split(|&byte| byte == b' ').collect::<Vec<_>>().join(&b"%20"[..]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> Url {
        Url::parse(text.as_bytes()).unwrap()
    }

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp(host.to_owned(), port)
    }

    fn target(url: &Url) -> &str {
        std::str::from_utf8(&url.target).unwrap()
    }

    /// RFC 3986 5.4
    #[test]
    fn references_are_resolved() {
        let base = url("http://a/b/c/d;p?q");
        for (reference, expected) in [
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("?y", "/b/c/d;p?y"),
            ("g?y", "/b/c/g?y"),
            ("#s", "/b/c/d;p?q"),
            ("g#s", "/b/c/g"),
            (";x", "/b/c/;x"),
            ("", "/b/c/d;p?q"),
            (".", "/b/c/"),
            ("..", "/b/"),
            ("../g", "/b/g"),
            ("../..", "/"),
            ("../../../g", "/g"),
            ("/./g", "/g"),
            ("/../g", "/g"),
            ("g.", "/b/c/g."),
            ("./g/.", "/b/c/g/"),
            ("g;x=1/../y", "/b/c/y"),
            ("g?y/../x", "/b/c/g?y/../x"),
        ] {
            let joined = join(&base, reference.as_bytes()).unwrap();
            assert_eq!(
                (target(&joined), &joined.endpoint),
                (expected, &tcp("a", 80)),
                "{reference}"
            );
        }
        assert_eq!(join(&base, b"//h/x").unwrap(), url("http://h/x"));
        assert_eq!(join(&base, b"http://h:1/x").unwrap(), url("http://h:1/x"));
        assert_eq!(join(&base, b"https://h/x").unwrap(), url("https://h/x"));
        assert_eq!(join(&url("https://a/b"), b"//h/x").unwrap(), url("https://h/x"));
        assert_eq!(join(&url("https://a/b"), b"/x").unwrap(), url("https://a/x"));
        assert_eq!(join(&url("https://a/b"), b"http://a/x").unwrap(), url("http://a/x"));
        assert_eq!(target(&join(&base, b"a b?c d").unwrap()), "/b/c/a%20b?c%20d");
        assert!(join(&base, b"a\tb").is_err());
        assert!(join(&base, b"http://a b/").is_err());
    }

    #[test]
    fn a_reference_never_leads_to_another_local_socket() {
        let base = url("unix:/run/a.sock:/b/c");
        assert_eq!(join(&base, b"d").unwrap(), url("unix:/run/a.sock:/b/d"));
        assert_eq!(join(&base, b"http://localhost/x").unwrap(), url("unix:/run/a.sock:/x"));
        assert_eq!(join(&base, b"http://h/x").unwrap().endpoint, tcp("h", 80));
        assert_eq!(join(&base, b"https://localhost/x").unwrap(), url("https://localhost/x"));
        assert_eq!(join(&base, b"unix:/run/b.sock:/"), Err(UrlError::Scheme));
        assert_eq!(join(&url("http://a/"), b"unix:/run/b.sock:/"), Err(UrlError::Scheme));
    }

    proptest! {
        #[test]
        fn no_reference_can_break_the_request_line(reference in "[a/.?#: \\r\\n\u{e4}]{0,20}") {
            if let Ok(url) = join(&url("http://a/b/c"), reference.as_bytes()) {
                prop_assert!(url.target.starts_with(b"/"));
                prop_assert!(url.target.iter().all(|&byte| byte > b' ' && byte < 0x7f));
            }
        }
    }
}
