//! The Content-Disposition of a part (RFC 7578 4.2), as user agents write it.
//!
//! | sent | value | by |
//! |---|---|---|
//! | `"a%22b"` | `a"b` | user agents: `"`, CR and LF are `%22`, `%0D` and `%0A`, nothing else is escaped (WHATWG HTML, "multipart/form-data encoding algorithm") |
//! | `"a\"` | `a\` | the same: a backslash is one, also before the closing quote |
//! | `"a\"b\\c"` | `a"b\c` | older clients with quoted pairs (RFC 822 3.3) |
//! | `a b.txt` | `a b.txt` | older clients without quotes |
//!
//! A quote closes the value if the end or a semicolon follows it. Any other quote must follow a
//! backslash, and shows that the value uses quoted pairs. Anything else is refused: recipients
//! would disagree about the name.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter};

use crate::http::wire::head::is_token_byte;
use crate::http::wire::list::trim;

/// A parsed Content-Disposition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContentDisposition {
    /// Whether its type is `form-data`.
    pub is_form_data: bool,
    /// Parameter `name`.
    pub name: Option<Vec<u8>>,
    /// Parameter `filename`. `filename*` must not be used in forms (RFC 7578 4.2): it is ignored.
    pub file_name: Option<Vec<u8>>,
}

/// The parameters are malformed, or one of the two is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedDisposition;

impl ContentDisposition {
    /// Parses the value of the field, which contains no CR, LF or NUL. Linear in its length.
    pub fn parse(value: &[u8]) -> Result<ContentDisposition, MalformedDisposition> {
        let (kind, mut rest) = value.split_at(memchr(b';', value).unwrap_or(value.len()));
        let is_form_data = trim(kind).eq_ignore_ascii_case(b"form-data");
        let mut disposition = ContentDisposition { is_form_data, name: None, file_name: None };
        while let Some(text) = next_parameter(rest) {
            let (name, (value, tail)) = parameter(text).ok_or(MalformedDisposition)?;
            rest = tail;
            let known = match () {
                () if name.eq_ignore_ascii_case(b"name") => &mut disposition.name,
                () if name.eq_ignore_ascii_case(b"filename") => &mut disposition.file_name,
                () => continue,
            };
            if known.replace(value.into_owned()).is_some() {
                return Err(MalformedDisposition);
            }
        }
        Ok(disposition)
    }
}

/// The text after semicolons and blanks; `None` at the end. `rest` is empty or begins with one of
/// them.
fn next_parameter(rest: &[u8]) -> Option<&[u8]> {
    let start = rest.iter().position(|byte| !matches!(byte, b';' | b' ' | b'\t'))?;
    rest.get(start..)
}

/// A value, and the text after it.
type ParameterValue<'a> = (Cow<'a, [u8]>, &'a [u8]);

/// The name and the value of the parameter at the beginning of `text`.
fn parameter(text: &[u8]) -> Option<(&[u8], ParameterValue<'_>)> {
    let end = text.iter().position(|byte| !is_token_byte(*byte))?;
    let (name, tail) = text.split_at_checked(end)?;
    let tail = tail.strip_prefix(b"=")?;
    let value = match tail.strip_prefix(b"\"") {
        Some(tail) => quoted(tail)?,
        None => bare(tail)?,
    };
    (!name.is_empty()).then_some((name, value))
}

fn bare(text: &[u8]) -> Option<ParameterValue<'_>> {
    let (value, rest) = text.split_at_checked(memchr(b';', text).unwrap_or(text.len()))?;
    let value = trim(value);
    let valid = !value.is_empty() && !value.iter().any(|byte| matches!(byte, 0..b' ' | b'"' | 127));
    valid.then_some((Cow::Borrowed(value), rest))
}

/// The value after an opening quote, and the text after the closing one.
fn quoted(text: &[u8]) -> Option<ParameterValue<'_>> {
    let mut pairs = false;
    for position in memchr_iter(b'"', text) {
        let (value, rest) = (text.get(..position)?, text.get(position + 1..)?);
        let backslashes = value.iter().rev().take_while(|&&byte| byte == b'\\').count();
        let escaped = backslashes % 2 == 1;
        let next = rest.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
        if matches!(next, None | Some(b';')) && !(pairs && escaped) {
            let escape = if pairs { quoted_pair } else { percent_escape };
            return Some((decode(value, escape), rest));
        }
        if !escaped {
            return None;
        }
        pairs = true;
    }
    None
}

/// An escape at the beginning of a text: the byte it represents, and the rest.
type Escape = fn(&[u8]) -> Option<(u8, &[u8])>;

fn quoted_pair(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'\\', byte @ (b'"' | b'\\'), rest @ ..] => Some((*byte, rest)),
        _ => None,
    }
}

