//! The fields of a line, and their values (pure).

use std::fmt::Write as _;
use std::net::IpAddr;

use super::moment::{Moment, digits};
use super::values::{push_ipv4, push_number, push_text, push_time};
use crate::server::ipc::request_names::RequestNames;
use crate::server::ipc::request_record::{Closing, Opening};

macro_rules! fields {
    ($($variant:ident $name:literal $doc:literal)*) => {
        /// What is known of a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field { $(#[doc = $doc] $variant,)* }

        /// All fields, in the order of a JSON object.
        pub(super) const FIELDS: &[(&str, Field)] = &[$(($name, Field::$variant),)*];
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
    pub(super) fn is_in_json(self) -> bool {
        !matches!(self, Field::CommonTime | Field::Request | Field::HandlerMilliseconds)
    }
}

/// The value of a field.
pub(super) enum Shown<'a> {
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
    /// Names, whose text needs no escape.
    Id(RequestNames<'a>),
    TraceParent(RequestNames<'a>),
}

/// The value of a field of a record.
pub(super) fn shown<'a>(field: Field, record: (&'a Opening<'a>, &Closing<'a>)) -> Shown<'a> {
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
        Field::Method => text(opening.method_and_target().0),
        Field::Target => text(opening.method_and_target().1),
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
        Field::RequestId | Field::TraceParent if opening.names == RequestNames::None => {
            Shown::Nothing
        }
        Field::RequestId => Shown::Id(opening.names),
        Field::TraceParent => Shown::TraceParent(opening.names),
        Field::Referer => text(opening.referer),
        Field::UserAgent => text(opening.user_agent),
        Field::End => Shown::Plain(closing.end.name()),
    }
}

/// The protocol; none if there was no request line.
pub(super) fn protocol(opening: &Opening<'_>) -> Option<&'static str> {
    Some(if opening.version? == 0 { "HTTP/1.0" } else { "HTTP/1.1" })
}

/// Writes what is the same in all formats.
pub(super) fn push(line: &mut Vec<u8>, value: &Shown<'_>, at: &Moment) {
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
        Shown::Address(address) => push_address(line, *address),
        Shown::Id(names) => names.with_id(|id| line.extend_from_slice(id)),
        Shown::TraceParent(names) => names.with_trace_parent(|text| line.extend_from_slice(text)),
        Shown::Line(opening) => {
            push_text(line, opening.line);
            if let Some(protocol) = protocol(opening) {
                line.push(b' ');
                line.extend_from_slice(protocol.as_bytes());
            }
        }
    }
}

/// An address.
pub(super) fn push_address(line: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => push_ipv4(line, address.octets()),
        IpAddr::V6(address) => {
            let mut text = String::new();
            // Writing to a string cannot fail.
            let _ = write!(text, "{address}");
            line.extend_from_slice(text.as_bytes());
        }
    }
}
