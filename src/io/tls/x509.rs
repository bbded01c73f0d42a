//! What a certificate says (pure): its time, its subject and its names. Source: RFC 5280, 4.1; X.690 for the encoding.
//! Whether it is to be believed is not decided here.

use std::fmt::Write;
use std::net::IpAddr;

use super::der::{INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, element, expect};

/// What is read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// In seconds since 1970: valid from here on.
    pub not_before: i64,
    /// In seconds since 1970: valid until here.
    pub not_after: i64,
    /// The number that its authority has given it.
    pub serial: Vec<u8>,
    /// The subject as text, e.g. `CN=a.example,O=Example`.
    pub subject: String,
    /// The host names and addresses that it is for.
    pub names: Vec<String>,
}

const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const BMP_STRING: u8 = 0x1e;
const EXTENSIONS: u8 = 0xa3;
const SUBJECT_ALTERNATIVE_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

impl Certificate {
    /// Reads a certificate; `None` if it is none.
    pub fn parse(der: &[u8]) -> Option<Certificate> {
        let (certificate, _) = expect(der, SEQUENCE)?;
        let (mut fields, _) = expect(certificate, SEQUENCE)?;
        if fields.first() == Some(&VERSION) {
            fields = element(fields)?.2;
        }
        let (serial, mut fields) = expect(fields, INTEGER)?;
        // Signature algorithm, issuer.
        for _ in 0..2 {
            fields = element(fields)?.2;
        }
        let (validity, fields) = expect(fields, SEQUENCE)?;
        let (not_before, validity) = time(validity)?;
        let (not_after, _) = time(validity)?;
        let (subject, fields) = expect(fields, SEQUENCE)?;
        let names = alternative_names(fields).unwrap_or_default();
        let (serial, subject) = (serial.to_vec(), name(subject)?);
        Some(Certificate { not_before, not_after, serial, subject, names })
    }

    /// Whose it is: the subject or, where that is empty, the names.
    pub fn title(&self) -> String {
        if self.subject.is_empty() { self.names.join(", ") } else { self.subject.clone() }
    }

    /// Whether it is for this host name, of which the first label may be `*`.
    pub fn covers(&self, host: &str) -> bool {
        let wildcard = host.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        self.names.iter().any(|name| {
            let is = |host: &str| name.eq_ignore_ascii_case(host);
            is(host) || wildcard.as_deref().is_some_and(is)
        })
    }
}

/// The names in the extensions, which are among the last fields of a certificate (RFC 5280, 4.2.1.6).
fn alternative_names(mut fields: &[u8]) -> Option<Vec<String>> {
    let mut extensions = loop {
        let (tag, content, rest) = element(fields)?;
        if tag == EXTENSIONS {
            break expect(content, SEQUENCE)?.0;
        }
        fields = rest;
    };
    loop {
        let (extension, rest) = expect(extensions, SEQUENCE)?;
        extensions = rest;
        let (kind, mut value) = expect(extension, OBJECT_IDENTIFIER)?;
        if kind != SUBJECT_ALTERNATIVE_NAME {
            continue;
        }
        if expect(value, OCTET_STRING).is_none() {
            // Whether it is critical.
            value = element(value)?.2;
        }
        let (mut list, _) = expect(expect(value, OCTET_STRING)?.0, SEQUENCE)?;
        let mut names = Vec::new();
        while let Some((tag, content, rest)) = element(list) {
            list = rest;
            match (tag, content.len()) {
                (DNS_NAME, _) => names.push(escaped(&text(tag, content))),
                (IP_ADDRESS, 4) => {
                    names.extend(
                        <[u8; 4]>::try_from(content).map(|it| IpAddr::from(it).to_string()),
                    );
                }
                (IP_ADDRESS, 16) => {
                    names.extend(
                        <[u8; 16]>::try_from(content).map(|it| IpAddr::from(it).to_string()),
                    );
                }
                _ => {}
            }
        }
        return Some(names);
    }
}

/// A time in seconds since 1970, and what follows (RFC 5280, 4.1.2.5).
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    let digits = content.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |at: usize, size: usize| {
        let digits = digits.get(at..at + size)?;
        Some(digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    };
    let (year, at) = match (tag, digits.len()) {
        (UTC_TIME, 12) => (number(0, 2).map(|year| year + if year < 50 { 2000 } else { 1900 })?, 2),
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|offset| number(at + offset, 2));
    let seconds = (hour? * 60 + minute?) * 60 + second?;
    Some((days(year, month?, day?)? * 86_400 + seconds, rest))
}

/// Days since 1970 of a date of the Gregorian calendar, from the days of the years and months before it.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let before = *BEFORE.get(usize::try_from(month - 1).ok()?)?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    Some(years + before + i64::from(is_leap && month > 2) + day - 1)
}

/// A name as text, the most specific part first (RFC 4514, 2).
fn name(mut bytes: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let (mut set, rest) = expect(bytes, SET)?;
        bytes = rest;
        while !set.is_empty() {
            let (attribute, rest) = expect(set, SEQUENCE)?;
            set = rest;
            let (kind, attribute) = expect(attribute, OBJECT_IDENTIFIER)?;
            let (tag, value, _) = element(attribute)?;
            parts.push(format!("{}={}", kind_name(kind), escaped(&text(tag, value))));
        }
    }
    parts.reverse();
    Some(parts.join(","))
}

