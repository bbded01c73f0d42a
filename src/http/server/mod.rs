//! The server's side of a connection, in steps that never block and never call Lua.
//!
//! | module | what it is |
//! |---|---|
//! | [`options`] | options of `generate_handler` |
//! | [`time_limits`] | how long a turn waits for what |
//! | [`turn`] | what happens in a call of the handler: a state machine over a connection |
//! | [`connection`] | a connection while it is served: a request, its response, and the steps between them |
//! | [`body_ahead`], [`request_body`] | a body that is waited for, and a body as it is received |
//! | [`response`] | the response as a state machine |

pub mod body_ahead;
pub mod connection;
pub mod options;
pub mod request_body;
pub mod response;
pub mod time_limits;
pub mod turn;
