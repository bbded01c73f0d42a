//! Conditional requests: whether the client has what it asks for already (pure).
//!
//! Source: RFC 9110 13.

use std::time::{Duration, SystemTime};

use super::list::trim;

/// The values of the header fields that make a request conditional; empty if they are missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions<'a> {
    /// If-Match.
    pub if_match: &'a [u8],
    /// If-None-Match.
    pub if_none_match: &'a [u8],
    /// If-Unmodified-Since.
    pub if_unmodified_since: &'a [u8],
    /// If-Modified-Since.
    pub if_modified_since: &'a [u8],
}

/// What identifies a version of a representation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// The entity tag with its quotes, perhaps weak; none if it is unknown.
    pub tag: Option<&'a [u8]>,
    /// When it was last modified.
    pub modified: Option<SystemTime>,
}

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As if the request were unconditional.
    Proceed,
    /// 304: the client has this version.
    NotModified,
    /// 412: the client wants another version.
    Failed,
}

/// Whether a text is an entity tag (RFC 9110 8.8.3).
pub fn is_tag(text: &[u8]) -> bool {
    take_tag(text).is_some_and(|(_, rest)| rest.is_empty())
}

/// A date of any of the three formats (RFC 9110 5.6.7).
pub fn date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(str::from_utf8(trim(text)).ok()?).ok()
}

/// Evaluates the conditions of a GET or HEAD request in their order of precedence (RFC 9110 13.2.2).
pub fn evaluate(conditions: &Conditions<'_>, validators: &Validators<'_>) -> Outcome {
    let newer_than = |text: &[u8]| Some(validators.modified? > date(text)?);
    if !conditions.if_match.is_empty() {
        if !matches(conditions.if_match, validators.tag, is_same_strong) {
            return Outcome::Failed;
        }
    } else if newer_than(conditions.if_unmodified_since) == Some(true) {
        return Outcome::Failed;
    }
    let has_it = if conditions.if_none_match.is_empty() {
        newer_than(conditions.if_modified_since) == Some(false)
    } else {
        matches(conditions.if_none_match, validators.tag, is_same_weak)
    };
    if has_it { Outcome::NotModified } else { Outcome::Proceed }
}

/// Whether the value of If-Range, empty if it is missing, names this version: only then is a part of it of use
/// (RFC 9110 13.1.5). A date does so if it is that of the last modification, and that was at least a second before
/// `now`.
pub fn allows_range(if_range: &[u8], validators: &Validators<'_>, now: SystemTime) -> bool {
    let text = trim(if_range);
    if text.is_empty() {
        return true;
    }
    if is_tag(text) {
        return validators.tag.is_some_and(|tag| is_same_strong(text, tag));
    }
    let is_old = |modified: SystemTime| {
        now.duration_since(modified).is_ok_and(|age| age >= Duration::from_secs(1))
    };
    validators.modified.is_some_and(|modified| date(text) == Some(modified) && is_old(modified))
}

