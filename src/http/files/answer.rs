//! What a request gets of a file (pure).
//!
//! Source: RFC 9110 13.2.2 (the order of conditions), 14.2 (ranges), 15.3.7, 15.4.5, 15.5.13, 15.5.17.

use std::borrow::Cow;
use std::time::SystemTime;

use crate::http::wire::conditional::{Conditions, Outcome, Validators, allows_range, evaluate};
use crate::http::wire::range::{ByteRange, Ranges, select};
use crate::http::wire::scan::is_name;

/// Parts of a file together, beyond which the whole file is sent instead: they are copied into memory.
const MOST_IN_PARTS: u64 = 1024 * 1024;

/// What a request wants of a file. Fields that it does not have are empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a [u8],
    /// Its conditions.
    pub conditions: Conditions<'a>,
    /// Range.
    pub range: &'a [u8],
    /// If-Range.
    pub if_range: &'a [u8],
}

/// The header fields for that (RFC 9110 13.1 and 14.2): the values of each as one list
/// (5.3), empty if it is missing.
#[derive(Debug, Default)]
pub struct AskingFields<'a> {
    if_match: Cow<'a, [u8]>,
    if_none_match: Cow<'a, [u8]>,
    if_unmodified_since: Cow<'a, [u8]>,
    if_modified_since: Cow<'a, [u8]>,
    range: Cow<'a, [u8]>,
    if_range: Cow<'a, [u8]>,
}

