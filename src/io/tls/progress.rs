//! What changes with each record of a session that moves between processes (pure).

/// The longest state of a session, sealed. One that knows more of its client stays where it is.
pub const MAX_STATE: usize = 8 * 1024;

/// How far the records of a session have come. The rest of what another process needs stays the same as long as the
/// keys do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordProgress {
    /// The number of the next record that is received.
    pub receiving: u64,
    /// The number of the next record that is sent.
    pub sending: u64,
    /// How many bytes of records are sealed and not sent.
    pub unsent: u64,
    /// How many bytes of the output they have in them.
    pub sealed: u64,
    /// How many bytes were received of a record that is not complete.
    pub received: u64,
    /// The peer has said that it sends no more.
    pub peer_ended: bool,
}
