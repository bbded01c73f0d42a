//! What is known of a request, for the access log and for the log of a worker's death (pure).
//!
//! A record has two parts. The [`Opening`] is known when a handler is called; a worker keeps it where the
//! supervisor finds it should the worker die. The [`Closing`] is known when the response is over. The encoding
//! of the one after that of the other is a record. An opening that was cut off can be read all the same: its
//! texts are cut.

use std::net::SocketAddr;

use super::addresses::{address_of, numbers_of};
use super::numbers::{ABSENT, Malformed, append, optional, present, split};
use super::request_names::RequestNames;

/// The longest texts of an opening, in bytes. Longer ones are cut.
pub const LONGEST: usize = 8 * 1024;

/// How many numbers an opening begins with.
pub const NUMBERS: usize = 8;

/// What is known when a handler is called. Times are microseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening<'a> {
    /// When the handler was called, or the request was refused.
    pub begun: u64,
    /// For how long the request had been there.
    pub queued: u64,
    /// The number of the pool, from 1.
    pub pool: u32,
    /// The process.
    pub pid: u32,
    /// The client, unless it has connected to a local socket.
    pub client: Option<SocketAddr>,
    /// The minor version of HTTP, unless there was no request line.
    pub version: Option<u8>,
    /// The method, a space, and the request target as it was sent; empty if there was no request line.
    pub line: &'a [u8],
    /// The request's id, and its `traceparent`.
    pub names: RequestNames<'a>,
    /// The value of Referer.
    pub referer: &'a [u8],
    /// The value of User-Agent.
    pub user_agent: &'a [u8],
}

/// How a response has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// The system has taken all of it.
    #[default]
    Complete = 0,
    /// The connection was lost or reset first.
    Aborted = 1,
    /// The handler has failed, and the client gets the response that tells it so.
    Failed = 2,
    /// The worker has died.
    Died = 3,
}

impl End {
    /// Its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            End::Complete => "complete",
            End::Aborted => "aborted",
            End::Failed => "failed",
            End::Died => "died",
        }
    }

    fn of(number: u8) -> End {
        match number {
            0 => End::Complete,
            2 => End::Failed,
            3 => End::Died,
            _ => End::Aborted,
        }
    }
}

/// What is known when the response is over. Times are microseconds since the handler was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closing<'a> {
    /// The status code; 0 if there was none.
    pub status: u16,
    /// How the response has ended.
    pub end: End,
    /// Bytes of the request, its head included.
    pub bytes_in: u64,
    /// Bytes of the response, its head included.
    pub bytes_out: u64,
    /// When the handler returned; none if it did not, or was not called.
    pub handled: Option<u64>,
    /// When the system had taken the last byte of the response.
    pub sent: Option<u64>,
    /// What the handler has added, see [`add_field`].
    pub fields: &'a [u8],
}

/// A value that a handler adds to a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LogValue<'a> {
    /// A string.
    Text(&'a [u8]),
    /// An integer or a finite float, in decimal.
    Number(&'a [u8]),
    /// A boolean.
    Boolean(bool),
}

impl<'a> LogValue<'a> {
    /// As it is encoded.
    fn text(self) -> &'a [u8] {
        match self {
            LogValue::Text(text) | LogValue::Number(text) => text,
            LogValue::Boolean(false) => b"false",
            LogValue::Boolean(true) => b"true",
        }
    }
}

impl<'a> Opening<'a> {
    /// Whether it is that of an event, which is no request: it names what began the connection, but has no version.
    pub fn is_event(&self) -> bool {
        self.version.is_none() && !self.line.is_empty()
    }

    /// The method and the request target; empty if there was no request line.
    #[inline]
    pub fn method_and_target(&self) -> (&'a [u8], &'a [u8]) {
        // Methods are short.
        match self.line.iter().position(|byte| *byte == b' ') {
            Some(space) => (&self.line[..space], &self.line[space + 1..]),
            None => (self.line, &[]),
        }
    }

    /// Appends its encoding: its numbers, and its texts one after the other, each of them filled up to a
    /// multiple of 8 bytes.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        let (numbers, texts) = self.parts();
        append(bytes, &numbers);
        for text in texts {
            bytes.extend_from_slice(text);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
    }