impl<'a> AskingFields<'a> {
    /// Those among the names and values of all fields. None if there are none, as in most requests.
    pub fn among(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Self> {
        let (mut asking, mut is_asking) = (Self::default(), false);
        for (name, value) in fields {
            let list = match name.len() {
                5 if is_name(name, b"Range") => &mut asking.range,
                8 if is_name(name, b"If-Match") => &mut asking.if_match,
                8 if is_name(name, b"If-Range") => &mut asking.if_range,
                13 if is_name(name, b"If-None-Match") => &mut asking.if_none_match,
                17 if is_name(name, b"If-Modified-Since") => &mut asking.if_modified_since,
                19 if is_name(name, b"If-Unmodified-Since") => &mut asking.if_unmodified_since,
                _ => continue,
            };
            is_asking = true;
            if list.is_empty() {
                *list = Cow::Borrowed(value);
            } else {
                list.to_mut().extend_from_slice(&[b", ", value].concat());
            }
        }
        is_asking.then_some(asking)
    }

    /// What a request with this method asks for.
    pub fn asked<'b>(&'b self, method: &'b [u8]) -> Asked<'b> {
        let AskingFields {
            if_match, if_none_match, if_unmodified_since, if_modified_since, ..
        } = self;
        let conditions =
            Conditions { if_match, if_none_match, if_unmodified_since, if_modified_since };
        Asked { method, conditions, range: &self.range, if_range: &self.if_range }
    }
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileAnswer {
    /// 200, all of it.
    Whole,
    /// 206, a part.
    Part(ByteRange),
    /// 206, several parts in one body.
    Parts(Vec<ByteRange>),
    /// 304: it has it already.
    NotModified,
    /// 412: it wants another version.
    PreconditionFailed,
    /// 416: it wants parts that are not there.
    Unsatisfiable,
}

impl FileAnswer {
    /// Decides what a request gets of a file of `size` bytes, at the time `now`. Conditions and ranges count for GET,
    /// conditions for HEAD; other methods get all of it.
    pub fn to(
        asked: &Asked<'_>,
        validators: &Validators<'_>,
        size: u64,
        now: SystemTime,
    ) -> FileAnswer {
        if !matches!(asked.method, b"GET" | b"HEAD") {
            return FileAnswer::Whole;
        }
        match evaluate(&asked.conditions, validators) {
            Outcome::NotModified => return FileAnswer::NotModified,
            Outcome::Failed => return FileAnswer::PreconditionFailed,
            Outcome::Proceed => {}
        }
        let ranged = asked.method == b"GET" && !asked.range.is_empty();
        if !ranged || !allows_range(asked.if_range, validators, now) {
            return FileAnswer::Whole;
        }
        match select(asked.range, size) {
            Ranges::Whole => FileAnswer::Whole,
            Ranges::Unsatisfiable => FileAnswer::Unsatisfiable,
            Ranges::Parts(spans) => match spans[..] {
                [span] => FileAnswer::Part(span),
                _ if spans.iter().map(|span| span.length).sum::<u64>() > MOST_IN_PARTS => {
                    FileAnswer::Whole
                }
                _ => FileAnswer::Parts(spans),
            },
        }
    }

    /// The status line's code and reason.
    pub fn status(&self) -> &'static str {
        match self {
            FileAnswer::Whole => "200 OK",
            FileAnswer::Part(_) | FileAnswer::Parts(_) => "206 Partial Content",
            FileAnswer::NotModified => "304 Not Modified",
            FileAnswer::PreconditionFailed => "412 Precondition Failed",
            FileAnswer::Unsatisfiable => "416 Range Not Satisfiable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::conditional::date;

    const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &[u8] = b"Mon, 07 Nov 1994 08:49:37 GMT";
    const TAG: &[u8] = b"\"a\"";

    fn answer(asked: Asked<'_>) -> FileAnswer {
        let validators = Validators { tag: Some(TAG), modified: date(DATE) };
        FileAnswer::to(&asked, &validators, 100, date(LATER).unwrap())
    }

    fn get(
        conditions: Conditions<'static>,
        range: &'static str,
        if_range: &'static str,
    ) -> FileAnswer {
        let (range, if_range) = (range.as_bytes(), if_range.as_bytes());
        answer(Asked { method: b"GET", conditions, range, if_range })
    }

    const NONE: Conditions<'static> = Conditions {
        if_match: b"",
        if_none_match: b"",
        if_unmodified_since: b"",
        if_modified_since: b"",
    };

    #[test]
    fn fields_are_found_whatever_their_case_and_joined() {
        let fields: [(&[u8], &[u8]); 10] = [
            (b"Host", b"a"),
            (b"If-Modified-Since", DATE),
            (b"IF-NONE-MATCH", b""),
            (b"if-none-match", TAG),
            (b"If-None-Match", b"\"b\""),
            (b"if-match", b"*"),
            (b"If-Unmodified-Since", LATER),
            (b"RANGE", b"bytes=0-"),
            (b"if-range", TAG),
            (b"Ranges", b"x"),
        ];
        let asking = AskingFields::among(fields.into_iter()).unwrap();
        let Asked { method, conditions, range, if_range } = asking.asked(b"GET");
        assert_eq!((method, range, if_range), (&b"GET"[..], &b"bytes=0-"[..], TAG));
        assert_eq!(
            (conditions.if_match, conditions.if_none_match),
            (&b"*"[..], &b"\"a\", \"b\""[..])
        );
        assert_eq!((conditions.if_modified_since, conditions.if_unmodified_since), (DATE, LATER));
        for (name, value) in [(&b"Iffy"[..], &b"a"[..]), (b"Ranges", b"a"), (b"Host", b"a")] {
            assert!(AskingFields::among([(name, value)].into_iter()).is_none());
        }
    }

    #[test]
    fn conditions_come_before_ranges() {
        let has_it = Conditions { if_none_match: TAG, ..NONE };
        let wants_another = Conditions { if_match: b"\"b\"", ..NONE };
        assert_eq!(get(NONE, "", ""), FileAnswer::Whole);
        assert_eq!(get(has_it, "bytes=200-", ""), FileAnswer::NotModified);
        assert_eq!(get(wants_another, "bytes=0-1", ""), FileAnswer::PreconditionFailed);
        assert_eq!(
            get(Conditions { if_match: TAG, ..NONE }, "bytes=200-", ""),
            FileAnswer::Unsatisfiable
        );
    }

    #[test]
    fn a_part_is_for_who_has_the_same_version() {
        let part = FileAnswer::Part(ByteRange { start: 10, length: 90 });
        for if_range in ["", "\"a\"", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(get(NONE, "bytes=10-", if_range), part, "{if_range}");
        }
        for if_range in ["\"b\"", "W/\"a\"", "Mon, 07 Nov 1994 08:49:37 GMT", "nonsense"] {
            assert_eq!(get(NONE, "bytes=10-", if_range), FileAnswer::Whole, "{if_range}");
            assert_eq!(get(NONE, "bytes=200-", if_range), FileAnswer::Whole, "{if_range}");
        }
    }

    #[test]
    fn only_get_has_ranges_and_only_get_and_head_have_conditions() {
        let conditions = Conditions { if_none_match: TAG, ..NONE };
        let asked = |method| Asked { method, conditions, range: b"bytes=0-1", if_range: b"" };
        assert_eq!(answer(asked(b"HEAD")), FileAnswer::NotModified);
        assert_eq!(answer(asked(b"POST")), FileAnswer::Whole);
        assert_eq!(answer(Asked { conditions: NONE, ..asked(b"HEAD") }), FileAnswer::Whole);
    }

    #[test]
    fn several_parts_come_in_one_body_unless_they_are_large() {
        let spans = vec![ByteRange { start: 0, length: 2 }, ByteRange { start: 98, length: 2 }];
        assert_eq!(get(NONE, "bytes=0-1,-2", ""), FileAnswer::Parts(spans));
        let asked =
            Asked { method: b"GET", range: b"bytes=0-1048575,2000000-", ..Asked::default() };
        let validators = Validators { tag: Some(TAG), modified: None };
        assert_eq!(
            FileAnswer::to(&asked, &validators, 1 << 32, SystemTime::now()),
            FileAnswer::Whole
        );
    }
}
