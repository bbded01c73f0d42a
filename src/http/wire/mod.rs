//! HTTP/1.1 as bytes: parsers and writers that server and client share. Pure: no Lua type, no system call.
//!
//! | module | what it is |
//! |---|---|
//! | [`head`], [`uri`], [`framing`] | request line and header fields, target and host, where the body ends |
//! | [`chunked`] | the chunked transfer coding |
//! | [`params`], [`cookies`], [`list`], [`media_type`], [`escape`] | parsers of values |
//! | `base64` | bytes as text |
//! | [`names`] | header fields by name |
//! | [`conditional`], [`range`] | entity tags, and whether the client has a version already; which part of it is asked for |
//! | [`accept_encoding`], [`disposition`] | content codings that a client accepts; the name of a download |
//! | [`forwarded`], [`trace_context`] | where a request comes from; its id and its place in a trace |
//! | `scan` | how far a text consists of bytes of a kind |
//! | [`header_lines`], [`refusal`], [`date`] | what is sent |
//! | [`websocket`] | the WebSocket protocol |
//! | [`collision_guard`] | detects texts chosen to collide in Lua's string hash |

pub mod accept_encoding;
pub(crate) mod base64;
pub mod chunked;
pub(crate) mod collision_guard;
pub mod conditional;
pub mod content_coding;
pub mod cookies;
pub(crate) mod date;
pub mod disposition;
pub mod escape;
pub mod forwarded;
pub mod framing;
pub mod head;
#[cfg(test)]
pub mod head_tests;
pub(crate) mod header_lines;
pub mod list;
pub mod media_type;
pub(crate) mod names;
pub mod params;
pub mod range;
pub mod refusal;
pub(crate) mod scan;
#[cfg(test)]
pub mod testing;
pub mod trace_context;
pub mod uri;
pub mod websocket;
