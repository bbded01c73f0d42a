//! The TLS session of a connection: how it follows the connection as a part of its [state](super::connection_state).

use std::io;
use std::sync::Arc;

use crate::io::tls::TlsSession;
use crate::io::tls::progress::RecordProgress;

/// What a session has sealed and not sent, and received of a record that is not complete.
pub fn records_of(session: Option<&TlsSession>) -> [&[u8]; 2] {
    session.map_or_else(Default::default, |it| [it.unsent(), it.received()])
}

/// The session of a connection, if it has one that has moved here. Takes what belongs to it from the connection's data.
///
/// # Errors
/// The state is invalid.
pub fn resume(
    records: Option<RecordProgress>,
    secured: Option<Arc<[u8]>>,
    data: &mut Vec<u8>,
) -> io::Result<Option<TlsSession>> {
    let Some((records, state)) = records.zip(secured) else { return Ok(None) };
    let length = |part: u64| usize::try_from(part).unwrap_or(usize::MAX).min(data.len());
    let (unsent, received) = (length(records.unsent), length(records.received));
    let end = length(records.unsent.saturating_add(records.received));
    let parts = data.get(..unsent).zip(data.get(unsent..end)).filter(|_| end == unsent + received);
    let session = parts.and_then(|parts| TlsSession::resume(state, &records, parts));
    let session = session.ok_or(io::ErrorKind::InvalidData)?;
    data.drain(..end);
    Ok(Some(session))
}
