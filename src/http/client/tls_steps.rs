//! TLS for the client's Lua: the options of a request, and the handshake.

use std::cell::RefCell;

use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Nil, Result, Table, UserData, UserDataRef};

use super::exchange_error::ExchangeError;
use super::links;
use super::native::failed;
use crate::binding;
use crate::io::tls_options::{self, ClientRequest};

/// How many different options have numbers; of more, the oldest loses its own.
const KNOWN: usize = 64;

/// The option `tls` of a request, read.
struct Settings(ClientRequest);

impl UserData for Settings {}

/// `tls(options)`: what they ask for, and a number that is the same for the same ones; throws misuse.
/// `elsewhere(settings)`: both without what is meant for one server only. `secure(link, host, settings)`:
/// begins TLS; true, or false, a message and a code. `handshake(link)`: true at its end; nil and "r" or
/// "w" while it waits; false, a message and a code.
pub fn install(lua: &Lua, native: &Table) -> Result<()> {
    binding::export(lua, native, "tls", |lua, args| {
        let options = tls_options::table(args.front().cloned().unwrap_or(mlua::Value::Nil), "TLS")?;
        let request = match options {
            Some(table) => tls_options::client(&table, "TLS", &[])?,
            None => ClientRequest::default(),
        };
        Ok(numbered(lua, request)?)
    })?;
    let elsewhere = lua.create_function(|lua, settings: UserDataRef<Settings>| {
        numbered(lua, settings.0.elsewhere())
    })?;
    native.raw_set("elsewhere", elsewhere)?;
    type SecureArguments = (i64, LuaString, Option<UserDataRef<Settings>>);
    let secure = lua.create_function(|lua, (link, host, settings): SecureArguments| {
        let request = settings.map_or_else(ClientRequest::default, |settings| settings.0.clone());
        let host = request.server_name.as_deref().unwrap_or(&host.to_string_lossy()).to_owned();
        let Some(link) = links::get(link) else { return failed(lua, &ExchangeError::Gone) };
        match link.secure(&request.options.for_http(), &host) {
            Ok(()) => true.into_lua_multi(lua),
            Err(failure) => failed(lua, &failure),
        }
    })?;
    native.raw_set("secure", secure)?;
    let handshake = lua.create_function(|lua, link: i64| {
        let Some(link) = links::get(link) else { return failed(lua, &ExchangeError::Gone) };
        match link.handshake() {
            Ok(true) => true.into_lua_multi(lua),
            Ok(false) => (Nil, link.awaited()).into_lua_multi(lua),
            Err(failure) => failed(lua, &failure),
        }
    })?;
    native.raw_set("handshake", handshake)
}

/// The settings and their number.
fn numbered(lua: &Lua, request: ClientRequest) -> Result<MultiValue> {
    thread_local! {
        static NUMBERS: RefCell<(u64, Vec<(u64, ClientRequest)>)> = const { RefCell::new((0, Vec::new())) };
    }
    let number = NUMBERS.with_borrow_mut(|(last, known)| {
        if let Some((number, _)) = known.iter().find(|(_, known)| *known == request) {
            return *number;
        }
        if known.len() == KNOWN {
            known.remove(0);
        }
        *last += 1;
        known.push((*last, request.clone()));
        *last
    });
    (lua.create_userdata(Settings(request))?, number).into_lua_multi(lua)
}
