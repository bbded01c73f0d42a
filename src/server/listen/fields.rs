//! Fields of a listener in `listen{...}`: whatever is wrong with one is misuse that names the listener.

use mlua::{Table, Value};

use crate::amount::{Amount, integer};
use crate::binding::{self, Fault, Reply};
use crate::io::listen::{Access, BACKLOG};
use crate::server::credentials;

/// The greatest number of waiting connections: more must be a mistake.
const MAX_BACKLOG: f64 = 65_535.0;

/// The permissions, the owner and the group of a socket file.
pub fn access(index: usize, table: &Table) -> Reply<Access> {
    let what = |name| format!("Field \"{name}\" of listener #{index}");
    let mode = match table.get::<Value>("mode")? {
        Value::Nil => None,
        Value::String(digits) => Some(u32::from_str_radix(&digits.to_string_lossy(), 8).ok()),
        other => Some(integer(&other).and_then(|mode| u32::try_from(mode).ok())),
    };
    let mode = match mode {
        Some(None) | Some(Some(0o1000..)) => {
            return Err(Fault::misuse(format!(
                "{} must be a string of octal digits such as \"0660\", or a number up to 511 (0777)",
                what("mode")
            )));
        }
        mode => mode.flatten(),
    };
    let owner = credentials::user_of(&table.get("owner")?, &what("owner"))?.map(|(uid, _)| uid);
    let group = credentials::group_of(&table.get("group")?, &what("group"))?;
    Ok(Access { mode, owner, group })
}

/// How many connections may wait to be accepted.
pub fn backlog(index: usize, table: &Table) -> Reply<i32> {
    match table.get("backlog")? {
        Amount::Missing => Ok(BACKLOG),
        Amount::Of(count) if count.fract() == 0.0 && (1.0..=MAX_BACKLOG).contains(&count) => {
            Ok(count as i32)
        }
        _ => Err(Fault::misuse(format!(
            "Field \"backlog\" of listener #{index} must be a number of connections from 1 to {MAX_BACKLOG}"
        ))),
    }
}

/// A field that is true or false, if it is there.
pub fn flag(index: usize, table: &Table, field: &str) -> Reply<Option<bool>> {
    match table.get::<Value>(field)? {
        Value::Nil => Ok(None),
        Value::Boolean(flag) => Ok(Some(flag)),
        other => Err(wrong(index, field, "boolean", &other)),
    }
}

/// A field that is a string, if it is there.
pub fn text(index: usize, table: &Table, field: &str) -> Reply<Option<String>> {
    match table.get::<Value>(field)? {
        Value::Nil => Ok(None),
        Value::String(text) => Ok(Some(text.to_string_lossy())),
        other => Err(wrong(index, field, "string", &other)),
    }
}

fn wrong(index: usize, field: &str, expected: &str, value: &Value) -> Fault {
    let kind = binding::kind(value);
    Fault::misuse(format!(
        "Field \"{field}\" of listener #{index} must be a {expected}, not a {kind}"
    ))
}
