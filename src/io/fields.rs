//! The computed fields of handles: the addresses of both ends, and `wakeup`.

use std::net::SocketAddr;

use mlua::{IntoLua, Lua, Value};

use super::address;
use super::args::borrow;
use super::handle_table::stream_of_value;
use crate::binding::{Reply, bytes};

/// The value of a field of a handle (reference, "socket.local_ip4" and so on): addresses, and
/// `wakeup`, why the server called the handler. Nil if the handle has none, or for unknown keys.
pub fn of_handle(lua: &Lua, handle: &Value, key: &str) -> Reply<Value> {
    let Some(stream) = stream_of_value(handle) else { return Ok(Value::Nil) };
    if key == "wakeup" {
        return Ok(borrow(&stream)?.handler.wakeup.name().into_lua(lua)?);
    }
    let Some((side, field)) = key.split_once('_') else { return Ok(Value::Nil) };
    let address = match side {
        "local" => borrow(&stream)?.endpoints().local(),
        "remote" => borrow(&stream)?.endpoints().peer(),
        _ => None,
    };
    address.map_or(Ok(Value::Nil), |address| of_address(lua, &address, field))
}

/// One aspect of an address: `ip4` and `ip6` are raw bytes, `ip` is text, `tcpport` a number.
pub fn of_address(lua: &Lua, address: &SocketAddr, field: &str) -> Reply<Value> {
    Ok(match field {
        "ip4" => match address::ip4(address) {
            Some(ip) => bytes(lua, &ip)?,
            None => Value::Nil,
        },
        "ip6" => match address::ip6(address) {
            Some(ip) => bytes(lua, &ip)?,
            None => Value::Nil,
        },
        "ip" => address::text(address).into_lua(lua)?,
        "tcpport" => Value::Integer(address.port().into()),
        _ => Value::Nil,
    })
}