fn percent_escape(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'%', b'2', b'2', rest @ ..] => Some((b'"', rest)),
        [b'%', b'0', b'D' | b'd', rest @ ..] => Some((b'\r', rest)),
        [b'%', b'0', b'A' | b'a', rest @ ..] => Some((b'\n', rest)),
        _ => None,
    }
}

fn decode(text: &[u8], escape: Escape) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'\\')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, after) = escape(rest).unwrap_or((first, tail));
        decoded.push(byte);
        rest = after;
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file_name(value: &str) -> Result<String, MalformedDisposition> {
        let value = format!("form-data; name=a; filename={value}");
        let disposition = ContentDisposition::parse(value.as_bytes())?;
        Ok(String::from_utf8(disposition.file_name.unwrap()).unwrap())
    }

    fn name(value: &str) -> Option<String> {
        let name = ContentDisposition::parse(value.as_bytes()).unwrap().name?;
        Some(String::from_utf8(name).unwrap())
    }

    #[test]
    fn the_kind_and_names_of_parameters_compare_in_any_case() {
        let found =
            ContentDisposition::parse(b"Form-Data ;; NAME=\"a\" ; x=y;fileName=b;").unwrap();
        let text = |text: &[u8]| Some(text.to_vec());
        let expected =
            ContentDisposition { is_form_data: true, name: text(b"a"), file_name: text(b"b") };
        assert_eq!(found, expected);
        assert!(!ContentDisposition::parse(b"attachment; name=a").unwrap().is_form_data);
    }

    #[test]
    fn user_agents_escape_quotes_and_line_ends_alone() {
        assert_eq!(file_name(r#""%22a%0D%0a%22""#), Ok("\"a\r\n\"".into()));
        assert_eq!(file_name(r#""100%25%20%2""#), Ok("100%25%20%2".into()));
        for (sent, value) in [
            (r#""end\""#, r"end\"),
            (r#""end\" ; x=y"#, r"end\"),
            (r#""end\\""#, r"end\\"),
            (r#""\""#, r"\"),
            (r#""C:\\dir\name""#, r"C:\\dir\name"),
            (r#""a; b.txt""#, "a; b.txt"),
        ] {
            assert_eq!(file_name(sent), Ok(value.into()), "{sent}");
        }
    }

    #[test]
    fn a_quote_within_the_value_proves_quoted_pairs() {
        for (sent, value) in [
            (r#""a\"b.txt""#, r#"a"b.txt"#),
            (r#""a\"""#, r#"a""#),
            (r#""\"a\"""#, r#""a""#),
            (r#""a\"b\\c\d%22""#, r#"a"b\c\d%22"#),
            (r#""a\"b\"; c""#, r#"a"b"; c"#),
            (r#""a\"b\\""#, r#"a"b\"#),
        ] {
            assert_eq!(file_name(sent), Ok(value.into()), "{sent}");
        }
    }

    #[test]
    fn values_without_quotes_go_on_to_the_semicolon() {
        assert_eq!(file_name("my file.txt ; x=y"), Ok("my file.txt".into()));
        assert_eq!(file_name(r"C:\a=b"), Ok(r"C:\a=b".into()));
        assert_eq!(name("form-data; name=field one; filename=x"), Some("field one".into()));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for sent in [
            r#""a"b.txt""#,
            r#""a\\"b""#,
            r#""a\"; x""#,
            r#""a\"; filename="b""#,
            r#""a\"; filename=b""#,
            r#""a\"b\""#,
            r#""a"#,
            r#"a"b"#,
            "a\u{1}b",
            "",
            "a; filename=b",
            "a; FileName=\"a\"",
            "a; b",
            "a; =b",
            "a; b =c",
        ] {
            assert_eq!(file_name(sent), Err(MalformedDisposition), "{sent}");
        }
    }

    #[test]
    fn the_extended_file_name_is_ignored() {
        assert_eq!(file_name("\"x\"; filename*=UTF-8''y%2f"), Ok("x".into()));
        assert_eq!(
            ContentDisposition::parse(b"form-data; filename*=UTF-8''y").unwrap().file_name,
            None
        );
    }

    proptest! {
        /// What a user agent sends for a name is read as that name, unless it holds an escape itself.
        #[test]
        fn names_of_user_agents_come_back(name in "[a;=\\\\\" \r\n\u{e4}.]{0,16}") {
            let escaped = name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
            prop_assert_eq!(file_name(&format!("\"{escaped}\"")), Ok(name));
        }

        /// What older clients send for a name is read as that name, or refused.
        #[test]
        fn names_in_quoted_pairs_come_back_if_they_hold_a_quote(name in "[a;= .]{0,6}\"[a;=\\\\\" .]{0,9}") {
            let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(found) = file_name(&format!("\"{escaped}\"")) {
                prop_assert_eq!(found, name);
            }
        }
    }
}
