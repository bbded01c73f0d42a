//! What the logs learn of a request: when its handler is called, and when its response is over.

use super::connection::HttpConnection;
use super::exchange::HttpExchange;
use super::origin;
use crate::server::ipc::request_record::{Closing, End};
use crate::server::worker::request_log;

/// A handler is about to be called for the request.
pub fn opened(c: &mut HttpConnection) {
    let HttpConnection { exchange, request, is_believed, identity, .. } = c;
    let HttpExchange { stream, options, .. } = exchange;
    let Some(stream) = stream.borrow() else { return };
    request_log::open(&stream, |wanted| {
        if wanted.names {
            identity.make(request, *is_believed);
        }
        let client = origin::client(request, options, *is_believed, &stream);
        request.opening(client, identity.names(), wanted.headers)
    });
}

/// The response is over, as far as this turn is concerned. `ends_run`: all that follows is that the connection is kept.
pub fn closed(c: &HttpConnection, end: End, ends_run: bool) {
    close(c, end, (true, ends_run));
}

/// Another process goes on with the response: what it has to tell when that is over. Empty if there is no log.
pub fn held(c: &HttpConnection) -> Vec<u8> {
    request_log::take(c.exchange.stream.get().map(|stream| &**stream), || closing(c, End::Complete))
}

/// The request was refused without a handler: sends what there is of the refusal. A failure shows again when
/// the rest is sent.
pub fn refused(c: &mut HttpConnection) {
    if request_log::is_kept() {
        opened(c);
        let end = if c.exchange.send_out().is_ok() { End::Complete } else { End::Aborted };
        close(c, end, (false, false));
    }
}

fn close(c: &HttpConnection, end: End, (was_handled, ends_run): (bool, bool)) {
    // The handler may have passed it on.
    let stream = c.exchange.stream.get().map(|stream| &**stream);
    request_log::close(was_handled, ends_run, stream, || closing(c, end));
}

fn closing(c: &HttpConnection, end: End) -> Closing<'static> {
    let status = c.exchange.output.response.status_code();
    let bytes_in = c.request.bytes.len() as u64 + c.exchange.body.received();
    Closing { status, bytes_in, end, ..Closing::default() }
}
