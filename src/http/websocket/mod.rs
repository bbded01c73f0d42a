//! WebSockets: `http.websocket` and `http.websocket_connect`.
//!
//! | module | what it is |
//! |---|---|
//! | [`state`] | what the server keeps of a connection between two messages (pure) |
//! | `settings` | what an application has settled for its connections (pure) |
//! | [`codec`] | frames that may be compressed |
//! | [`connection`] | a connection of the server while its events are handled, without Lua |
//! | `arguments.lua` | what both sides check of their options and arguments |
//! | `server`, `server.lua` | `http.websocket` |
//! | `client`, `client.lua` | `http.websocket_connect` |
//!
//! It knows `wire`, of `server` the timer of a handler, and the Lua of `client`, which connects.

mod client;
mod codec;
mod connection;
mod server;
mod settings;
pub mod state;

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Lua, Result, Table, Value};

use crate::binding;

/// Memory that is kept from message to message.
const KEEP: usize = 64 * 1024;

/// Puts the functions into the table of `moonbridge.http`, over the parts of its client. Returns `serve(times, poll)`: a function that serves the
/// connections of a `connect` function which have become WebSockets.
pub fn install(lua: &Lua, http: &Table, io: &Table, parts: &Table) -> Result<Value> {
    let codec = Rc::new(RefCell::new(codec::Codec::default()));
    let native = server::table(lua, &codec)?;
    client::add(lua, &native, &codec)?;
    let name = "moonbridge.http.websocket.arguments";
    let checks: Table = binding::chunk(lua, name, include_str!("arguments.lua"), &native)?;
    let arguments = (&native, http, parts, &checks);
    let name = "moonbridge.http.websocket.client";
    binding::chunk::<()>(lua, name, include_str!("client.lua"), arguments)?;
    let arguments = (&native, http, io, &checks);
    binding::chunk(lua, "moonbridge.http.websocket", include_str!("server.lua"), arguments)
}
