//! How a Rust function becomes a Lua function of the public interface.
//!
//! Three kinds of failure leave a function, each in the form Lua programmers expect:
//!
//! * **misuse** (a wrong type, a closed handle) throws a plain string that carries the caller's
//!   position. An error raised by Rust would arrive as userdata without a position, so the Rust
//!   function returns a marker and the C function around it raises the error;
//! * **system errors** return `nil, message, errno`;
//! * errors of Lua functions that Rust has called pass through unchanged.
//!
//! The wrapper costs one call and no allocation.

use mlua::{Function, IntoLua, IntoLuaMulti, LightUserData, Lua, MultiValue, Table, Value};

use crate::sys::lua::{compat, misuse};
use crate::sys::os::error_text::{ErrorCode, describe, reason};

/// The name of a value's type, as Lua's `type` gives it.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "number",
        other => other.type_name(),
    }
}

/// The values of a list; none if the table has names or gaps, which would make it shorter than it looks.
///
/// # Errors
/// Those of Lua.
pub fn list(table: &Table) -> mlua::Result<Option<Vec<Value>>> {
    let values = table.sequence_values().collect::<mlua::Result<Vec<Value>>>()?;
    Ok((table.pairs::<Value, Value>().count() == values.len()).then_some(values))
}

/// Why a function of the public interface has failed.
#[derive(Debug)]
pub enum Fault {
    /// A mistake of the caller: thrown as a plain string with the caller's position.
    Misuse(String),
    /// A system error: returned as `nil, message, errno`; errno is nil if there is none, or a word.
    System(String, Option<ErrorCode>),
    /// An error from Lua: passed through unchanged.
    Lua(mlua::Error),
}

impl Fault {
    /// A misuse with the given text.
    pub fn misuse(text: impl Into<String>) -> Self {
        Fault::Misuse(text.into())
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Fault::System(reason(&error), ErrorCode::of(&error))
    }
}

impl From<nix::errno::Errno> for Fault {
    fn from(errno: nix::errno::Errno) -> Self {
        Fault::System(describe(errno as i32), Some(ErrorCode::Errno(errno as i32)))
    }
}

impl From<mlua::Error> for Fault {
    fn from(error: mlua::Error) -> Self {
        Fault::Lua(error)
    }
}

impl IntoLua for ErrorCode {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        match self {
            ErrorCode::Errno(errno) => errno.into_lua(lua),
            ErrorCode::Word(word) => word.into_lua(lua),
        }
    }
}

/// The results of a function of the public interface.
pub type Reply<T = MultiValue> = Result<T, Fault>;

/// A first result that tells the wrapper to raise the second one as an error.
fn marker() -> Value {
    Value::LightUserData(LightUserData(misuse::marker()))
}

/// Converts the outcome of a public function into results for its wrapper.
pub fn settle<R: IntoLuaMulti>(lua: &Lua, reply: Reply<R>) -> mlua::Result<MultiValue> {
    match reply {
        Ok(values) => values.into_lua_multi(lua),
        Err(Fault::Misuse(text)) => (marker(), text).into_lua_multi(lua),
        Err(Fault::System(text, code)) => (Value::Nil, text, code).into_lua_multi(lua),
        // A string, as everywhere in Lua. It already exists, so it needs no memory.
        Err(Fault::Lua(mlua::Error::MemoryError(_))) => {
            (marker(), "not enough memory").into_lua_multi(lua)
        }
        Err(Fault::Lua(error)) => Err(error),
    }
}

/// A Lua function over `f` that reports failures as described above.
pub fn function<F, R>(lua: &Lua, f: F) -> mlua::Result<Function>
where
    F: Fn(&Lua, MultiValue) -> Reply<R> + 'static,
    R: IntoLuaMulti,
{
    misuse::checked(lua, &raw(lua, f)?)
}

/// A Lua function over `f` without the wrapper.
pub fn raw<F, R>(lua: &Lua, f: F) -> mlua::Result<Function>
where
    F: Fn(&Lua, MultiValue) -> Reply<R> + 'static,
    R: IntoLuaMulti,
{
    lua.create_function(move |lua, args: MultiValue| settle(lua, f(lua, args)))
}

/// Puts a function of the public interface into `table` under `name`.
pub fn export<F, R>(lua: &Lua, table: &Table, name: &str, f: F) -> mlua::Result<()>
where
    F: Fn(&Lua, MultiValue) -> Reply<R> + 'static,
    R: IntoLuaMulti,
{
    table.raw_set(name, function(lua, f)?)
}

/// Runs an embedded Lua chunk with the given arguments and returns its first result.
///
/// `name` is what tracebacks show, e.g. `moonbridge.io.wait`.
pub fn chunk<R: mlua::FromLuaMulti>(
    lua: &Lua,
    name: &str,
    source: &str,
    args: impl IntoLuaMulti,
) -> mlua::Result<R> {
    compat::chunk(lua, name, source)?.call(args)
}

/// What `make` returned when it was first called in this Lua state: the tables of a module.
///
/// # Errors
/// Those of `make`.
pub fn once<T: Clone + 'static>(lua: &Lua, make: fn(&Lua) -> mlua::Result<T>) -> mlua::Result<T> {
    if let Some(made) = lua.app_data_ref::<T>() {
        return Ok(made.clone());
    }
    let made = make(lua)?;
    lua.set_app_data(made.clone());
    Ok(made)
}

/// A Lua string made of raw bytes.
pub fn bytes(lua: &Lua, bytes: &[u8]) -> mlua::Result<Value> {
    lua.create_string(bytes)?.into_lua(lua)
}
