//! What the logs are told of a request: when its handler is called, and when its response is over.

use std::net::SocketAddr;

use super::connection::HttpConnection;
use crate::io::Stream;
use crate::proxy::proxied::Peer;
use crate::server::ipc::request_record::{Closing, End};
use crate::server::worker::request_log;

/// A handler is about to be called for the request.
pub fn opened(c: &HttpConnection) {
    if let Some(stream) = c.stream.look() {
        let opening = c.request.opening(client(&stream), request_log::is_kept());
        request_log::open(opening, &stream);
    }
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
    if let Some(stream) = c.stream.look() {
        request_log::open(c.request.opening(client(&stream), true), &stream);
    }
    let _ = c.send_out();
    if request_log::ends() {
        let _ =
            c.stream.with(|stream| request_log::close(closing(c, End::Complete), false, stream));
    }
}

/// The client, as a trusted proxy has told, or else as the system does.
fn client(stream: &Stream) -> Option<SocketAddr> {
    match stream.handler.proxied.client() {
        Some(Peer::Internet(ip, port)) => Some(SocketAddr::new(ip, port)),
        Some(Peer::Local) => None,
        None => stream.known_peer(),
    }
}

fn closing(c: &HttpConnection, end: End) -> Closing<'static> {
    let status = c.output.response.status_code();
    let bytes_in = c.request.bytes.len() as u64 + c.body.received();
    Closing { status, bytes_in, end, ..Closing::default() }
}
