//! Media types and the parameters that follow them.
//!
//! Sources: RFC 9110 5.6.6 (parameters), 8.3.1 (media types).

use std::borrow::Cow;

use memchr::memchr;

use super::head::is_token_byte;
use super::list::trim;

/// A value such as `text/html; charset=utf-8`.
#[derive(Clone, Copy, Debug)]
pub struct MediaType<'a> {
    essence: &'a [u8],
    parameters: &'a [u8],
}

/// The parameters are not of the form `name=value` or `name="value"`, separated by `;`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedParameters;

impl<'a> MediaType<'a> {
    /// Splits a header value. Never fails, since the type is only compared.
    pub fn parse(value: &'a [u8]) -> MediaType<'a> {
        let end = memchr(b';', value).unwrap_or(value.len());
        let (essence, parameters) = value.split_at(end);
        MediaType { essence: trim(essence), parameters }
    }

    /// Whether it is the type `essence`, for example `multipart/form-data`, case-insensitively.
    pub fn is(&self, essence: &str) -> bool {
        self.essence.eq_ignore_ascii_case(essence.as_bytes())
    }

    /// The parameters in their order, linear in their length; the last item may be an error.
    pub fn parameters(&self) -> Parameters<'a> {
        Parameters { rest: self.parameters }
    }

    /// The value of the parameter `name` (case-insensitive), `None` if there is none.
    ///
    /// A repeated parameter is malformed: recipients may disagree about which one counts.
    pub fn parameter(&self, name: &str) -> Result<Option<Cow<'a, [u8]>>, MalformedParameters> {
        let mut found = None;
        for parameter in self.parameters() {
            let parameter = parameter?;
            if parameter.is(name) && found.replace(parameter.value()).is_some() {
                return Err(MalformedParameters);
            }
        }
        Ok(found)
    }
}

/// A parameter as sent.
#[derive(Clone, Copy, Debug)]
pub struct Parameter<'a> {
    name: &'a [u8],
    value: &'a [u8],
    quoted: bool,
}

impl<'a> Parameter<'a> {
    /// Whether the name is `name`, case-insensitively.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value without its quotes. A backslash escapes a quote or a backslash; before any other
    /// byte it is literal (`"C:\dir\name"`).
    pub fn value(&self) -> Cow<'a, [u8]> {
        if !self.quoted || memchr(b'\\', self.value).is_none() {
            return Cow::Borrowed(self.value);
        }
        let mut value = Vec::with_capacity(self.value.len());
        let mut rest = self.value.iter();
        while let Some(&byte) = rest.next() {
            match (byte, rest.as_slice().first()) {
                (b'\\', Some(&quoted @ (b'"' | b'\\'))) => {
                    value.push(quoted);
                    rest.next();
                }
                _ => value.push(byte),
            }
        }
        Cow::Owned(value)
    }
}

/// Iterator over the parameters of a value.
#[derive(Clone, Debug)]
pub struct Parameters<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<Parameter<'a>, MalformedParameters>;

    fn next(&mut self) -> Option<Self::Item> {
        // RFC 9110 5.6.6: parameters = *( OWS ";" OWS [ parameter ] )
        let mut rest = trim(self.rest);
        while let Some(tail) = rest.strip_prefix(b";") {
            rest = trim(tail);
        }
        if rest.is_empty() {
            self.rest = rest;
            return None;
        }
        match parameter(rest) {
            Some((parameter, rest)) => {
                self.rest = rest;
                Some(Ok(parameter))
            }
            None => {
                self.rest = b"";
                Some(Err(MalformedParameters))
            }
        }
    }
}

/// The parameter at the beginning of `text`, and the rest, which is empty or begins with `;`.
fn parameter(text: &[u8]) -> Option<(Parameter<'_>, &[u8])> {
    let (name, tail) =
        text.split_at_checked(text.iter().position(|byte| !is_token_byte(*byte))?)?;
    let tail = tail.strip_prefix(b"=")?;
    let (value, rest, quoted) = match tail.strip_prefix(b"\"") {
        Some(tail) => {
            let (value, rest) = tail.split_at_checked(closing_quote(tail)?)?;
            (value, rest.get(1..)?, true)
        }
        None => {
            let end = memchr(b';', tail).unwrap_or(tail.len());
            let (value, rest) = tail.split_at_checked(end)?;
            (trim(value), rest, false)
        }
    };
    // Values without quotes should be tokens, but boundaries with `/`, `:` or `=` are common.
    let valid = quoted || !value.is_empty() && value.iter().all(|&byte| is_bare(byte));
    let separated = matches!(trim(rest).first(), None | Some(b';'));
    (!name.is_empty() && valid && separated).then_some((Parameter { name, value, quoted }, rest))
}

/// The position of the closing quote of the quoted string that `text` continues.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|&byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn is_bare(byte: u8) -> bool {
    !matches!(byte, 0..=b' ' | b'"' | 127)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(value: &str, name: &str) -> Result<Option<String>, MalformedParameters> {
        let found = MediaType::parse(value.as_bytes()).parameter(name)?;
        Ok(found.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    #[test]
    fn types_compare_in_any_case() {
        let value = MediaType::parse(b" Text/HTML ;charset=utf-8");
        assert!(value.is("text/html"));
        assert!(!value.is("text/plain"));
    }

    #[test]
    fn parameters_have_names_in_any_case_and_quoted_or_bare_values() {
        let value = "a/b; x=1;; Charset=\"utf-8\" ; y=\"a;b\\\"c\";";
        assert_eq!(parameter(value, "charset"), Ok(Some("utf-8".into())));
        assert_eq!(parameter(value, "y"), Ok(Some("a;b\"c".into())));
        assert_eq!(parameter(value, "z"), Ok(None));
    }

    #[test]
    fn bare_boundaries_may_hold_more_than_tokens() {
        assert_eq!(parameter("a/b; x=/a:b=c, ;y=1", "x"), Ok(Some("/a:b=c,".into())));
    }

    #[test]
    fn malformed_parameters_are_refused() {
        for value in ["x", "x=", "=1", "x=\"1", "x=\"1\"2", "x=a b", "x =1", "x=1;x=1", "x=\u{1}"] {
            assert_eq!(
                parameter(&format!("a/b;{value}"), "x"),
                Err(MalformedParameters),
                "{value}"
            );
        }
    }

    #[test]
    fn backslashes_quote_only_quotes_and_backslashes() {
        let value = r#"a/b; x="C:\dir\name""#;
        assert_eq!(parameter(value, "x"), Ok(Some(r"C:\dir\name".into())));
        assert_eq!(parameter(r#"a/b; x="a\"b\\c""#, "x"), Ok(Some(r#"a"b\c"#.into())));
    }
}
