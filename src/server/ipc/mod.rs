//! What supervisor and workers share. Both know this room; they do not know each other.
//!
//! | module | what it is |
//! |---|---|
//! | [`channel`], [`message`] | the control channel, and what is said on it (pure) |
//! | [`generation`], [`batch`] | what the generations of a server tell each other at a reload; many connections in a message (pure) |
//! | [`connection_state`], [`standing`], [`attributes`] | all that follows a connection from process to process (pure) |
//! | [`secured`] | the TLS session as a part of that |
//! | [`lease`], [`ticket`] | who may act on a connection that a worker has parked, and its name |
//! | [`scoreboard`] | what each sees of the other without a system call |
//! | [`pool_losses`] | connections that workers could not keep, for the log |
//! | [`server_stage`] | whether the server shuts down, as the status process is told |
//! | [`request_record`], [`request_names`] | what is known of a request, for the logs (pure) |
//! | [`request_note`], [`ring`] | the request a worker handles; a queue; both in shared memory |
//! | [`access_queue`] | the way to the process that writes the access log |
//! | [`held_state`], [`push_message`], [`push_line`] | held connections: what follows them, what is said of them (pure), and the way to the push process |
//! | [`overflow`] | what is too long for a message, as a file in memory |
//! | [`numbers`], [`texts`], [`addresses`] | numbers, byte strings and addresses in messages (pure) |
//! | [`clock`] | the clock that both use |

pub(crate) mod access_queue;
pub(crate) mod addresses;
pub mod attributes;
pub(crate) mod batch;
pub(crate) mod channel;
pub(crate) mod clock;
pub mod connection_state;
pub(crate) mod generation;
pub mod held_state;
pub(crate) mod lease;
pub(crate) mod message;
pub(crate) mod numbers;
pub(crate) mod overflow;
pub(crate) mod pool_losses;
pub(crate) mod push_line;
pub mod push_message;
pub(crate) mod request_names;
pub(crate) mod request_note;
pub(crate) mod request_record;
pub(crate) mod ring;
pub(crate) mod scoreboard;
pub(crate) mod secured;
pub(crate) mod server_stage;
pub(crate) mod standing;
pub(crate) mod texts;
pub(crate) mod ticket;
