//! The HTTP client: `http.request`.
//!
//! | module | what it is |
//! |---|---|
//! | [`url`], [`head`], [`body`] | URLs, response heads, where a body ends (pure) |
//! | [`fields`] | what Lua gets of a response head |
//! | [`link`], `links` | a connection and its present exchange; links by number |
//! | `exchange_error` | why an exchange has failed |
//! | [`spin`] | whether to poll for a response before sleeping (pure) |
//! | `native`, `answers`, `url_steps`, `tls_steps` | these for Lua |
//! | `options.lua` | the arguments of a request, checked |
//! | `request_head.lua`, `redirect.lua` | what is sent, and where it is sent again |
//! | `proxy.lua` | proxies, also those of the environment |
//! | `connecting.lua` | connections to servers, also over proxies and with TLS |
//! | `pool.lua` | idle connections |
//! | `waiting.lua` | waiting, by itself or by a function of the caller's |
//! | `exchange.lua` | one request and its response over a connection |
//! | `client.lua` | redirects, failures |

mod answers;
pub mod body;
mod exchange_error;
mod fields;
pub mod head;
mod link;
mod links;
mod native;
mod spin;
mod tls_steps;
pub mod url;
mod url_steps;

pub use links::connections;

use mlua::{Lua, Result, Table, Value};

use crate::{binding, callback, io};

/// Puts the client's functions into the table of `moonbridge.http`. Returns the parts that they are made of.
pub fn install(lua: &Lua, http: &Table) -> Result<Table> {
    let native = native::table(lua)?;
    url_steps::install(lua, &native)?;
    tls_steps::install(lua, &native)?;
    let protocol = callback::protocol(lua)?;
    let callback = callback::module(lua)?;
    let moonbridge_io = io::module(lua)?;
    let parts = lua.create_table()?;
    for (name, source) in [
        ("options", include_str!("options.lua")),
        ("request_head", include_str!("request_head.lua")),
        ("redirect", include_str!("redirect.lua")),
        ("pool", include_str!("pool.lua")),
        ("waiting", include_str!("waiting.lua")),
        ("proxy", include_str!("proxy.lua")),
        ("connecting", include_str!("connecting.lua")),
        ("exchange", include_str!("exchange.lua")),
    ] {
        let arguments = (&native, &protocol, &callback, &moonbridge_io, &parts);
        let chunk = format!("moonbridge.http.client.{name}");
        parts.raw_set(name, binding::chunk::<Value>(lua, &chunk, source, arguments)?)?;
    }
    let arguments = (&native, &protocol, &callback, &moonbridge_io, &parts, http);
    binding::chunk::<()>(lua, "moonbridge.http.client", include_str!("client.lua"), arguments)?;
    Ok(parts)
}