fn kind_name(identifier: &[u8]) -> String {
    let known = match identifier {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        other => return dotted(other),
    };
    known.to_owned()
}

/// An object identifier in numbers.
fn dotted(identifier: &[u8]) -> String {
    let mut text = String::new();
    let mut number: u64 = 0;
    for byte in identifier {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if text.is_empty() {
                let first = (number / 40).min(2);
                let _ = write!(text, "{first}.{}", number - first * 40);
            } else {
                let _ = write!(text, ".{number}");
            }
            number = 0;
        }
    }
    text
}

fn text(tag: u8, value: &[u8]) -> String {
    if tag == BMP_STRING {
        let units = value.as_chunks::<2>().0.iter().map(|unit| u16::from_be_bytes(*unit));
        return char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect();
    }
    String::from_utf8_lossy(value).into_owned()
}

/// Escapes what would end a part, and what belongs into no line of a log.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    for character in value.chars() {
        if character.is_control() {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                let _ = write!(text, "\\{byte:02X}");
            }
            continue;
        }
        if ",+\"\\<>;=".contains(character) {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut bytes = vec![tag];
        if length < 0x80 {
            bytes.push(length as u8);
        } else {
            bytes.extend([0x82, (length >> 8) as u8, length as u8]);
        }
        bytes.extend(content);
        bytes
    }

    fn attribute(identifier: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        let pair = [tagged(OBJECT_IDENTIFIER, identifier), tagged(tag, value)].concat();
        tagged(SET, &tagged(SEQUENCE, &pair))
    }

    fn certificate(from: &[u8], to: &[u8], subject: &[u8], extensions: &[u8]) -> Vec<u8> {
        let fields = [
            tagged(VERSION, &tagged(2, &[2])),
            tagged(2, &[1; 20]),
            tagged(SEQUENCE, &[]),
            tagged(SEQUENCE, &[]),
            tagged(SEQUENCE, &[tagged(UTC_TIME, from), tagged(GENERALIZED_TIME, to)].concat()),
            tagged(SEQUENCE, subject),
            tagged(SEQUENCE, &[0; 300]),
            tagged(EXTENSIONS, &tagged(SEQUENCE, extensions)),
        ];
        tagged(SEQUENCE, &tagged(SEQUENCE, &fields.concat()))
    }

    #[test]
    fn time_and_subject_are_read() {
        let subject = [
            attribute(&[0x55, 4, 10], 0x0c, "Müller, Söhne".as_bytes()),
            attribute(&[0x2b, 6, 1, 0x84, 0], 0x13, b"x"),
            attribute(&[0x55, 4, 3], BMP_STRING, b"\0a\0\n"),
        ];
        let der = certificate(b"700101000001Z", b"20501231235959Z", &subject.concat(), &[]);
        let read = Certificate::parse(&der).unwrap();
        assert_eq!(read.not_before, 1);
        assert_eq!(read.not_after, 2_556_143_999);
        assert_eq!(read.subject, "CN=a\\0A,1.3.6.1.512=x,O=Müller\\, Söhne");
    }

    #[test]
    fn names_are_read_and_stand_for_a_subject_that_is_empty() {
        let extension = |kind: &[u8], critical: &[u8], value: &[u8]| {
            let kind = tagged(OBJECT_IDENTIFIER, kind);
            tagged(SEQUENCE, &[&kind[..], critical, &tagged(OCTET_STRING, value)].concat())
        };
        let names = [
            tagged(0x81, b"a@b.example"),
            tagged(DNS_NAME, b"a.example"),
            tagged(DNS_NAME, b"*.B.example"),
            tagged(IP_ADDRESS, &[127, 0, 0, 1]),
            tagged(IP_ADDRESS, &[1, 2]),
        ];
        let list = tagged(SEQUENCE, &names.concat());
        for critical in [&[][..], &[1, 1, 0xff]] {
            let extensions = [
                extension(&[0x55, 0x1d, 0x13], &[1, 1, 0xff], &[0x30, 0]),
                extension(&SUBJECT_ALTERNATIVE_NAME, critical, &list),
            ];
            let der = certificate(b"700101000001Z", b"20501231235959Z", &[], &extensions.concat());
            let read = Certificate::parse(&der).unwrap();
            assert_eq!(read.title(), "a.example, *.B.example, 127.0.0.1");
            for (host, is_covered) in [
                ("A.example", true),
                ("x.b.example", true),
                ("*.b.example", true),
                ("b.example", false),
                ("x.y.b.example", false),
                ("x.a.example", false),
                ("*.example", false),
            ] {
                assert_eq!(read.covers(host), is_covered, "{host}");
            }
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (date, expected) in [
            ((1970, 1, 1), 0),
            ((1969, 12, 31), -1),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2100, 3, 1), 47_541),
            ((2026, 11, 29), 20_786),
        ] {
            assert_eq!(days(date.0, date.1, date.2), Some(expected), "{date:?}");
        }
        assert_eq!(days(2000, 13, 1), None);
        assert_eq!(days(2000, 0, 1), None);
    }

    #[test]
    fn an_element_that_is_cut_off_is_none() {
        let der = certificate(b"700101000001Z", b"20501231235959Z", b"", b"");
        for length in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Certificate::parse(&bytes);
            let _ = name(&bytes);
            let _ = time(&bytes);
            let _ = alternative_names(&bytes);
        }
    }
}