/// Whether a list of entity tags, or `*`, includes that of the representation.
fn matches(list: &[u8], tag: Option<&[u8]>, is_same: fn(&[u8], &[u8]) -> bool) -> bool {
    if trim(list) == b"*" {
        return true;
    }
    let Some(tag) = tag else { return false };
    let mut rest = list;
    loop {
        let start = rest.iter().position(|byte| !b" \t,".contains(byte)).unwrap_or(rest.len());
        // What follows a malformed tag is not understood.
        let Some((one, after)) = take_tag(&rest[start..]) else { return false };
        if is_same(one, tag) {
            return true;
        }
        rest = after;
    }
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn is_same_weak(one: &[u8], other: &[u8]) -> bool {
    opaque(one) == opaque(other)
}

fn is_same_strong(one: &[u8], other: &[u8]) -> bool {
    one == other && one.starts_with(b"\"")
}

/// An entity tag at the beginning of a text, and what follows it.
fn take_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quoted = opaque(text);
    let inner = quoted.strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', inner)?;
    let is_part = |byte: &u8| *byte == b'!' || *byte > b'"' && *byte != 0x7f;
    let length = text.len() - quoted.len() + end + 2;
    inner[..end].iter().all(is_part).then(|| text.split_at(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &[u8] = b"Mon, 07 Nov 1994 08:49:37 GMT";

    fn none_match(list: &[u8], tag: &[u8]) -> Outcome {
        let conditions = Conditions { if_none_match: list, ..Conditions::default() };
        evaluate(&conditions, &Validators { tag: Some(tag), modified: None })
    }

    #[test]
    fn a_tag_that_the_client_has_is_not_sent_again() {
        for list in
            [&b"\"a\""[..], b"*", b"W/\"a\"", b"\"x\", \"a\"", b"\"x,y\" ,W/\"a\"", b", \"a\""]
        {
            assert_eq!(none_match(list, b"\"a\""), Outcome::NotModified, "{list:?}");
            assert_eq!(none_match(list, b"W/\"a\""), Outcome::NotModified, "{list:?}");
        }
        for list in [&b""[..], b"\"b\"", b"a", b"\"a", b"x, \"a\"", b"w/\"a\"", b"\"a \""] {
            assert_eq!(none_match(list, b"\"a\""), Outcome::Proceed, "{list:?}");
        }
    }

    #[test]
    fn if_match_compares_strongly() {
        let outcome = |list, tag| {
            let conditions = Conditions { if_match: list, ..Conditions::default() };
            evaluate(&conditions, &Validators { tag, modified: None })
        };
        assert_eq!(outcome(b"\"a\"", Some(b"\"a\"")), Outcome::Proceed);
        assert_eq!(outcome(b"*", None), Outcome::Proceed);
        assert_eq!(outcome(b"W/\"a\"", Some(b"W/\"a\"")), Outcome::Failed);
        assert_eq!(outcome(b"\"b\"", Some(b"\"a\"")), Outcome::Failed);
    }

    #[test]
    fn dates_count_where_there_is_no_tag() {
        let modified = |text, conditions: Conditions<'_>| {
            evaluate(&conditions, &Validators { tag: Some(b"\"a\""), modified: date(text) })
        };
        let since = |text| Conditions { if_modified_since: text, ..Conditions::default() };
        assert_eq!(modified(OLD, since(OLD)), Outcome::NotModified);
        assert_eq!(modified(OLD, since(NEW)), Outcome::NotModified);
        assert_eq!(modified(NEW, since(OLD)), Outcome::Proceed);
        assert_eq!(modified(NEW, since(b"soon")), Outcome::Proceed);
        let both = Conditions { if_none_match: b"\"b\"", ..since(NEW) };
        assert_eq!(modified(OLD, both), Outcome::Proceed, "the tag has precedence");
        let unmodified = |text| Conditions { if_unmodified_since: text, ..Conditions::default() };
        assert_eq!(modified(NEW, unmodified(OLD)), Outcome::Failed);
        assert_eq!(modified(OLD, unmodified(OLD)), Outcome::Proceed);
    }

    #[test]
    fn a_part_is_of_use_to_who_has_the_same_version() {
        let validators = Validators { tag: Some(b"\"a\""), modified: date(OLD) };
        let now = date(NEW).unwrap();
        for text in [&b""[..], b"\"a\"", OLD] {
            assert!(allows_range(text, &validators, now), "{text:?}");
        }
        for text in [&b"W/\"a\""[..], b"\"b\"", NEW, b"soon", b"*"] {
            assert!(!allows_range(text, &validators, now), "{text:?}");
        }
        assert!(!allows_range(OLD, &validators, date(OLD).unwrap()), "it may still change");
    }

    #[test]
    fn tags_have_quotes() {
        assert!(is_tag(b"\"\"") && is_tag(b"W/\"a\\b\"") && is_tag(b"\"\xe4\""));
        for text in [&b""[..], b"a", b"\"a\"b", b"\"a\nb\"", b"W/", b"\""] {
            assert!(!is_tag(text), "{text:?}");
        }
    }
}
