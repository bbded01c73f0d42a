//! `moonbridge.io`: handles, listeners, child processes and waiting for them.
//!
//! | module | what it is |
//! |---|---|
//! | [`buffer`] | byte queues (pure) |
//! | [`address`] | addresses of both ends of a connection |
//! | [`transport`] | a descriptor and how its kind receives, sends and ends |
//! | [`stream`] | a connection with buffers and state, without Lua |
//! | [`listen`] | listening sockets, also those of the server |
//! | [`handle`] | what Lua holds of a stream |
//! | [`wait`] | waiting for one descriptor |

pub mod address;
pub mod buffer;
pub mod handle;
pub mod listen;
pub mod stream;
pub mod transport;
pub mod wait;

use mlua::{Lua, Result, Table};

pub use crate::sys::sigterm;
pub use handle::{Handle, new_handle, stream_of};
pub use stream::{Direction, Fill, Stream, Wakeup};

/// The module's table.
pub fn module(lua: &Lua) -> Result<Table> {
    lua.create_table()
}
