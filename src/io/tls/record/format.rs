//! What a record of TLS 1.3 looks like, and what can be wrong with one (pure).

/// The header of a record: type, version, length.
pub const HEADER: usize = 5;

/// The tag at the end of a sealed record.
pub const TAG: usize = 16;

/// How long the content of a record may be (RFC 8446 5.1).
pub const MAX_PLAINTEXT: usize = 1 << 14;

/// The most that a record takes beside its content.
pub const OVERHEAD: usize = HEADER + 1 + TAG;

/// The type of records with alerts (RFC 8446 6).
pub const ALERT: u8 = 21;

/// The type that all sealed records show (RFC 8446 5.2), and that of data in them.
pub const APPLICATION_DATA: u8 = 23;

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFailure {
    /// The peer sends something that does not belong here.
    Unexpected,
    /// A record was changed on the way, or sealed by another key.
    BadRecord,
    /// A record is too long.
    Overflow,
    /// A message is malformed.
    Malformed,
    /// A message has a value that it must not have.
    Illegal,
    /// The peer has sent this alert.
    Alert(u8),
    /// There are no numbers left for records.
    Exhausted,
}

impl RecordFailure {
    /// What the peer is to be told (RFC 8446 6.2). Nothing if it has told it itself.
    pub fn alert(self) -> Option<u8> {
        match self {
            RecordFailure::Unexpected => Some(10),
            RecordFailure::BadRecord => Some(20),
            RecordFailure::Overflow => Some(22),
            RecordFailure::Malformed => Some(50),
            RecordFailure::Illegal => Some(47),
            RecordFailure::Exhausted => Some(80),
            RecordFailure::Alert(_) => None,
        }
    }
}