    /// The numbers and the texts of its encoding. The names come last: they may be added later, see
    /// [`with_names`].
    #[inline]
    pub fn parts(&self) -> ([u64; NUMBERS], [&'a [u8]; 4]) {
        let texts = [self.line, self.referer, self.user_agent, self.names.bytes()];
        let texts = texts.map(|text| &text[..text.len().min(LONGEST)]);
        (self.numbers(texts.map(<[u8]>::len)), texts)
    }

    /// The numbers alone, for texts of these lengths.
    #[inline(always)]
    pub fn numbers(&self, lengths: [usize; 4]) -> [u64; NUMBERS] {
        let [line, referer, user_agent, names] = lengths.map(|length| length as u64);
        let lengths = line | referer << 16 | user_agent << 32 | names << NAMES;
        let [high, low, port] = self.client.map_or([0, 0, ABSENT], numbers_of);
        let process = u64::from(self.pool) << 32 | u64::from(self.pid);
        let version = optional(self.version.map(u64::from));
        [self.begun, self.queued, process, high, low, port, version, lengths]
    }
}

/// Where the length of the names is in that of all texts.
const NAMES: u32 = 48;

/// The last number of an opening without names, when these are put after its texts. None if it has names.
pub fn with_names(lengths: u64, names: &[u8]) -> Option<u64> {
    (lengths >> NAMES == 0).then_some(lengths | (names.len() as u64) << NAMES)
}

/// How many numbers a closing begins with.
const CLOSING: usize = 5;

impl Closing<'_> {
    /// Its numbers; its fields are after them.
    pub fn numbers(&self) -> [u64; CLOSING] {
        let length = self.fields.len() as u64;
        let status = length << 32 | u64::from(self.status) << 8 | self.end as u64;
        let (handled, sent) = (optional(self.handled), optional(self.sent));
        [status, self.bytes_in, self.bytes_out, handled, sent]
    }

    /// Appends its encoding, which is a record after that of an opening.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        append(bytes, &self.numbers());
        bytes.extend_from_slice(self.fields);
    }
}

/// The opening with which `bytes` begin, and what is after it.
///
/// # Errors
/// Not even its numbers are there.
pub fn decode_opening(bytes: &[u8]) -> Result<(Opening<'_>, &[u8]), Malformed> {
    let (numbers, mut rest) = split::<NUMBERS>(bytes)?;
    let [begun, queued, process, high, low, port, version, lengths] = numbers;
    let mut text = |length: u64| {
        let length = usize::from(length as u16);
        let (text, after) = rest.split_at(length.next_multiple_of(8).min(rest.len()));
        rest = after;
        &text[..length.min(text.len())]
    };
    let opening = Opening {
        begun,
        queued,
        pool: (process >> 32) as u32,
        pid: process as u32,
        client: address_of([high, low, port])?,
        version: present(version).map(|version| version as u8),
        line: text(lengths),
        referer: text(lengths >> 16),
        user_agent: text(lengths >> 32),
        names: RequestNames::of(text(lengths >> NAMES)),
    };
    Ok((opening, rest))
}

/// The record in `bytes`.
///
/// # Errors
/// They are no record.
pub fn decode(bytes: &[u8]) -> Result<(Opening<'_>, Closing<'_>), Malformed> {
    let (opening, rest) = decode_opening(bytes)?;
    let ([status, bytes_in, bytes_out, handled, sent], rest) = split::<CLOSING>(rest)?;
    let length = (status >> 32) as usize;
    let closing = Closing {
        status: (status >> 8) as u16,
        end: End::of(status as u8),
        bytes_in,
        bytes_out,
        handled: present(handled),
        sent: present(sent),
        fields: &rest[..length.min(rest.len())],
    };
    Ok((opening, closing))
}

/// Appends a field to those of a record, in the place of one with that name. False if they would have more bytes than
/// that: nothing has changed.
pub fn add_field((fields, most): (&mut Vec<u8>, usize), name: &[u8], value: LogValue<'_>) -> bool {
    let kind: u8 = match value {
        LogValue::Text(_) => 0,
        LogValue::Number(_) => 1,
        LogValue::Boolean(value) => 2 + u8::from(value),
    };
    let text = value.text();
    let size = |name: &[u8], text: &[u8]| 9 + name.len() + text.len();
    let mut end = 0;
    let before = self::fields(fields).find_map(|(known, value)| {
        let begin = end;
        end += size(known, value.text());
        (known == name).then_some(begin..end)
    });
    let before = before.unwrap_or(fields.len()..fields.len());
    if fields.len() - before.len() + size(name, text) > most {
        return false;
    }
    fields.drain(before);
    fields.push(kind);
    for part in [name, text] {
        fields.extend_from_slice(&(part.len() as u32).to_le_bytes());
        fields.extend_from_slice(part);
    }
    true
}

