//! WebSockets: `http.websocket` and `http.websocket_connect`.
//!
//! | module | what it is |
//! |---|---|
//! | [`protocol`] | the protocol as bytes (pure) |
//! | [`state`] | what the server keeps of a connection between two messages (pure) |
//! | [`codec`] | frames that may be compressed |
//! | [`connection`] | a connection of the server while its events are handled, without Lua |
//! | `server`, `server.lua` | `http.websocket` |
//!
//! It knows `wire`, and of `server` the timer of a handler.

mod codec;
mod connection;
pub mod protocol;
mod server;
pub mod state;

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Lua, Result, Table, Value};

use crate::binding;

/// Memory that is kept from message to message.
const KEEP: usize = 64 * 1024;

/// Puts `websocket` into the table of `moonbridge.http`. Gives `serve(times, poll)`: a function that serves the
/// connections of a `connect` function which have become WebSockets.
pub fn install(lua: &Lua, http: &Table, io: &Table) -> Result<Value> {
    let codec = Rc::new(RefCell::new(codec::Codec::default()));
    let native = server::table(lua, &codec)?;
    binding::chunk(
        lua,
        "moonbridge.http.websocket",
        include_str!("server.lua"),
        (&native, http, io),
    )
}
