//! Lists of trusted peers in options: addresses, networks, and "unix" for local sockets.

use mlua::Value;

use crate::binding::{self, Fault, Reply};
use crate::proxy::networks::Networks;

/// Reads such a list; `what` names the option in errors. None if there is none.
///
/// # Errors
/// Misuse that names the option, and the entry that is no network.
pub fn read(value: &Value, what: &str) -> Reply<Option<Networks>> {
    let table = match value {
        Value::Nil => return Ok(None),
        Value::Table(table) => table,
        other => {
            return Err(Fault::misuse(format!(
                "{what} must be a list of networks such as {{\"10.0.0.0/8\", \"::1\", \"unix\"}}, not a {}",
                binding::kind(other)
            )));
        }
    };
    let mut networks = Networks::default();
    for entry in table.pairs::<Value, Value>() {
        let (key, value) = entry?;
        let Value::String(text) = &value else {
            return Err(Fault::misuse(format!(
                "{what} must be a list of strings, but has a {}",
                binding::kind(&value)
            )));
        };
        let text = text.to_string_lossy();
        if !matches!(key, Value::Integer(_)) {
            return Err(Fault::misuse(format!("{what} must be a list, without names: \"{text}\"")));
        }
        networks
            .add(&text)
            .map_err(|wrong| Fault::misuse(format!("{what}: \"{text}\" {wrong}")))?;
    }
    Ok(Some(networks))
}
