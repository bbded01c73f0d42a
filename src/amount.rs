//! Sizes, counts and times as a script gives them.
//!
//! Numbers are converted as Lua does: a string counts if Lua takes it for a number (reference manual of Lua,
//! "Coercions and Conversions"), and a float with an integer value is that integer.

use mlua::{FromLua, Lua, Value};

/// What stands where an amount is expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Nil.
    Missing,
    /// False: nothing, or no limit.
    Off,
    /// A number that is neither negative nor NaN; perhaps infinite.
    Of(f64),
    /// Anything else.
    Wrong,
}

impl FromLua for Amount {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Amount> {
        match value {
            Value::Nil => Ok(Amount::Missing),
            Value::Boolean(false) => Ok(Amount::Off),
            value => {
                let number = lua.coerce_number(value)?.filter(|number| *number >= 0.0);
                Ok(number.map_or(Amount::Wrong, Amount::Of))
            }
        }
    }
}
