//! A connection on its way into the push process.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::stream::PushStream;
use super::transport::PushTransport;
use crate::io::tls::TlsSession;
use crate::server::ipc::connection_state::ConnectionState;
use crate::server::ipc::held_state::{HeldState, Rules};
use crate::server::ipc::secured;

/// A connection that is to be held.
pub struct NewStream {
    /// Its supervisor, and its pool there.
    pub from: (i32, u64),
    /// The connection.
    pub socket: OwnedFd,
    /// What follows it.
    pub state: ConnectionState,
    /// The same, encoded, of what is held.
    pub held: Vec<u8>,
}

/// What comes with a connection: its TLS session, its output that is not sent yet, and its input.
pub struct PendingData {
    pub session: Option<TlsSession>,
    pub output: Rc<[u8]>,
    pub input: Box<[u8]>,
}

/// Takes it from the state. None if that is invalid.
pub fn unpack(mut state: ConnectionState) -> Option<(ConnectionState, PendingData)> {
    let secured = state.attributes.secured.take();
    let session = secured::resume(state.records, secured, &mut state.data).ok()?;
    let data = std::mem::take(&mut state.data);
    let output = state.unsent().map_or(0, |unsent| unsent.bytes as usize);
    let (output, input) = data.split_at(output.min(data.len()));
    let luggage = PendingData { session, output: output.into(), input: input.into() };
    Some((state, luggage))
}

impl NewStream {
    /// The connection as it is held, and its output that is not sent yet. None if the state is invalid.
    pub fn into_stream(
        self,
        held: HeldState,
        rules: Rc<Rules>,
        now: u64,
    ) -> Option<(PushStream, Rc<[u8]>)> {
        let ((supervisor, pool), socket) = (self.from, self.socket);
        let (state, PendingData { session, output, input }) = unpack(self.state)?;
        let transport = PushTransport::new(socket, session);
        let mut stream = PushStream::new(transport, (supervisor, pool as u32), rules);
        (stream.framing, stream.deadline) = (held.framing, held.deadline.unwrap_or(u64::MAX));
        (stream.standing, stream.attributes) = (state.standing, state.attributes);
        (stream.record, stream.input) = (held.record.into(), input);
        stream.sent_at = now;
        Some((stream, output))
    }
}
