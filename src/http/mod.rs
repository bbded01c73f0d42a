//! Skeleton of the module.

pub mod chunked;
pub mod cookies;
pub mod escape;
pub mod list;
pub mod media_type;
pub mod multipart;
pub mod params;
#[cfg(test)]
mod testing;
pub mod uri;
pub mod urlencoded;

use mlua::{Lua, Result, Table};

/// The module's table.
pub fn module(lua: &Lua) -> Result<Table> {
    lua.create_table()
}
