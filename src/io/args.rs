//! Argument checking for the functions of this library. Errors are thrown as plain strings, worded
//! like those of Lua's standard library.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;

use mlua::{Lua, LuaString, MultiValue, Table, Value};

use super::handle_table::stream_of_value;
use super::stream::Stream;
use crate::binding::{self, Fault, Reply};

/// The arguments of one call, to be taken in order.
pub struct Args {
    /// The function's name, for messages.
    name: &'static str,
    /// The remaining arguments.
    values: MultiValue,
    /// The number of the last argument taken, for messages; `self` does not count.
    index: usize,
}

impl Args {
    /// The arguments of a call of `name`.
    pub fn new(name: &'static str, values: MultiValue) -> Self {
        Args { name, values, index: 0 }
    }

    /// The next argument, nil after the last one.
    pub fn value(&mut self) -> Value {
        self.index += 1;
        self.values.pop_front().unwrap_or(Value::Nil)
    }

    /// Takes the next argument if it is a table.
    pub fn table(&mut self) -> Option<Table> {
        let Some(Value::Table(table)) = self.values.front().cloned() else { return None };
        self.value();
        Some(table)
    }

    /// A "bad argument" error for the last argument taken.
    pub fn bad(&self, what: impl std::fmt::Display) -> Fault {
        Fault::Misuse(format!("bad argument #{} to '{}' ({what})", self.index, self.name))
    }

    fn expected(&self, what: &str, got: &Value) -> Fault {
        self.bad(format_args!("{what} expected, got {}", binding::kind(got)))
    }

    /// `self` of a method of handles, and its stream.
    pub fn stream(&mut self) -> Reply<(Value, Rc<RefCell<Stream>>)> {
        let value = self.values.pop_front().unwrap_or(Value::Nil);
        match stream_of_value(&value) {
            Some(stream) => Ok((value, stream)),
            None => Err(self.bad_self("I/O handle", &value)),
        }
    }

    /// The error for a `self` of the wrong type.
    pub fn bad_self(&self, what: &str, got: &Value) -> Fault {
        Fault::Misuse(format!(
            "calling '{}' on bad self ({what} expected, got {})",
            self.name,
            binding::kind(got)
        ))
    }

    /// Takes `self`, of any type.
    pub fn this(&mut self) -> Value {
        self.values.pop_front().unwrap_or(Value::Nil)
    }

    /// A number, or a string that converts to one; `None` for nil.
    pub fn number(&mut self, lua: &Lua) -> Reply<Option<f64>> {
        let value = self.value();
        if value.is_nil() {
            return Ok(None);
        }
        match lua.coerce_number(value.clone())? {
            None => Err(self.expected("number", &value)),
            number => Ok(number),
        }
    }

    /// A string or number as string; `None` for nil.
    pub fn optional_string(&mut self, lua: &Lua) -> Reply<Option<LuaString>> {
        match self.value() {
            Value::Nil => Ok(None),
            Value::String(text) => Ok(Some(text)),
            number @ (Value::Integer(_) | Value::Number(_)) => Ok(lua.coerce_string(number)?),
            other => Err(self.expected("string", &other)),
        }
    }

    /// A string or number as string.
    pub fn string(&mut self, lua: &Lua) -> Reply<LuaString> {
        match self.optional_string(lua)? {
            Some(text) => Ok(text),
            None => Err(self.expected("string", &Value::Nil)),
        }
    }

    /// All further arguments, each a string or number as string.
    pub fn strings(&mut self, lua: &Lua) -> Reply<Vec<LuaString>> {
        let mut all = Vec::with_capacity(self.values.len());
        while !self.values.is_empty() {
            all.push(self.string(lua)?);
        }
        Ok(all)
    }
}

/// Borrows the stream for an operation.
///
/// # Errors
/// Misuse, if an operation on it is in progress: a finalizer runs during another function of this
/// library.
pub fn borrow(stream: &RefCell<Stream>) -> Reply<RefMut<'_, Stream>> {
    stream.try_borrow_mut().map_err(|_| Fault::misuse("Attempt to use an I/O handle recursively"))
}
