//! Marks `connect` functions of protocols in which the client speaks first.
//!
//! `http.generate_handler` marks its handlers, so that pools with such a handler leave silent
//! connections to the kernel.

use mlua::{Function, Lua, Result, Table};

/// The registry key of a table with the functions as weak keys.
const KEY: &str = "moonbridge.client_speaks_first";

fn marked(lua: &Lua) -> Result<Table> {
    if let Some(marked) = lua.named_registry_value::<Option<Table>>(KEY)? {
        return Ok(marked);
    }
    let marked = lua.create_table()?;
    let weak = lua.create_table()?;
    weak.raw_set("__mode", "k")?;
    marked.set_metatable(Some(weak))?;
    lua.set_named_registry_value(KEY, &marked)?;
    Ok(marked)
}

/// Marks a function whose clients speak first.
pub fn mark(lua: &Lua, connect: &Function) -> Result<()> {
    marked(lua)?.raw_set(connect, true)
}

/// Whether the function is marked.
pub fn is_client_first(lua: &Lua, connect: &Function) -> Result<bool> {
    Ok(marked(lua)?.raw_get::<Option<bool>>(connect)?.is_some())
}
