//! What supervisor and workers share. Both know this room; they do not know each other.
//!
//! | module | what it is |
//! |---|---|
//! | [`channel`], [`message`] | the control channel, and what is said on it (pure) |
//! | [`connection_state`], [`standing`] | all that follows a connection from process to process (pure) |
//! | [`lease`], [`ticket`] | who may act on a connection that a worker has parked, and its name |
//! | [`scoreboard`] | what each sees of the other without a system call |
//! | [`overflow`], [`numbers`] | what is too long for a message, as a file in memory; numbers in messages |
//! | [`clock`] | the clock that both use |

pub mod channel;
pub mod clock;
pub mod connection_state;
pub mod lease;
pub mod message;
pub mod numbers;
pub mod overflow;
pub mod scoreboard;
pub mod standing;
pub mod ticket;
