//! A connection on its way into the push process.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::stream::PushStream;
use crate::server::ipc::connection_state::ConnectionState;
use crate::server::ipc::held_state::{HeldState, Rules};

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

impl NewStream {
    /// The connection as it is held, and its output that is not sent yet.
    pub fn into_stream(
        self,
        held: HeldState,
        rules: Rc<Rules>,
        now: u64,
    ) -> (PushStream, Rc<[u8]>) {
        let NewStream { from: (supervisor, pool), socket, state, .. } = self;
        let output = state.unsent().map_or(0, |unsent| unsent.bytes as usize);
        let (output, input) = state.data.split_at(output.min(state.data.len()));
        let mut stream = PushStream::new(socket, (supervisor, pool as u32), rules);
        (stream.framing, stream.deadline) = (held.framing, held.deadline.unwrap_or(u64::MAX));
        (stream.standing, stream.attributes) = (state.standing, state.attributes);
        (stream.record, stream.input) = (held.record.into(), input.into());
        stream.sent_at = now;
        (stream, output.into())
    }
}
