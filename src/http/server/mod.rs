//! The server's side of a connection, in steps that never block and never call Lua.
//!
//! | module | what it is |
//! |---|---|
//! | [`options`] | options of `generate_handler` |
//! | [`connection`] | one connection's turn: a request, its response, and what becomes of the connection |
//! | [`body_ahead`], [`request_body`] | a body that is waited for, and a body as it is received |
//! | [`response`] | the response as a state machine |

pub mod body_ahead;
pub mod connection;
pub mod options;
pub mod request_body;
pub mod response;
