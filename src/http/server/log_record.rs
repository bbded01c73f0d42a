//! What the logs are told of a request: when its handler is called, and when its response is over.

use super::connection::HttpConnection;
use super::origin;
use crate::io::Stream;
use crate::server::ipc::request_record::{Closing, End, Opening};
use crate::server::worker::request_log;

/// A handler is about to be called for the request.
pub fn opened(c: &mut HttpConnection) {
    let is_kept = request_log::is_kept();
    if is_kept {
        c.identity();
    }
    if let Some(stream) = c.stream.look() {
        request_log::open(opening(c, &stream, is_kept), &stream);
    }
}

/// What is known. `details`: there is an access log, which also has fields of the request.
fn opening<'a>(c: &'a HttpConnection, stream: &Stream, details: bool) -> Opening<'a> {
    let client = origin::client(&c.request, &c.options, c.is_believed, stream);
    Opening { names: c.identity.names(), ..c.request.opening(client, details) }
}

/// The response is over, as far as this turn is concerned.
pub fn closed(c: &HttpConnection, end: End) {
    if request_log::ends() {
        let _ = c.stream.with(|stream| request_log::close(closing(c, end), true, stream));
    }
}

/// The request was refused without a handler: sends what there is of the refusal. A failure shows when the
/// rest is sent.
pub fn refused(c: &mut HttpConnection) {
    if !request_log::is_kept() {
        return;
    }
    c.identity();
    if let Some(stream) = c.stream.look() {
        request_log::open(opening(c, &stream, true), &stream);
    }
    let _ = c.send_out();
    if request_log::ends() {
        let _ =
            c.stream.with(|stream| request_log::close(closing(c, End::Complete), false, stream));
    }
}

fn closing(c: &HttpConnection, end: End) -> Closing<'static> {
    let status = c.output.response.status_code();
    let bytes_in = c.request.bytes.len() as u64 + c.body.received();
    Closing { status, bytes_in, end, ..Closing::default() }
}
