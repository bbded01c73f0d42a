//! The WebSocket protocol as bytes (RFC 6455, RFC 7692). Pure: no Lua type, no system call.
//!
//! | module | what it is |
//! |---|---|
//! | [`cursor`] | where frames begin and end that pass by |
//! | [`frame`], [`mask`] | frames: their headers, and the masking of their payload |
//! | [`reader`] | from frames to messages, within limits |
//! | [`text`] | whether a text that comes in pieces is UTF-8 |
//! | [`close`] | close codes, and the payload of a close frame |
//! | [`deflate`] | compression of messages |
//! | [`extension`] | what both sides agree on about that |
//! | [`handshake`] | the request and the response that begin a connection |

pub mod close;
pub mod cursor;
pub mod deflate;
pub mod extension;
pub mod frame;
pub mod handshake;
pub mod mask;
pub mod reader;
#[cfg(test)]
mod reader_tests;
pub mod text;
