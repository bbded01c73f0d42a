//! Who speaks first: `connect` functions that have nothing to do before the client has.
//!
//! `http.generate_handler` notes what it makes, so that pools with such a handler can leave silent
//! connections to the system.

use mlua::{Function, Lua, Result, Table};

/// Where the registry of the Lua state keeps the functions, as weak keys.
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

/// The function serves clients that speak first.
pub fn mark(lua: &Lua, connect: &Function) -> Result<()> {
    marked(lua)?.raw_set(connect, true)
}

/// Whether that was said of the function.
pub fn is_client_first(lua: &Lua, connect: &Function) -> Result<bool> {
    Ok(marked(lua)?.raw_get::<Option<bool>>(connect)?.is_some())
}
