//! Lines that are JSON objects (RFC 8259; pure). This is the default, and written with care for its cost: what stands
//! between two values is appended at once, and what is often the same is computed once.

use std::net::SocketAddr;
use std::ops::Range;

use super::fields::push_address;
use super::moment::Moment;
use super::values::{boolean, is_plain, push_ipv4, push_json, push_number, push_time};
use crate::http::wire::trace_context::{TRACE, TraceParent};
use crate::server::ipc::request_names::RequestNames;
use crate::server::ipc::request_record::{self, Closing, End, LogValue, Opening};

/// Names that were made, and where they stand in it.
const MADE_NAMES: &[u8; 120] = b",\"request_id\":\"00000000000000000000000000000000\",\"traceparent\":\"00-00000000000000000000000000000000-0000000000000000-00\"";
const MADE_ID: Range<usize> = 15..47;
const MADE_TRACE_PARENT: Range<usize> = 64..119;

/// Writes lines.
#[derive(Debug, Default)]
pub struct JsonLines {
    /// The pool and the process of the last line, and how they are written: records come process by process.
    process: Option<(u32, u32)>,
    process_text: Vec<u8>,
}

impl JsonLines {
    /// Appends a line, without its end.
    pub fn write(&mut self, record: (&Opening<'_>, &Closing<'_>), at: &Moment, line: &mut Vec<u8>) {
        let (opening, closing) = record;
        line.extend_from_slice(b"{\"time\":\"");
        line.extend_from_slice(at.rfc3339());
        write_client(opening, line);
        write_request_line(opening, line);
        match closing.status {
            0 => line.extend_from_slice(b"null"),
            status => push_number(line, status.into()),
        }
        line.extend_from_slice(b",\"bytes_in\":");
        push_number(line, closing.bytes_in);
        line.extend_from_slice(b",\"bytes_out\":");
        push_number(line, closing.bytes_out);
        write_times(opening, closing, line);
        self.write_process(opening, line);
        write_names(opening.names, line);
        write_headers(opening, line);
        match closing.end {
            // Most are.
            End::Complete => line.extend_from_slice(b",\"end\":\"complete\""),
            end => {
                line.extend_from_slice(b",\"end\":\"");
                line.extend_from_slice(end.name().as_bytes());
                line.push(b'"');
            }
        }
        if !closing.fields.is_empty() {
            write_added(closing.fields, line);
        }
        line.push(b'}');
    }

    fn write_process(&mut self, opening: &Opening<'_>, line: &mut Vec<u8>) {
        let process = (opening.pool, opening.pid);
        if self.process != Some(process) {
            self.process = Some(process);
            let text = format!(",\"pool\":{},\"pid\":{}", opening.pool, opening.pid);
            self.process_text = text.into_bytes();
        }
        line.extend_from_slice(&self.process_text);
    }
}

fn write_client(opening: &Opening<'_>, line: &mut Vec<u8>) {
    let Some(client) = opening.client else {
        return line.extend_from_slice(b"\",\"client_ip\":null,\"client_port\":null");
    };
    line.extend_from_slice(b"\",\"client_ip\":\"");
    match client {
        // Not by way of the other version.
        SocketAddr::V4(client) => push_ipv4(line, client.ip().octets()),
        SocketAddr::V6(client) => push_address(line, client.ip().to_canonical()),
    }
    line.extend_from_slice(b"\",\"client_port\":");
    match client.port() {
        // A proxy may have told the address alone.
        0 => line.extend_from_slice(b"null"),
        port => push_number(line, port.into()),
    }
}

/// Writes what the request line says, up to the value of the status.
fn write_request_line(opening: &Opening<'_>, line: &mut Vec<u8>) {
    let Some(version) = opening.version else {
        let nothing = b",\"method\":null,\"target\":null,\"protocol\":null,\"status\":";
        return line.extend_from_slice(nothing);
    };
    let (method, target) = opening.method_and_target();
    if is_plain(opening.line) {
        line.extend_from_slice(b",\"method\":\"");
        line.extend_from_slice(method);
        line.extend_from_slice(b"\",\"target\":\"");
        line.extend_from_slice(target);
        line.push(b'"');
    } else {
        line.extend_from_slice(b",\"method\":");
        push_json(line, method);
        line.extend_from_slice(b",\"target\":");
        push_json(line, target);
    }
    line.extend_from_slice(match version {
        0 => b",\"protocol\":\"HTTP/1.0\",\"status\":",
        _ => b",\"protocol\":\"HTTP/1.1\",\"status\":",
    });
}

fn write_headers(opening: &Opening<'_>, line: &mut Vec<u8>) {
    match opening.referer {
        b"" => line.extend_from_slice(b",\"referer\":null,\"user_agent\":"),
        referer => {
            line.extend_from_slice(b",\"referer\":");
            push_json(line, referer);
            line.extend_from_slice(b",\"user_agent\":");
        }
    }
    match opening.user_agent {
        b"" => line.extend_from_slice(b"null"),
        user_agent => push_json(line, user_agent),
    }
}

fn write_times(opening: &Opening<'_>, closing: &Closing<'_>, line: &mut Vec<u8>) {
    line.extend_from_slice(b",\"queue_seconds\":");
    push_time(line, opening.queued);
    line.extend_from_slice(b",\"handler_seconds\":");
    let begin = line.len();
    write_time(closing.handled, line);
    let end = line.len();
    line.extend_from_slice(b",\"sent_seconds\":");
    if closing.sent == closing.handled {
        line.extend_from_within(begin..end);
    } else {
        write_time(closing.sent, line);
    }
}

fn write_time(time: Option<u64>, line: &mut Vec<u8>) {
    match time {
        Some(time) => push_time(line, time),
        None => line.extend_from_slice(b"null"),
    }
}

fn write_names(names: RequestNames<'_>, line: &mut Vec<u8>) {
    match names {
        RequestNames::None => {
            line.extend_from_slice(b",\"request_id\":null,\"traceparent\":null");
        }
        // In one piece.
        RequestNames::Made(random) => {
            let trace_parent = TraceParent::made(random).text();
            let mut text = *MADE_NAMES;
            text[MADE_ID].copy_from_slice(&trace_parent[TRACE]);
            text[MADE_TRACE_PARENT].copy_from_slice(&trace_parent);
            line.extend_from_slice(&text);
        }
        // Their texts need no escape.
        RequestNames::Told(_) => names.with(|id, trace_parent| {
            line.extend_from_slice(b",\"request_id\":\"");
            line.extend_from_slice(id);
            line.extend_from_slice(b"\",\"traceparent\":\"");
            line.extend_from_slice(trace_parent);
            line.push(b'"');
        }),
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
                LogValue::Text(text) => push_json(line, text),
                LogValue::Number(digits) => line.extend_from_slice(digits),
                LogValue::Boolean(value) => line.extend_from_slice(boolean(value)),
            }
        }
        line.push(b'}');
    }
}
