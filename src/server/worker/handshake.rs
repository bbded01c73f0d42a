//! How a connection of a listener with TLS begins: no handler sees it before the handshake is over. Until then it
//! is parked like one that waits for input, so that slow clients occupy no worker.

use std::time::Duration;

use crate::io::{Fill, Stream, Wakeup};
use crate::server::listen::listener::Listener;
use crate::sys::os::error_text;

/// How long a client may take for the handshake.
pub const WITHIN: Duration = Duration::from_secs(10);

/// How long a client that was refused may go on sending.
pub const LINGER: Duration = Duration::from_secs(2);

/// How long a worker that ends waits for handshakes that have begun: nobody else can go on with them.
pub const LAST: Duration = Duration::from_secs(1);

/// The same if no other worker can take its place meanwhile, and connections wait for one.
pub const LEAST: Duration = Duration::from_millis(100);

/// What a client gets that speaks HTTP without TLS.
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
    /// The same, and the client was told so. What it still sends has to be read for it to read that.
    Refused(String),
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
            if stream.duplex.session().is_some_and(|session| session.is_plain_http()) {
                stream.drop_session();
                if stream.duplex.send_nb(&[PLAIN]).is_ok() && stream.finish_nb().is_ok() {
                    return HandshakeProgress::Refused(reason);
                }
            }
            match error.raw_os_error() {
                // The client has gone after its handshake, as others do before their first request.
                Some(_) if stream.duplex.is_established() => HandshakeProgress::Failed(None),
                _ => failed(&reason),
            }
        }
    }
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
