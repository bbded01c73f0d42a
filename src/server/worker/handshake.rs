//! How a connection of a listener with TLS begins: no handler sees it before the handshake is over. Until then it
//! is parked like one that waits for input, so that slow clients occupy no worker.

use std::time::Duration;

use super::request_log;
use crate::http::wire::head::{Head, HeadLimits, Version};
use crate::io::{Fill, Stream, Wakeup};
use crate::server::ipc::request_names::RequestNames;
use crate::server::ipc::request_record::{Closing, End, Opening};
use crate::server::listen::listener::Listener;
use crate::sys::os::{error_text, random};

/// How long a client may take for the handshake.
pub const WITHIN: Duration = Duration::from_secs(10);

/// How long a client that was refused may go on sending.
pub const LINGER: Duration = Duration::from_secs(2);

/// How long a worker that ends waits for handshakes that have begun: nobody else can go on with them.
pub const LAST: Duration = Duration::from_secs(1);

/// The same if no other worker can take its place meanwhile, and connections wait for one.
pub const LEAST: Duration = Duration::from_millis(100);

/// The status of what a client gets that speaks HTTP without TLS.
pub const REFUSED: u16 = 400;

/// All of it.
const PLAIN: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 65\r\n\
    Connection: close\r\n\r\nThis port is for https: the request came to it over http, as is.\n";

/// How far the handshake of a connection has come.
#[derive(Debug, PartialEq, Eq)]
pub enum HandshakeProgress {
    /// The connection is for the handler.
    Complete,
    /// The handshake waits for the client.
    Waits,
    /// The connection has failed, for this reason; without one, the server shuts down, or the client has gone after its
    /// handshake.
    Failed(Option<String>),
    /// The client speaks HTTP without TLS, and gets a response that says so, unless it has gone: the reason, and what
    /// the access log learns of the end. What the client still sends has to be read for it to read that.
    Refused(String, Closing<'static>),
}

/// Goes on with the handshake of a connection that was woken for that reason, or begins with it. Never blocks.
pub fn advance(stream: &mut Stream, wakeup: Wakeup, listeners: &[Listener]) -> HandshakeProgress {
    match wakeup {
        _ if is_over(stream) => return HandshakeProgress::Complete,
        Wakeup::Timeout => {
            return failed(&format!("the handshake was not over within {} s", WITHIN.as_secs()));
        }
        Wakeup::Shutdown => return HandshakeProgress::Failed(None),
        Wakeup::None | Wakeup::Input => {}
    }
    // As long as the client says nothing, the connection moves like any other.
    if stream.handler.tls.is_some() && stream.duplex.input().is_empty() {
        match stream.duplex.fill() {
            Ok(Fill::Data(_)) => {}
            Ok(Fill::Block) => return HandshakeProgress::Waits,
            Ok(Fill::Eof) => return failed("the client has closed the connection before it"),
            Err(error) => return failed(&error_text::reason(&error)),
        }
    }
    if let Some(key) = stream.handler.tls.take() {
        let is_its = |listener: &&Listener| listener.key().is_some_and(|known| *known == *key);
        let Some(server) = listeners.iter().find(is_its).and_then(Listener::tls) else {
            return failed("its listener has no TLS any more");
        };
        match server.session() {
            Ok(session) => stream.secure(session),
            Err(error) => return failed(&error_text::reason(&error)),
        }
    }
    match stream.duplex.handshake_nb() {
        Ok(true) => {
            // The time was that of the handshake.
            stream.handler.parked_until = None;
            HandshakeProgress::Complete
        }
        Ok(false) => HandshakeProgress::Waits,
        Err(error) => {
            let reason = error_text::reason(&error);
            if let Some(request) = plain_request(stream) {
                return HandshakeProgress::Refused(reason, refuse(stream, &request));
            }
            match error.raw_os_error() {
                // The client has gone after its handshake, as others do before their first request.
                Some(_) if stream.duplex.is_established() => HandshakeProgress::Failed(None),
                _ => failed(&reason),
            }
        }
    }
}

/// What a client has sent that speaks HTTP without TLS.
fn plain_request(stream: &Stream) -> Option<Vec<u8>> {
    let session = stream.duplex.session()?;
    session.is_plain_http().then(|| session.received().to_vec())
}

/// Tells a client that its request is refused, and the access log as much of the request as has come.
fn refuse(stream: &mut Stream, request: &[u8]) -> Closing<'static> {
    stream.drop_session();
    let mut head = Head::default();
    // What is wrong with it does not matter any more.
    let _ = head.advance(request, &HeadLimits { head: usize::MAX, fields: usize::MAX });
    let version = head.has_request_line().then_some(u8::from(head.version == Version::Http11));
    let line = head.method.to(head.target).of(request);
    let random = random::bytes();
    request_log::open_refusal(stream, |client| Opening {
        client,
        version,
        line,
        names: RequestNames::Made(&random),
        ..Opening::default()
    });
    let sent = stream.duplex.send_nb(&[PLAIN]).is_ok() && stream.finish_nb().is_ok();
    let end = if sent { End::Complete } else { End::Aborted };
    Closing { status: REFUSED, bytes_in: request.len() as u64, end, ..Closing::default() }
}

/// Whether no handshake is left, as far as handlers are concerned.
pub fn is_over(stream: &Stream) -> bool {
    stream.handler.tls.is_none() && stream.duplex.is_established()
}

fn failed(reason: &str) -> HandshakeProgress {
    HandshakeProgress::Failed(Some(reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let text = std::str::from_utf8(PLAIN).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
