//! `timeout(...)`: kills this process when something takes too long (reference, "Global function
//! timeout(...)").

use mlua::{FromLua, Function, Lua, Table, Value};

use super::context;
use crate::amount::{Amount, MAX_SECONDS};
use crate::binding::{self, Fault, Reply};
use crate::sys::lua::{lua_stack, timeout_report};
use crate::sys::os::alarm;

/// So much of the text that says what was being done goes into the log, in bytes.
const MAX_CONTEXT: usize = 600;

/// Lives as long as the Lua state whose stack a timeout would show.
struct Watched;

impl Drop for Watched {
    fn drop(&mut self) {
        alarm::disarm();
        lua_stack::forget();
    }
}

/// Defines `timeout`. `failed` is where the traceback of an error that passes through it is kept,
/// see `describe.lua`.
pub fn export(lua: &Lua, module: &Table, failed: &Table) -> mlua::Result<()> {
    lua_stack::note(lua)?;
    lua.set_app_data(Watched);
    timeout_report::install(show_request);
    let set = binding::function(lua, |lua, args| {
        let remaining = remaining();
        if let Some(value) = args.front().filter(|value| !value.is_nil()) {
            alarm::set(deadline_in(seconds(lua, value)?));
        }
        Ok(remaining)
    })?;
    let limit = binding::function(lua, |lua, args| {
        let outer = alarm::deadline();
        let inner = deadline_in(args.front().map_or(Ok(0.0), |value| seconds(lua, value))?);
        if inner != 0 && (outer == 0 || inner < outer) {
            alarm::set(inner);
        }
        Ok(outer as i64)
    })?;
    let restore = lua.create_function(|_, outer: i64| {
        alarm::set(outer.unsigned_abs());
        Ok(())
    })?;
    let timeout: Function = binding::chunk(
        lua,
        "moonbridge.timeout",
        include_str!("timeout.lua"),
        (set, limit, restore, failed),
    )?;
    module.raw_set("timeout", timeout)
}

fn remaining() -> f64 {
    match alarm::deadline() {
        0 => 0.0,
        deadline => deadline.saturating_sub(alarm::now()) as f64 / 1e9,
    }
}

/// The point in time in that many seconds; 0 for no time.
fn deadline_in(seconds: f64) -> u64 {
    if seconds > 0.0 { alarm::now() + (seconds * 1e9).ceil() as u64 } else { 0 }
}

fn seconds(lua: &Lua, value: &Value) -> Reply<f64> {
    match Amount::from_lua(value.clone(), lua)? {
        Amount::Missing | Amount::Off => Ok(0.0),
        Amount::Of(seconds) if seconds <= MAX_SECONDS => Ok(seconds),
        _ => Err(Fault::misuse("timeout expects a number of seconds from 0 to 1e8")),
    }
}

/// Writes which request is being served, if one is. The process is about to end and may be in any
/// state; if this hangs, a further alarm ends it.
fn show_request() {
    if let Some(text) = context::describe() {
        lua_stack::write(b" (");
        lua_stack::write(&text[..text.len().min(MAX_CONTEXT)]);
        lua_stack::write(b")");
    }
}
