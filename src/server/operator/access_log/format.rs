//! How a line of the access log looks (pure): a JSON object, or text with named fields.
//!
//! A line never has a byte that could forge another one: JSON escapes control characters, text has `\xHH` for
//! all but printable ASCII, for quotes and for backslashes.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::moment::{Moment, digits};
use super::values::{push_ipv4, push_json, push_number, push_text, push_time};
use crate::known_options::hint;
use crate::server::ipc::request_record::{self, Closing, FieldValue, Opening};

/// The combined format of Apache and nginx, but for the bytes sent, which include the head.
const COMBINED: &str = "{client_ip} - - [{common_time}] \"{request}\" {status} {bytes_out} \"{referer}\" \"{user_agent}\"";

/// The prefix of the fields that handlers add.
const ADDED: &str = "field.";

/// How a line looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object (RFC 8259).
    Json,
    /// Text.
    Text(Vec<Piece>),
}

/// A part of a line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It stands as it is.
    Literal(String),
    /// The value of a field, `-` if there is none.
    Field(Field),
    /// The value of a field that handlers add.
    Added(String),
}

macro_rules! fields {
    ($($variant:ident $name:literal $doc:literal)*) => {
        /// What is known of a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field { $(#[doc = $doc] $variant,)* }

        /// All fields, in the order of a JSON object.
        const FIELDS: &[(&str, Field)] = &[$(($name, Field::$variant),)*];

        /// Writes the members of a JSON object, each behind a comma. One piece of code for each field, in which
        /// all that depends on the field alone is known to the compiler: a loop takes three times as long.
        fn write_members(record: (&Opening<'_>, &Closing<'_>), at: &Moment, line: &mut Vec<u8>) {
            $(if Field::$variant.is_in_json() {
                line.extend_from_slice(concat!(",\"", $name, "\":").as_bytes());
                write_json_value(Field::$variant, record, at, line);
            })*
        }
    };
}

fields! {
    Time "time" "When the handler was called, with the time zone (RFC 3339)."
    ClientIp "client_ip" "The client's address."
    ClientPort "client_port" "The client's port."
    Method "method" "The method."
    Target "target" "The request target."
    Protocol "protocol" "The protocol."
    Status "status" "The status code."
    BytesIn "bytes_in" "Bytes of the request, its head included."
    BytesOut "bytes_out" "Bytes of the response, its head included."
    QueueSeconds "queue_seconds" "For how long the request waited for its handler."
    HandlerSeconds "handler_seconds" "How long the handler took."
    SentSeconds "sent_seconds" "From the call of the handler until the system had taken the last byte."
    Pool "pool" "The number of the pool."
    Pid "pid" "The process id of the worker."
    RequestId "request_id" "The request's id."
    TraceParent "traceparent" "Its place in a trace (W3C Trace Context)."
    Referer "referer" "The value of Referer."
    UserAgent "user_agent" "The value of User-Agent."
    End "end" "How the response has ended."
    CommonTime "common_time" "The time in the format of Apache and nginx."
    Request "request" "Method, target and protocol."
    HandlerMilliseconds "handler_milliseconds" "How long the handler took, for people."
}

impl Field {
    /// Whether a JSON object has it: the others are there in parts.
    #[inline(always)]
    fn is_in_json(self) -> bool {
        !matches!(self, Field::CommonTime | Field::Request | Field::HandlerMilliseconds)
    }
}

