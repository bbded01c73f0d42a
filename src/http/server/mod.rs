//! The server's side of a connection, in steps that never block and never call Lua.
//!
//! | module | what it is |
//! |---|---|
//! | [`options`] | options of `generate_handler` |
//! | [`time_limits`] | how long a turn waits for what |
//! | [`turn`] | what happens in a call of the handler: a state machine over a connection |
//! | [`turn_state`], [`turn_step`] | its states, its events and actions |
//! | [`supervision`] | what the process around a turn does with connections |
//! | [`request_wait`], [`ending`] | waiting for a request, and what becomes of the connection after a response |
//! | [`connection`] | a connection while it is served, put together from the parts below |
//! | [`exchange`] | the body of a request and its response, and how they affect each other |
//! | [`incoming`], [`body_progress`] | a request on its way in, and its body, if that is waited for |
//! | [`request`] | the head of a request, checked |
//! | [`request_body`], [`body_decoder`] | its body as it is received and decoded |
//! | [`origin`], [`identity`] | where a request comes from; its id and its place in a trace |
//! | [`log_record`] | what the logs are told of a request |
//! | [`response`], [`response_output`] | the response as a state machine; what sends it |
//! | [`failure`] | the answer to an error of the application |
//! | [`held_stream`] | the stream, as far as the connection has it |
//! | [`usability`] | whether the request can be used, and what is raised if not |
//! | [`peer_watch`], [`response_timer`] | whether the client is still there; the timer of a handler |

pub mod body_decoder;
pub mod body_progress;
pub mod connection;
pub mod ending;
pub mod exchange;
pub mod failure;
pub mod held_stream;
pub mod identity;
pub mod incoming;
pub mod log_record;
pub mod options;
pub mod origin;
pub mod peer_watch;
pub mod request;
pub mod request_body;
pub mod request_wait;
pub mod response;
pub mod response_output;
pub mod response_timer;
pub mod supervision;
pub mod time_limits;
pub mod turn;
pub mod turn_state;
pub mod turn_step;
pub mod usability;
