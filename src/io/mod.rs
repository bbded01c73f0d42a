//! Skeleton of the module.

use mlua::{Lua, Result, Table};

/// The module's table.
pub fn module(lua: &Lua) -> Result<Table> {
    lua.create_table()
}
