//! The beginning of a connection through a proxy: its PROXY header is read before a handler sees it.

use std::time::Duration;

use crate::io::{Awaits, Fill, Stream, Wakeup};
use crate::proxy::header::{self, MalformedHeader};
use crate::proxy::proxied::{Proxied, Told};
use crate::sys::os::error_text;

/// How long a proxy may take for its header. The protocol asks for 3 s at least (section 3): a lost packet
/// is repeated within that time.
pub const WITHIN: Duration = Duration::from_secs(5);

/// How far the header of a connection has come.
#[derive(Debug, PartialEq, Eq)]
pub enum ProxyHeaderProgress {
    /// The connection is for the handler.
    Complete,
    /// The header is incomplete.
    Waits,
    /// The connection has failed, for this reason; without one, the server shuts down.
    Failed(Option<String>),
}

/// Goes on with the header of a connection that was woken for that reason. Never blocks.
pub fn advance(stream: &mut Stream, wakeup: Wakeup) -> ProxyHeaderProgress {
    if stream.handler.proxied != Proxied::Expected {
        return ProxyHeaderProgress::Complete;
    }
    match wakeup {
        Wakeup::Timeout => failed(&format!("it did not come within {} s", WITHIN.as_secs())),
        Wakeup::Shutdown => ProxyHeaderProgress::Failed(None),
        Wakeup::None | Wakeup::Input => receive(stream),
    }
}

fn failed(reason: &str) -> ProxyHeaderProgress {
    ProxyHeaderProgress::Failed(Some(reason.to_owned()))
}

fn receive(stream: &mut Stream) -> ProxyHeaderProgress {
    loop {
        match take(stream) {
            Ok(true) => return ProxyHeaderProgress::Complete,
            Ok(false) => {}
            Err(malformed) => return failed(&malformed.to_string()),
        }
        match stream.duplex.fill() {
            Ok(Fill::Data(_)) => {}
            Ok(Fill::Block) => {
                stream.duplex.input.hold(Awaits::ProxyHeader);
                return ProxyHeaderProgress::Waits;
            }
            Ok(Fill::Eof) => return failed("the connection was closed before"),
            Err(error) => return failed(&error_text::reason(&error)),
        }
    }
}

/// Takes the header out of the input; false if it is incomplete.
fn take(stream: &mut Stream) -> Result<bool, MalformedHeader> {
    let Some(length) = header::length(stream.duplex.input())? else { return Ok(false) };
    let told = Told::read(stream.duplex.input().get(..length).unwrap_or_default())?;
    stream.duplex.consume(length);
    stream.handler.proxied = Proxied::By(told);
    // The time was the proxy's.
    stream.handler.parked_until = None;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut stream = Stream::accepted(ours.into(), None);
        stream.handler.proxied = Proxied::Expected;
        (stream, theirs)
    }

    fn is_failed(progress: &ProxyHeaderProgress, reason: &str) -> bool {
        matches!(progress, ProxyHeaderProgress::Failed(Some(text)) if text.contains(reason))
    }

    #[test]
    fn a_header_is_read_piece_by_piece_and_what_follows_is_left() {
        let (mut stream, mut proxy) = pair();
        assert_eq!(advance(&mut stream, Wakeup::None), ProxyHeaderProgress::Waits);
        proxy.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2").unwrap();
        assert_eq!(advance(&mut stream, Wakeup::Input), ProxyHeaderProgress::Waits);
        proxy.write_all(b" 1 2\r\nGET /").unwrap();
        assert_eq!(advance(&mut stream, Wakeup::Input), ProxyHeaderProgress::Complete);
        assert_eq!(stream.duplex.input(), b"GET /");
        assert_eq!(stream.handler.proxied.header().unwrap().version, 1);
        assert_eq!(
            advance(&mut stream, Wakeup::Timeout),
            ProxyHeaderProgress::Complete,
            "it is over"
        );
    }

    #[test]
    fn a_connection_without_a_header_is_of_no_use() {
        let (mut stream, mut client) = pair();
        client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        assert!(is_failed(&advance(&mut stream, Wakeup::None), "something else"));
        let (mut stream, client) = pair();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(is_failed(&advance(&mut stream, Wakeup::None), "closed before"));
        let (mut stream, _client) = pair();
        assert!(is_failed(&advance(&mut stream, Wakeup::Timeout), "within 5 s"));
        assert_eq!(advance(&mut stream, Wakeup::Shutdown), ProxyHeaderProgress::Failed(None));
    }
}