/// The value of a field.
enum Shown<'a> {
    Nothing,
    Text(&'a [u8]),
    Plain(&'a str),
    Number(u64),
    /// Microseconds, shown in seconds.
    Time(u64),
    /// Microseconds, shown in milliseconds.
    Milliseconds(u64),
    /// The time, as RFC 3339 has it, or as the common log format does.
    Moment,
    CommonMoment,
    Address(IpAddr),
    Line(&'a Opening<'a>),
}

impl Format {
    /// The format of a name, or that of a text.
    ///
    /// # Errors
    /// A field that does not exist, or a brace that is not closed.
    pub fn parse(text: &str) -> Result<Format, String> {
        match text {
            "json" => Ok(Format::Json),
            "combined" => pieces(COMBINED).map(Format::Text),
            text if text.contains('{') => pieces(text).map(Format::Text),
            text => Err(format!(
                "unknown format \"{text}\": \"json\", \"combined\", or a text with fields such as {{status}}"
            )),
        }
    }

    /// Appends a line, with its end.
    pub fn write(&self, record: (&Opening<'_>, &Closing<'_>), at: &Moment, line: &mut Vec<u8>) {
        match self {
            Format::Json => write_json(record, at, line),
            Format::Text(pieces) => {
                pieces.iter().for_each(|piece| piece.write(record, at, line));
            }
        }
        line.push(b'\n');
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    if text.contains(['\n', '\r']) {
        return Err("a format with a line break: each request has one line".to_owned());
    }
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        literal.push_str(before);
        rest = &brace[1..];
        if rest.starts_with(&brace[..1]) {
            // Two braces stand for one.
            literal.push_str(&brace[..1]);
            rest = &rest[1..];
            continue;
        }
        let field = brace.starts_with('{').then(|| rest.split_once('}')).flatten();
        let Some((name, behind)) = field else {
            return Err(format!("a brace without its counterpart in \"{text}\"; write it twice"));
        };
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(piece(name)?);
        rest = behind;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

fn piece(name: &str) -> Result<Piece, String> {
    if let Some(added) = name.strip_prefix(ADDED).filter(|added| !added.is_empty()) {
        return Ok(Piece::Added(added.to_owned()));
    }
    if let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) {
        return Ok(Piece::Field(*field));
    }
    let known: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    Err(format!("unknown field \"{name}\"; {}", hint(name, &known)))
}

impl Piece {
    fn write(&self, record: (&Opening<'_>, &Closing<'_>), at: &Moment, line: &mut Vec<u8>) {
        match self {
            Piece::Literal(text) => line.extend_from_slice(text.as_bytes()),
            Piece::Field(field) => match shown(*field, record) {
                Shown::Nothing => line.push(b'-'),
                Shown::Text(text) => push_text(line, text),
                shown => push(line, &shown, at),
            },
            Piece::Added(name) => {
                let added = |(key, _): &(&[u8], FieldValue<'_>)| *key == name.as_bytes();
                match request_record::fields(record.1.fields).filter(added).last() {
                    None | Some((_, FieldValue::Text(b""))) => line.push(b'-'),
                    Some((_, FieldValue::Text(text) | FieldValue::Number(text))) => {
                        push_text(line, text);
                    }
                    Some((_, FieldValue::Boolean(value))) => {
                        line.extend_from_slice(boolean(value));
                    }
                }
            }
        }
    }
}

fn boolean(value: bool) -> &'static [u8] {
    if value { b"true" } else { b"false" }
}

#[inline(always)]
fn shown<'a>(field: Field, record: (&'a Opening<'a>, &Closing<'a>)) -> Shown<'a> {
    let (opening, closing) = record;
    let text = |text: &'a [u8]| if text.is_empty() { Shown::Nothing } else { Shown::Text(text) };
    let time = |time: Option<u64>| time.map_or(Shown::Nothing, Shown::Time);
    match field {
        Field::Time => Shown::Moment,
        Field::CommonTime => Shown::CommonMoment,
        Field::ClientIp => opening
            .client
            .map_or(Shown::Nothing, |client| Shown::Address(client.ip().to_canonical())),
        // A proxy may have told the address alone.
        Field::ClientPort => match opening.client.map_or(0, |client| client.port()) {
            0 => Shown::Nothing,
            port => Shown::Number(port.into()),
        },
        Field::Method => text(opening.method()),
        Field::Target => text(opening.target()),
        Field::Protocol => protocol(opening).map_or(Shown::Nothing, Shown::Plain),
        Field::Request if opening.line.is_empty() => Shown::Nothing,
        Field::Request => Shown::Line(opening),
        Field::Status if closing.status == 0 => Shown::Nothing,
        Field::Status => Shown::Number(closing.status.into()),
        Field::BytesIn => Shown::Number(closing.bytes_in),
        Field::BytesOut => Shown::Number(closing.bytes_out),
        Field::QueueSeconds => Shown::Time(opening.queued),
        Field::HandlerSeconds => time(closing.handled),
        Field::SentSeconds => time(closing.sent),
        Field::HandlerMilliseconds => closing.handled.map_or(Shown::Nothing, Shown::Milliseconds),
        Field::Pool => Shown::Number(opening.pool.into()),
        Field::Pid => Shown::Number(opening.pid.into()),
        Field::RequestId => text(opening.id()),
        Field::TraceParent => text(opening.trace_parent()),
        Field::Referer => text(opening.referer),
        Field::UserAgent => text(opening.user_agent),
        Field::End => Shown::Plain(closing.end.name()),
    }
}

