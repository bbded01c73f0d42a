//! Skeleton of the module.

pub mod chunked;
pub mod cookies;
pub mod date;
pub mod escape;
pub mod flood;
pub mod framing;
pub mod head;
#[cfg(test)]
mod head_tests;
pub mod list;
pub mod media_type;
pub mod multipart;
pub mod options;
pub mod params;
pub mod refusal;
pub mod response;
#[cfg(test)]
mod testing;
pub mod uri;
pub mod urlencoded;

use mlua::{Lua, Result, Table};

/// The module's table.
pub fn module(lua: &Lua) -> Result<Table> {
    lua.create_table()
}
