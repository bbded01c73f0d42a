//! `request:log_field(name, value)`: a handler adds to its request's record in the access log.

use mlua::{Lua, MultiValue, Table, Value};

use crate::binding::{self, Fault};
use crate::server::ipc::request_record::LogValue;
use crate::server::worker::request_log;

/// Puts `log_field(name, value)` into the table.
pub fn add(lua: &Lua, native: &Table) -> mlua::Result<()> {
    binding::export(lua, native, "log_field", |lua, args: MultiValue| {
        let mut args = args.into_iter();
        let name = match args.next() {
            Some(Value::String(name)) if !name.as_bytes().is_empty() => name,
            other => {
                let kind = match other {
                    Some(Value::String(_)) => "an empty string".to_owned(),
                    Some(other) => format!("a {}", binding::kind(&other)),
                    None => "nothing".to_owned(),
                };
                return Err(Fault::misuse(format!("log_field expects a name, not {kind}")));
            }
        };
        let value = args.next().unwrap_or(Value::Nil);
        let is_json = !matches!(value, Value::Number(number) if !number.is_finite());
        let (text, flag);
        let field = match &value {
            Value::Boolean(value) => {
                flag = *value;
                LogValue::Boolean(flag)
            }
            Value::String(value) => {
                text = value.as_bytes();
                LogValue::Text(&text)
            }
            Value::Integer(_) | Value::Number(_) => {
                let Some(digits) = lua.coerce_string(value.clone())? else { return Ok(()) };
                text = digits.as_bytes();
                if is_json { LogValue::Number(&text) } else { LogValue::Text(&text) }
            }
            other => {
                let (name, kind) = (name.to_string_lossy(), binding::kind(other));
                return Err(Fault::misuse(format!(
                    "Field \"{name}\" of the access log must be a string, a number or a boolean, not a {kind}"
                )));
            }
        };
        if !request_log::add_field(&name.as_bytes(), field) {
            let name = name.to_string_lossy();
            return Err(Fault::misuse(format!("Field \"{name}\" is too long for the access log")));
        }
        Ok(())
    })
}
