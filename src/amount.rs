//! Sizes, counts and times in options and arguments.
//!
//! Conversions follow Lua (Lua reference manual, "Coercions and Conversions"): strings that Lua
//! converts to numbers are accepted, and a float with an integer value is that integer.

use mlua::{FromLua, Lua, Value};

/// The longest time of options and arguments, in seconds: three years, far from overflow.
pub const MAX_SECONDS: f64 = 1e8;

/// An integer, or a float with the value of one.
pub fn integer(value: &Value) -> Option<i64> {
    match *value {
        Value::Integer(number) => Some(number),
        Value::Number(number) if number.fract() == 0.0 => Some(number as i64),
        _ => None,
    }
}

/// A value where an amount is expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Nil.
    Missing,
    /// False: nothing, or no limit.
    Off,
    /// A number that is neither negative nor NaN; it may be infinite.
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
