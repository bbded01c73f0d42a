//! `moonbridge.callback`: streaming with callbacks.
//!
//! | chunk | what it is |
//! |---|---|
//! | `protocol.lua` | the two protocols: calling callbacks, replacing them, what a failure frees |
//! | `filter.lua` | how filters are called |
//! | `receive.lua`, `send.lua` | the predefined callbacks and the conversions for ltn12 |
//! | `transfer.lua` | transfers between callbacks and handles |
//!
//! Everything is written in Lua, since every step calls user functions, which may yield, throw or
//! re-enter.

use mlua::{Lua, Result, Table};

use crate::{binding, io};

/// The module's table, and the protocol for the modules that stream with it.
#[derive(Clone)]
struct CallbackModule {
    callback: Table,
    protocol: Table,
}

/// The module's table: always the same one.
pub fn module(lua: &Lua) -> Result<Table> {
    Ok(binding::once(lua, load)?.callback)
}

/// The functions that implement the protocols, for streaming loops elsewhere (see `protocol.lua`).
pub fn protocol(lua: &Lua) -> Result<Table> {
    Ok(binding::once(lua, load)?.protocol)
}

fn load(lua: &Lua) -> Result<CallbackModule> {
    let callback = lua.create_table()?;
    callback.raw_set("BLOCKSIZE", 32 * 1024)?;
    let protocol: Table =
        binding::chunk(lua, "moonbridge.callback.protocol", include_str!("protocol.lua"), ())?;
    let filter: Table =
        binding::chunk(lua, "moonbridge.callback.filter", include_str!("filter.lua"), ())?;
    let receive: Table = binding::chunk(
        lua,
        "moonbridge.callback.receive",
        include_str!("receive.lua"),
        (&protocol, &filter),
    )?;
    let send: Table = binding::chunk(
        lua,
        "moonbridge.callback.send",
        include_str!("send.lua"),
        (&protocol, &filter, &callback),
    )?;
    // In the public interface, the conversions are not grouped by direction.
    for (table, name) in [
        (&receive, "from_sink"),
        (&receive, "to_sink"),
        (&send, "from_source"),
        (&send, "to_source"),
    ] {
        callback.raw_set(name, table.raw_get::<mlua::Function>(name)?)?;
        table.raw_set(name, mlua::Nil)?;
    }
    callback.raw_set("receive", receive)?;
    callback.raw_set("send", send)?;
    binding::chunk::<()>(
        lua,
        "moonbridge.callback.transfer",
        include_str!("transfer.lua"),
        (&protocol, &callback, io::module(lua)?),
    )?;
    Ok(CallbackModule { callback, protocol })
}
