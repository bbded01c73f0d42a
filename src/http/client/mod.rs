//! The HTTP client: `http.request`.
//!
//! | module | what it is |
//! |---|---|
//! | [`url`], [`head`], [`body`] | URLs, response heads, where a body ends (pure) |
//! | [`link`] | a connection and its present exchange, in steps that never block |
//! | `native` | these for Lua |
//! | `options.lua` | the arguments of a request, checked |
//! | `request_head.lua`, `redirect.lua` | what is sent, and where it is sent again |
//! | `pool.lua` | idle connections |
//! | `exchange.lua` | one request and its response over a connection |
//! | `client.lua` | connecting, redirects, failures |

pub mod body;
pub mod head;
pub mod link;
mod native;
pub mod url;

use mlua::{Lua, Result, Table, Value};

use crate::{callback, glue, io};

/// Puts the client's functions into the table of `moonbridge.http`.
///
/// # Errors
/// Out of memory.
pub fn install(lua: &Lua, http: &Table) -> Result<()> {
    let native = native::table(lua)?;
    let protocol = callback::protocol(lua)?;
    let parts = lua.create_table()?;
    for (name, source) in [
        ("options", include_str!("options.lua")),
        ("request_head", include_str!("request_head.lua")),
        ("redirect", include_str!("redirect.lua")),
        ("pool", include_str!("pool.lua")),
        ("exchange", include_str!("exchange.lua")),
    ] {
        let arguments = (&native, &protocol, callback::module(lua)?);
        let chunk = format!("moonbridge.http.client.{name}");
        parts.raw_set(name, glue::chunk::<Value>(lua, &chunk, source, arguments)?)?;
    }
    let arguments = (http, &native, &protocol, io::module(lua)?, parts);
    glue::chunk::<()>(lua, "moonbridge.http.client", include_str!("client.lua"), arguments)
}