fn protocol(opening: &Opening<'_>) -> Option<&'static str> {
    Some(if opening.version? == 0 { "HTTP/1.0" } else { "HTTP/1.1" })
}

/// Writes what is the same in all formats.
#[inline(always)]
fn push(line: &mut Vec<u8>, value: &Shown<'_>, at: &Moment) {
    match value {
        Shown::Nothing | Shown::Text(_) => {}
        Shown::Plain(text) => line.extend_from_slice(text.as_bytes()),
        Shown::Number(number) => push_number(line, *number),
        Shown::Time(time) => push_time(line, *time),
        Shown::Milliseconds(time) => {
            push_number(line, time / 1000);
            line.push(b'.');
            line.extend_from_slice(&digits::<3>(time % 1000));
        }
        Shown::Moment => line.extend_from_slice(at.rfc3339()),
        Shown::CommonMoment => line.extend_from_slice(at.common()),
        Shown::Address(IpAddr::V4(address)) => push_ipv4(line, address.octets()),
        Shown::Address(address) => {
            let mut text = String::new();
            // Writing to a string cannot fail.
            let _ = write!(text, "{address}");
            line.extend_from_slice(text.as_bytes());
        }
        Shown::Line(opening) => {
            push_text(line, opening.line);
            if let Some(protocol) = protocol(opening) {
                line.push(b' ');
                line.extend_from_slice(protocol.as_bytes());
            }
        }
    }
}

fn write_json(record: (&Opening<'_>, &Closing<'_>), at: &Moment, line: &mut Vec<u8>) {
    let begin = line.len();
    write_members(record, at, line);
    line[begin] = b'{';
    if !record.1.fields.is_empty() {
        write_added(record.1.fields, line);
    }
    line.push(b'}');
}

#[inline(always)]
fn write_json_value(
    field: Field,
    record: (&Opening<'_>, &Closing<'_>),
    at: &Moment,
    line: &mut Vec<u8>,
) {
    match shown(field, record) {
        Shown::Nothing => line.extend_from_slice(b"null"),
        Shown::Text(text) => push_json(line, text),
        value @ (Shown::Number(_) | Shown::Time(_)) => push(line, &value, at),
        value => {
            line.push(b'"');
            push(line, &value, at);
            line.push(b'"');
        }
    }
}

/// Writes the fields that the handler has added.
fn write_added(fields: &[u8], line: &mut Vec<u8>) {
    let mut added = request_record::fields(fields).peekable();
    if added.peek().is_some() {
        let mut separator: &[u8] = b",\"fields\":{";
        for (name, value) in added {
            line.extend_from_slice(separator);
            separator = b",";
            push_json(line, name);
            line.push(b':');
            match value {
                FieldValue::Text(text) => push_json(line, text),
                FieldValue::Number(digits) => line.extend_from_slice(digits),
                FieldValue::Boolean(value) => line.extend_from_slice(boolean(value)),
            }
        }
        line.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ipc::request_record::{End, add_field};
    use crate::sys::os::calendar::LocalTime;

    fn moment() -> Moment {
        let (year, month, day, offset) = (2026, 3, 9, -90);
        let mut moment =
            Moment::new(LocalTime { year, month, day, hour: 8, minute: 7, second: 6, offset });
        moment.set_millisecond(12);
        moment
    }

    fn opening() -> Opening<'static> {
        Opening {
            queued: 17,
            pool: 1,
            pid: 4711,
            client: Some("192.0.2.1:5678".parse().unwrap()),
            version: Some(1),
            line: b"GET /a?b",
            names: b"abc 00-1",
            user_agent: b"curl/8",
            ..Opening::default()
        }
    }

    fn line(format: &str, opening: Opening<'_>, closing: Closing<'_>) -> String {
        let mut line = Vec::new();
        Format::parse(format).unwrap().write((&opening, &closing), &moment(), &mut line);
        String::from_utf8(line).unwrap()
    }

    fn closing(fields: &[u8]) -> Closing<'_> {
        let (handled, sent) = (Some(1_000_000), Some(61_000_001));
        Closing {
            status: 200,
            bytes_in: 80,
            bytes_out: 1234,
            handled,
            sent,
            fields,
            ..Closing::default()
        }
    }

    #[test]
    fn a_json_line_has_all_fields() {
        let mut added = Vec::new();
        add_field(&mut added, b"us\"er", FieldValue::Text(b"j\n\xc3\xa4\xff\\"));
        add_field(&mut added, b"n", FieldValue::Number(b"1.5"));
        add_field(&mut added, b"b", FieldValue::Boolean(false));
        let expected = concat!(
            r#"{"time":"2026-03-09T08:07:06.012-01:30","client_ip":"192.0.2.1","client_port":5678,"#,
            r#""method":"GET","target":"/a?b","protocol":"HTTP/1.1","status":200,"bytes_in":80,"#,
            r#""bytes_out":1234,"queue_seconds":0.000017,"handler_seconds":1.000000,"#,
            r#""sent_seconds":61.000001,"pool":1,"pid":4711,"request_id":"abc","traceparent":"00-1","#,
            r#""referer":null,"#,
            r#""user_agent":"curl/8","end":"complete","#,
            r#""fields":{"us\"er":"j\u000A"#,
            "\u{e4}",
            r#"\\xFF\\","n":1.5,"b":false}}"#,
            "\n"
        );
        assert_eq!(line("json", opening(), closing(&added)), expected);
    }

    #[test]
    fn a_line_without_a_request_has_nothing_in_its_place() {
        let closing = Closing { status: 400, end: End::Aborted, ..Closing::default() };
        let text = line("json", Opening::default(), closing);
        assert!(
            text.contains(r#""client_ip":null,"client_port":null,"method":null,"target":null"#)
        );
        assert!(text.contains(r#""sent_seconds":null"#));
        assert!(text.contains(r#""end":"aborted"}"#));
    }

    #[test]
    fn the_combined_format_is_that_of_apache_and_nginx() {
        assert_eq!(
            line("combined", opening(), closing(b"")),
            "192.0.2.1 - - [09/Mar/2026:08:07:06 -0130] \"GET /a?b HTTP/1.1\" 200 1234 \"-\" \"curl/8\"\n"
        );
        let forged = Opening { line: b"GET /\"\n\\\xff", ..opening() };
        assert!(
            line("combined", forged, closing(b"")).contains(r#""GET /\x22\x0A\x5C\xFF HTTP/1.1""#)
        );
        let mapped = Opening { client: Some("[::ffff:192.0.2.7]:1".parse().unwrap()), ..opening() };
        assert!(line("combined", mapped, closing(b"")).starts_with("192.0.2.7 - - "));
    }

    #[test]
    fn text_has_fields_in_braces() {
        let mut added = Vec::new();
        add_field(&mut added, b"user", FieldValue::Text(b"j\""));
        add_field(&mut added, b"user", FieldValue::Text(b"k"));
        assert_eq!(
            line(
                "{{{status}}} {field.user} {field.none} {request_id} {referer} é",
                opening(),
                closing(&added)
            ),
            "{200} k - abc - é\n"
        );
    }

    #[test]
    fn what_is_wrong_with_a_format_is_said() {
        for (format, expected) in [
            ("{statuss}", "unknown field \"statuss\"; did you mean \"status\"?"),
            ("{field.}", "unknown field \"field.\""),
            ("{status", "a brace without its counterpart"),
            ("{status} }", "a brace without its counterpart"),
            ("jsno", "unknown format \"jsno\""),
            ("{status}\n{pid}", "a format with a line break"),
        ] {
            let error = Format::parse(format).unwrap_err();
            assert!(error.starts_with(expected), "{format}: {error}");
        }
    }
}
