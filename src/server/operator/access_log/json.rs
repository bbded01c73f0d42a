//! Lines that are JSON objects (RFC 8259; pure). This is the default, and written with care for its cost: what stands
//! between two values is appended at once, and what is often the same is computed once.

use super::fields::{protocol, push_address};
use super::moment::Moment;
use super::values::{boolean, is_plain, push_json, push_number, push_time};
use crate::server::ipc::request_names::RequestNames;
use crate::server::ipc::request_record::{self, Closing, LogValue, Opening};

/// Appends a line.
pub fn write(record: (&Opening<'_>, &Closing<'_>), at: &Moment, line: &mut Vec<u8>) {
    let (opening, closing) = record;
    line.extend_from_slice(b"{\"time\":\"");
    line.extend_from_slice(at.rfc3339());
    write_client(opening, line);
    write_request_line(opening, line);
    match closing.status {
        0 => line.extend_from_slice(b",\"status\":null,\"bytes_in\":"),
        status => {
            line.extend_from_slice(b",\"status\":");
            push_number(line, status.into());
            line.extend_from_slice(b",\"bytes_in\":");
        }
    }
    push_number(line, closing.bytes_in);
    line.extend_from_slice(b",\"bytes_out\":");
    push_number(line, closing.bytes_out);
    write_times(opening, closing, line);
    line.extend_from_slice(b",\"pool\":");
    push_number(line, opening.pool.into());
    line.extend_from_slice(b",\"pid\":");
    push_number(line, opening.pid.into());
    write_names(opening.names, line);
    match opening.referer {
        b"" => line.extend_from_slice(b",\"referer\":null,\"user_agent\":"),
        referer => {
            line.extend_from_slice(b",\"referer\":");
            push_json(line, referer);
            line.extend_from_slice(b",\"user_agent\":");
        }
    }
    match opening.user_agent {
        b"" => line.extend_from_slice(b"null,\"end\":\""),
        user_agent => {
            push_json(line, user_agent);
            line.extend_from_slice(b",\"end\":\"");
        }
    }
    line.extend_from_slice(closing.end.name().as_bytes());
    line.push(b'"');
    write_added(closing.fields, line);
    line.push(b'}');
}

fn write_client(opening: &Opening<'_>, line: &mut Vec<u8>) {
    let Some(client) = opening.client else {
        return line.extend_from_slice(b"\",\"client_ip\":null,\"client_port\":null");
    };
    line.extend_from_slice(b"\",\"client_ip\":\"");
    push_address(line, client.ip().to_canonical());
    line.extend_from_slice(b"\",\"client_port\":");
    match client.port() {
        // A proxy may have told the address alone.
        0 => line.extend_from_slice(b"null"),
        port => push_number(line, port.into()),
    }
}

fn write_request_line(opening: &Opening<'_>, line: &mut Vec<u8>) {
    let Some(protocol) = protocol(opening) else {
        return line.extend_from_slice(b",\"method\":null,\"target\":null,\"protocol\":null");
    };
    let (method, target) = (opening.method(), opening.target());
    if is_plain(opening.line) {
        line.extend_from_slice(b",\"method\":\"");
        line.extend_from_slice(method);
        line.extend_from_slice(b"\",\"target\":\"");
        line.extend_from_slice(target);
        line.extend_from_slice(b"\",\"protocol\":\"");
    } else {
        line.extend_from_slice(b",\"method\":");
        push_json(line, method);
        line.extend_from_slice(b",\"target\":");
        push_json(line, target);
        line.extend_from_slice(b",\"protocol\":\"");
    }
    line.extend_from_slice(protocol.as_bytes());
    line.push(b'"');
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
    if names == RequestNames::None {
        return line.extend_from_slice(b",\"request_id\":null,\"traceparent\":null");
    }
    // Their texts need no escape.
    names.with(|id, trace_parent| {
        line.extend_from_slice(b",\"request_id\":\"");
        line.extend_from_slice(id);
        line.extend_from_slice(b"\",\"traceparent\":\"");
        line.extend_from_slice(trace_parent);
        line.push(b'"');
    });
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