/// The fields that a handler has added, in this order.
pub fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], LogValue<'_>)> {
    fn part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        *bytes = rest;
        Some(part)
    }
    std::iter::from_fn(move || {
        let (kind, rest) = bytes.split_first()?;
        bytes = rest;
        let (name, text) = (part(&mut bytes)?, part(&mut bytes)?);
        let value = match kind {
            0 => LogValue::Text(text),
            1 => LogValue::Number(text),
            kind => LogValue::Boolean(*kind == 3),
        };
        Some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening() -> Opening<'static> {
        Opening {
            begun: 1 << 40,
            queued: 17,
            pool: 2,
            pid: 4711,
            client: Some("[2001:db8::1]:65535".parse().unwrap()),
            version: Some(1),
            line: b"POST /a?b=c",
            names: RequestNames::Told(b"abc 00-1"),
            referer: b"http://localhost/",
            user_agent: b"curl/8",
        }
    }

    fn closing(fields: &[u8]) -> Closing<'_> {
        Closing {
            status: 404,
            end: End::Aborted,
            bytes_in: 100,
            bytes_out: 1 << 33,
            handled: Some(5),
            sent: None,
            fields,
        }
    }

    #[test]
    fn a_record_survives_its_encoding() {
        let mut added = Vec::new();
        add_field((&mut added, 1000), b"user", LogValue::Text(b"jane"));
        add_field((&mut added, 1000), b"rows", LogValue::Number(b"12"));
        add_field((&mut added, 1000), b"cached", LogValue::Boolean(true));
        for (opening, closing) in [
            (opening(), closing(&added)),
            (Opening::default(), Closing::default()),
            (Opening { client: Some("192.0.2.1:80".parse().unwrap()), ..opening() }, closing(b"")),
        ] {
            let mut bytes = Vec::new();
            opening.encode(&mut bytes);
            append(&mut bytes, &closing.numbers());
            bytes.extend_from_slice(closing.fields);
            assert_eq!(decode(&bytes), Ok((opening, closing)));
        }
        let read: Vec<_> = fields(&added).collect();
        assert_eq!(
            read,
            [
                (&b"user"[..], LogValue::Text(b"jane")),
                (b"rows", LogValue::Number(b"12")),
                (b"cached", LogValue::Boolean(true)),
            ]
        );
    }

    #[test]
    fn texts_have_two_parts() {
        for (line, method, target) in
            [("POST /a?b=c", "POST", "/a?b=c"), ("", "", ""), ("PO", "PO", "")]
        {
            let opening = Opening { line: line.as_bytes(), ..Opening::default() };
            assert_eq!(opening.method_and_target(), (method.as_bytes(), target.as_bytes()));
        }
    }

    #[test]
    fn names_may_come_later() {
        let ([.., lengths], _) = Opening { names: RequestNames::None, ..opening() }.parts();
        let with = with_names(lengths, b"abc 00-1");
        assert_eq!(with, Some(opening().parts().0[NUMBERS - 1]));
        assert_eq!(with_names(with.unwrap(), b"abc 00-1"), None);
    }

    #[test]
    fn an_opening_that_is_cut_off_has_cut_texts() {
        let mut bytes = Vec::new();
        opening().encode(&mut bytes);
        let whole = bytes.len();
        let numbers = 8 * NUMBERS;
        for length in 0..whole {
            match decode_opening(&bytes[..length]) {
                Err(Malformed) => assert!(length < numbers),
                Ok((read, rest)) => {
                    assert!(length >= numbers && rest.is_empty());
                    assert!(opening().line.starts_with(read.line));
                }
            }
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let long = vec![b'x'; 100_000];
        let mut bytes = Vec::new();
        Opening { line: &long, user_agent: &long, ..opening() }.encode(&mut bytes);
        let (read, rest) = decode_opening(&bytes).unwrap();
        assert_eq!((read.line.len(), read.user_agent.len()), (LONGEST, LONGEST));
        assert_eq!((read.referer, rest.len()), (&b"http://localhost/"[..], 0));
    }

    #[test]
    fn the_last_value_of_a_field_is_kept() {
        let mut added = Vec::new();
        let mut add = |name: &[u8], value| add_field((&mut added, 40), name, value);
        assert!(add(b"a", LogValue::Boolean(true)) && add(b"b", LogValue::Text(b"1")));
        assert!(add(b"a", LogValue::Number(b"12345")) && add(b"a", LogValue::Text(b"123456")));
        // Too long: the value before stays.
        assert!(!add(b"a", LogValue::Text(&[b'x'; 40])) && !add(b"c", LogValue::Text(b"12345")));
        let read: Vec<_> = fields(&added).collect();
        let expected = [(&b"b"[..], LogValue::Text(b"1")), (b"a", LogValue::Text(b"123456"))];
        assert_eq!(read, expected);
    }

    #[test]
    fn fields_that_are_malformed_end_the_list() {
        let mut added = Vec::new();
        add_field((&mut added, 1000), b"a", LogValue::Text(b"b"));
        for length in 0..added.len() {
            assert_eq!(fields(&added[..length]).count(), 0);
        }
    }
}
