//! How a line of the access log looks (pure): a JSON object, or text with named fields.
//!
//! A line never has a byte that could forge another one: JSON escapes control characters, text has `\xHH` for
//! all but printable ASCII, for quotes and for backslashes.

use super::fields::Field;
use super::json::JsonLines;
use super::moment::Moment;
use super::text::{self, TextPiece};
use crate::server::ipc::access_queue::WantedFields;
use crate::server::ipc::request_record::{Closing, Opening};

/// The combined format of Apache and nginx, but for the bytes sent, which include the head.
const COMBINED: &str = "{client_ip} - - [{common_time}] \"{request}\" {status} {bytes_out} \"{referer}\" \"{user_agent}\"";

/// How a line looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// A JSON object (RFC 8259).
    Json,
    /// Text.
    Text(Vec<TextPiece>),
}

impl LineFormat {
    /// The format of a name, or that of a text.
    ///
    /// # Errors
    /// A field that does not exist, or a brace that is not closed.
    pub fn parse(format: &str) -> Result<LineFormat, String> {
        match format {
            "json" => Ok(LineFormat::Json),
            "combined" => text::parse(COMBINED).map(LineFormat::Text),
            format if format.contains('{') => text::parse(format).map(LineFormat::Text),
            format => Err(format!(
                "unknown format \"{format}\": \"json\", \"combined\", or a text with fields such as {{status}}"
            )),
        }
    }

    /// What lines have.
    pub fn wanted(&self) -> WantedFields {
        let has = |fields: &[Field]| match self {
            LineFormat::Json => true,
            LineFormat::Text(pieces) => pieces
                .iter()
                .any(|piece| matches!(piece, TextPiece::Field(field) if fields.contains(field))),
        };
        WantedFields {
            names: has(&[Field::RequestId, Field::TraceParent]),
            headers: has(&[Field::Referer, Field::UserAgent]),
        }
    }
}

/// Writes lines of a format.
pub struct LineWriter<'a> {
    format: &'a LineFormat,
    json: JsonLines,
}

impl<'a> LineWriter<'a> {
    /// Of this format.
    pub fn new(format: &'a LineFormat) -> Self {
        LineWriter { format, json: JsonLines::default() }
    }

    /// Appends a line, with its end.
    pub fn write(&mut self, record: (&Opening<'_>, &Closing<'_>), at: &Moment, line: &mut Vec<u8>) {
        match self.format {
            LineFormat::Json => self.json.write(record, at, line),
            LineFormat::Text(pieces) => {
                pieces.iter().for_each(|piece| piece.write(record, at, line));
            }
        }
        line.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ipc::request_names::RequestNames;
    use crate::server::ipc::request_record::{End, LogValue, add_field};
    use crate::sys::os::calendar::LocalTime;

    const NAMES: &str = "abc 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

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
            names: RequestNames::Told(NAMES.as_bytes()),
            user_agent: b"curl/8",
            ..Opening::default()
        }
    }

    fn line(format: &str, opening: Opening<'_>, closing: Closing<'_>) -> String {
        let mut line = Vec::new();
        let format = LineFormat::parse(format).unwrap();
        LineWriter::new(&format).write((&opening, &closing), &moment(), &mut line);
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
        add_field((&mut added, 1000), b"us\"er", LogValue::Text(b"j\n\xc3\xa4\xff\\"));
        add_field((&mut added, 1000), b"n", LogValue::Number(b"1.5"));
        add_field((&mut added, 1000), b"b", LogValue::Boolean(false));
        let expected = concat!(
            r#"{"time":"2026-03-09T08:07:06.012-01:30","client_ip":"192.0.2.1","client_port":5678,"#,
            r#""method":"GET","target":"/a?b","protocol":"HTTP/1.1","status":200,"bytes_in":80,"#,
            r#""bytes_out":1234,"queue_seconds":0.000017,"handler_seconds":1.000000,"#,
            r#""sent_seconds":61.000001,"pool":1,"pid":4711,"request_id":"abc","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","#,
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
    fn lines_of_several_processes_name_the_right_one() {
        let mut writer = LineWriter::new(&LineFormat::Json);
        for (pool, pid) in [(1, 4711), (1, 4711), (2, 4711), (2, 4712), (1, 4711)] {
            let mut line = Vec::new();
            let opening = Opening { pool, pid, ..opening() };
            writer.write((&opening, &closing(b"")), &moment(), &mut line);
            let expected = format!("\"pool\":{pool},\"pid\":{pid},\"request_id\"");
            assert!(String::from_utf8(line).unwrap().contains(&expected));
        }
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
        add_field((&mut added, 1000), b"user", LogValue::Text(b"j\""));
        add_field((&mut added, 1000), b"user", LogValue::Text(b"k"));
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
    fn names_that_were_made_are_shown_in_hexadecimal_digits() {
        let random = std::array::from_fn(|at| at as u8);
        let made = Opening { names: RequestNames::Made(&random), ..opening() };
        let expected = concat!(
            r#""pid":4711,"request_id":"000102030405060708090a0b0c0d0e0f","#,
            r#""traceparent":"00-000102030405060708090a0b0c0d0e0f-1011121314151617-00","referer":null"#
        );
        assert!(line("json", made, closing(b"")).contains(expected));
        let both = "000102030405060708090a0b0c0d0e0f 00-000102030405060708090a0b0c0d0e0f-1011121314151617-00\n";
        assert_eq!(line("{request_id} {traceparent}", made, closing(b"")), both);
        let none = Opening { names: RequestNames::None, ..opening() };
        assert!(
            line("json", none, closing(b"")).contains(r#""request_id":null,"traceparent":null,"#)
        );
        assert_eq!(line("{request_id} {traceparent}", none, closing(b"")), "- -\n");
    }

    #[test]
    fn a_format_wants_what_it_shows() {
        for (format, names, headers) in [
            ("json", true, true),
            ("combined", false, true),
            ("{status} {traceparent}", true, false),
            ("{request}", false, false),
        ] {
            let wanted = LineFormat::parse(format).unwrap().wanted();
            assert_eq!(wanted, WantedFields { names, headers }, "{format}");
        }
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
            let error = LineFormat::parse(format).unwrap_err();
            assert!(error.starts_with(expected), "{format}: {error}");
        }
    }
}
