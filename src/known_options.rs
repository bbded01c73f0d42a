//! Refuses options that do not exist: a misspelt one would have no effect, and nobody would notice.

use mlua::{Table, Value};

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
            let hint = match nearest(&name, known) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => format!("known: {}", known.join(", ")),
            };
            return Err(Fault::misuse(format!("Unknown option \"{name}\" of {what}; {hint}")));
        }
    }
    Ok(())
}

/// The known name that needs the fewest edits to become `name`, if half of their bytes can stay.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let edits = |known: &str| edit_distance(name.as_bytes(), known.as_bytes());
    let best = known.iter().min_by_key(|known| edits(known))?;
    (2 * edits(best) <= name.len() + best.len()).then_some(*best)
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
        let known = ["host", "port", "pre_fork", "max_fork", "request_body_size_limit"];
        for (name, expected) in [
            ("hostname", Some("host")),
            ("Port", Some("port")),
            ("pre_forks", Some("pre_fork")),
            ("request_body_limit", Some("request_body_size_limit")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name}");
        }
    }
}
