//! Refuses options that do not exist: a misspelt one would have no effect, and nobody would notice.

use mlua::{Function, Lua, Table, Value};

use crate::binding::{self, Fault, Reply};

/// Checks that `table` has no other keys than those `known` and the positions 1 to `positions`.
///
/// # Errors
/// Misuse that names `what` the table is for, the unknown key, and the nearest known one or, if none
/// is similar, all of them.
pub fn check(table: &Table, what: &str, known: &[&str], positions: usize) -> Reply<()> {
    for pair in table.pairs::<Value, Value>() {
        let name = match pair?.0 {
            Value::String(name) => name.to_string_lossy(),
            Value::Integer(index) if (1..=positions as i64).contains(&index) => continue,
            Value::Integer(index) => index.to_string(),
            other => binding::kind(&other).to_owned(),
        };
        if !known.contains(&name.as_str()) {
            let hint = hint(&name, known);
            return Err(Fault::misuse(format!("Unknown option \"{name}\" of {what}; {hint}")));
        }
    }
    Ok(())
}

/// The hint for an unknown option `name`: the nearest known one or, if none is similar, all of them.
pub fn hint(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => format!("known: {}", known.join(", ")),
    }
}

/// As a Lua function: `nearest(name, known)` returns the known name that is most similar, or nil.
///
/// # Errors
/// "not enough memory".
pub fn nearest_function(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|_, (name, known): (mlua::LuaString, Vec<String>)| {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        Ok(nearest(&name.to_string_lossy(), &known).map(str::to_owned))
    })
}

/// The known name that was probably meant by `name`: one that only lacks a part of it or has one more
/// ("header_timeout", "hostname"), or else one of which more than half the bytes can stay. Of those, the one with the
/// fewest edits.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let similar = |known: &str| {
        let edits = edit_distance(name.as_bytes(), known.as_bytes());
        let (shorter, longer) = (name.len().min(known.len()), name.len().max(known.len()));
        let is_part = edits == longer - shorter && shorter > 2 && 4 * shorter >= longer;
        (is_part || 2 * edits < name.len() + known.len()).then_some((!is_part, edits))
    };
    let rated = known.iter().filter_map(|known| Some((similar(known)?, known)));
    rated.min_by_key(|(rating, _)| *rating).map(|(_, known)| *known)
}

/// How many bytes have to be inserted and removed to turn one text into the other.
fn edit_distance(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (position, byte) in from.iter().enumerate() {
        let mut diagonal = position;
        let mut left = position + 1;
        row[0] = left;
        for (cell, other) in row.iter_mut().skip(1).zip(to) {
            let above = *cell;
            left = if byte == other { diagonal } else { left.min(above) + 1 };
            (*cell, diagonal) = (left, above);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, expected) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 5), ("hostname", "host", 4)]
        {
            assert_eq!(edit_distance(from.as_bytes(), to.as_bytes()), expected, "{from} {to}");
            assert_eq!(edit_distance(to.as_bytes(), from.as_bytes()), expected, "{to} {from}");
        }
    }

    #[test]
    fn the_nearest_name_is_found_unless_none_is_similar() {
        let known = [
            "host",
            "port",
            "pre_fork",
            "max_fork",
            "idle_timeout",
            "request_header_timeout",
            "request_body_size_limit",
        ];
        for (name, expected) in [
            ("hostname", Some("host")),
            ("Port", Some("port")),
            ("pre_forks", Some("pre_fork")),
            ("request_body_limit", Some("request_body_size_limit")),
            ("header_timeout", Some("request_header_timeout")),
            ("request", Some("request_header_timeout")),
            ("timeouts", Some("idle_timeout")),
            ("uid", None),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name}");
        }
    }
}
