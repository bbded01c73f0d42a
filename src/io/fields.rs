//! The computed fields of handles: the addresses of both ends, `wakeup`, `proxy` and `tls`.

use std::net::SocketAddr;

use mlua::{IntoLua, Lua, Table, Value};

use super::address;
use super::args::borrow;
use super::handle_table::stream_of_value;
use super::tls_options;
use crate::binding::{Reply, bytes};
use crate::proxy::header::{Addresses, Header, ProxiedTransport};

/// The value of a field of a handle (reference, "socket.local_ip4" and so on): addresses, and
/// `wakeup`, why the server called the handler, `proxy`, what
/// a PROXY header has told, and `tls`. Nil if the handle has none, or for unknown keys.
pub fn of_handle(lua: &Lua, handle: &Value, key: &str) -> Reply<Value> {
    let Some(stream) = stream_of_value(handle) else { return Ok(Value::Nil) };
    if key == "wakeup" {
        return Ok(borrow(&stream)?.handler.wakeup.name().into_lua(lua)?);
    }
    if key == "proxy" {
        let stream = borrow(&stream)?;
        let header = stream.handler.proxied.header();
        return header.map_or(Ok(Value::Nil), |header| Ok(Value::Table(of_header(lua, &header)?)));
    }
    if key == "tls" {
        let stream = borrow(&stream)?;
        return stream
            .duplex
            .session()
            .map_or(Ok(Value::Nil), |session| tls_options::describe(lua, &session));
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

/// What a PROXY header says (reference, "The PROXY protocol").
fn of_header(lua: &Lua, header: &Header<'_>) -> Reply<Table> {
    let table = lua.create_table()?;
    table.raw_set("version", header.version)?;
    table.raw_set("command", if header.is_local { "LOCAL" } else { "PROXY" })?;
    match header.transport {
        ProxiedTransport::Unknown => {}
        ProxiedTransport::Stream => table.raw_set("transport", "stream")?,
        ProxiedTransport::Datagram => table.raw_set("transport", "datagram")?,
    }
    match header.addresses {
        Addresses::Unknown => {}
        Addresses::Internet { source, destination } => {
            table.raw_set("source_ip", address::text(&source))?;
            table.raw_set("source_port", source.port())?;
            table.raw_set("destination_ip", address::text(&destination))?;
            table.raw_set("destination_port", destination.port())?;
        }
        Addresses::Local { source, destination } => {
            table.raw_set("source_path", bytes(lua, source)?)?;
            table.raw_set("destination_path", bytes(lua, destination)?)?;
        }
    }
    let tlvs = lua.create_table()?;
    for (kind, value) in header.tlvs() {
        // Of several with the same type the first one counts.
        if !tlvs.contains_key(kind)? {
            tlvs.raw_set(kind, bytes(lua, value)?)?;
        }
    }
    table.raw_set("tlvs", tlvs)?;
    Ok(table)
}
