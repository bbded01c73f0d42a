//! How held connections end.

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

use socket2::SockRef;

use crate::server::ipc::request_record::{self, Closing, End};
use crate::sys::os::disconnect::disconnect;
use crate::sys::os::monotonic::MonotonicTime;

/// Everything is sent: the client gets FIN.
pub fn finish(socket: &OwnedFd) {
    let socket = SockRef::from(socket);
    let _ = socket.set_linger(None);
    let _ = socket.shutdown(Shutdown::Write);
}

/// The same, and nothing is heard any more.
pub fn close(socket: OwnedFd) {
    let socket = SockRef::from(&socket);
    let _ = socket.set_linger(None);
    let _ = socket.shutdown(Shutdown::Both);
}

/// The client gets RST, whoever has a duplicate.
pub fn reset(socket: OwnedFd) {
    disconnect(socket.as_fd());
}

/// The complete record of a request, whose response has so many more bytes, of which some are `left` to be sent. None
/// if there is no log.
pub fn record(record: &[u8], bytes: u64, left: usize, end: End) -> Option<Vec<u8>> {
    let (opening, closing) = request_record::decode(record).ok()?;
    let sent = matches!(end, End::Complete)
        .then(|| (MonotonicTime::now().nanoseconds() / 1000).saturating_sub(opening.begun));
    let bytes_out = (closing.bytes_out + bytes).saturating_sub(left as u64);
    let mut record = Vec::new();
    opening.encode(&mut record);
    Closing { bytes_out, sent, end, ..closing }.encode(&mut record);
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ipc::request_record::Opening;

    #[test]
    fn a_record_is_completed() {
        let mut bytes = Vec::new();
        Opening { line: b"GET /", ..Opening::default() }.encode(&mut bytes);
        Closing { status: 200, bytes_out: 5, fields: b"", ..Closing::default() }.encode(&mut bytes);
        let complete = record(&bytes, 7, 0, End::Complete).unwrap();
        let (opening, closing) = request_record::decode(&complete).unwrap();
        assert_eq!((opening.line, closing.status, closing.bytes_out), (&b"GET /"[..], 200, 12));
        assert!(closing.sent.is_some());
        let aborted = record(&bytes, 2, 3, End::Aborted).unwrap();
        let (_, closing) = request_record::decode(&aborted).unwrap();
        assert_eq!((closing.end, closing.bytes_out, closing.sent), (End::Aborted, 4, None));
        assert_eq!(record(&[], 0, 0, End::Complete), None);
    }
}
