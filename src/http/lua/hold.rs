//! `request:hold{...}`: its options, checked.

use mlua::{FromLua, Lua, LuaString, MultiValue, Table, Value};

use super::step::SharedConnection;
use crate::amount::{Amount, MAX_SECONDS};
use crate::binding::{self, Fault, Reply};
use crate::known_options;
use crate::server::ipc::clock;
use crate::server::ipc::held_state::{HeldState, Rules};
use crate::server::push::lua::{LONGEST_NAME, want};
use crate::server::worker::handle_methods;
use crate::sys::os::monotonic::MonotonicTime;

/// How many bytes may wait for a client, unless the handler says otherwise.
const LIMIT: u64 = 256 * 1024;

/// The most topics of a connection.
const MOST_TOPICS: usize = 100;

/// How long the texts of all options may be together, in bytes.
const LONGEST: usize = 16 * 1024;

const NAMES: [&str; 10] = [
    "topics",
    "last_id",
    "heartbeat",
    "timeout",
    "once",
    "otherwise",
    "limit",
    "overflow",
    "farewell",
    "on_gap",
];

/// Puts `hold` into the table: `request:hold(options)` returns true.
pub fn add(lua: &Lua, table: &Table, shared: &SharedConnection) -> mlua::Result<()> {
    let shared = shared.clone();
    binding::export(lua, table, "hold", move |lua, args: MultiValue| {
        let options = match args.get(1) {
            Some(Value::Table(options)) => options,
            other => {
                let kind = other.map_or("nothing", binding::kind);
                return Err(Fault::misuse(format!("hold expects a table of options, not {kind}")));
            }
        };
        known_options::check(options, "hold", &NAMES, 0)?;
        let held = read(lua, options)?;
        let otherwise = text(options, "otherwise")?;
        if otherwise.is_some() && !held.rules.once {
            return Err(Fault::misuse("hold: \"otherwise\" needs \"once\""));
        }
        if !handle_methods::is_worker() {
            return Err(Fault::misuse("hold needs a server: this process is no worker of one"));
        }
        let Ok(mut connection) = shared.try_borrow_mut() else {
            return Err(Fault::misuse("request is in use"));
        };
        want(lua);
        match connection.exchange.hold(held, otherwise.as_deref()) {
            Ok(()) => Ok(true),
            Err(problem) => Err(Fault::Misuse(connection.exchange.raised(problem).into_owned())),
        }
    })
}

fn read(lua: &Lua, options: &Table) -> Reply<HeldState> {
    let timeout = milliseconds(lua, options.get("timeout")?, "timeout")?;
    let deadline = timeout.map(|time| {
        let now = clock::monotonic_milliseconds(MonotonicTime::now());
        now.saturating_add(time)
    });
    let rules = Rules {
        once: flag(options, "once")?,
        limit: limit(lua, options)?,
        drops_oldest: drops_oldest(options)?,
        heartbeat: heartbeat(lua, options)?,
        farewell: text(options, "farewell")?,
        on_gap: text(options, "on_gap")?,
        ..Rules::default()
    };
    let state = HeldState {
        deadline,
        topics: topics(options)?,
        last_id: last_id(options)?,
        rules,
        ..HeldState::default()
    };
    if state.encode().len() > LONGEST {
        return Err(Fault::misuse(format!(
            "hold: the options together have more than {LONGEST} bytes"
        )));
    }
    Ok(state)
}

fn topics(options: &Table) -> Reply<Vec<Vec<u8>>> {
    let list = match options.get::<Value>("topics")? {
        Value::String(name) => vec![Value::String(name)],
        Value::Table(list) => binding::list(&list)?.ok_or_else(|| {
            Fault::misuse("hold: topics must be a name, or a list of names without keys or gaps")
        })?,
        other => return Err(wrong("topics", "a name, or a list of names", &other)),
    };
    if list.is_empty() || list.len() > MOST_TOPICS {
        return Err(Fault::misuse(format!("hold: there must be 1 to {MOST_TOPICS} topics")));
    }
    let name = |value: Value| match value {
        Value::String(name) if (1..=LONGEST_NAME).contains(&name.as_bytes().len()) => {
            Ok(name.as_bytes().to_vec())
        }
        Value::String(name) => Err(Fault::misuse(format!(
            "hold: the name of a topic must have 1 to {LONGEST_NAME} bytes, not {}",
            name.as_bytes().len()
        ))),
        other => Err(wrong("topics", "a name, or a list of names", &other)),
    };
    list.into_iter().map(name).collect()
}

/// What a client says it has. It may say anything.
fn last_id(options: &Table) -> Reply<Option<Vec<u8>>> {
    let text = text(options, "last_id")?.filter(|id| !id.is_empty());
    // No message has such a long one.
    Ok(text.map(|mut id| {
        id.truncate(LONGEST_NAME + 1);
        id
    }))
}

fn heartbeat(lua: &Lua, options: &Table) -> Reply<Option<(u64, Vec<u8>)>> {
    let beat = match options.get::<Value>("heartbeat")? {
        Value::Nil | Value::Boolean(false) => return Ok(None),
        Value::Table(beat) => beat,
        other => return Err(wrong("heartbeat", "{ seconds, text }", &other)),
    };
    let time = milliseconds(lua, beat.get(1)?, "heartbeat")?.filter(|time| *time > 0);
    let text = match beat.get::<Value>(2)? {
        Value::String(text) if !text.as_bytes().is_empty() => text.as_bytes().to_vec(),
        other => return Err(wrong("heartbeat", "{ seconds, text }", &other)),
    };
    let time = time.ok_or_else(|| {
        Fault::misuse("Option \"heartbeat\" of hold must be { seconds, text }, with some time")
    })?;
    Ok(Some((time, text)))
}

fn limit(lua: &Lua, options: &Table) -> Reply<u64> {
    match Amount::from_lua(options.get("limit")?, lua)? {
        Amount::Missing => Ok(LIMIT),
        Amount::Off => Ok(u64::MAX / 2),
        Amount::Of(bytes) => Ok(bytes as u64),
        Amount::Wrong => Err(Fault::misuse("Option \"limit\" of hold must be a number of bytes")),
    }
}

fn drops_oldest(options: &Table) -> Reply<bool> {
    match options.get::<Value>("overflow")? {
        Value::Nil => Ok(false),
        Value::String(text) if text.as_bytes() == b"close" => Ok(false),
        Value::String(text) if text.as_bytes() == b"drop_oldest" => Ok(true),
        other => Err(wrong("overflow", "\"close\" or \"drop_oldest\"", &other)),
    }
}

fn flag(options: &Table, name: &str) -> Reply<bool> {
    match options.get::<Value>(name)? {
        Value::Nil => Ok(false),
        Value::Boolean(value) => Ok(value),
        other => Err(wrong(name, "a boolean", &other)),
    }
}

fn text(options: &Table, name: &str) -> Reply<Option<Vec<u8>>> {
    match options.get::<Value>(name)? {
        Value::Nil | Value::Boolean(false) => Ok(None),
        Value::String(text) => Ok(Some(bytes(&text))),
        other => Err(wrong(name, "a string", &other)),
    }
}

fn bytes(text: &LuaString) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn milliseconds(lua: &Lua, value: Value, name: &str) -> Reply<Option<u64>> {
    match Amount::from_lua(value, lua)? {
        Amount::Missing | Amount::Off => Ok(None),
        Amount::Of(seconds) => Ok(Some((seconds.min(MAX_SECONDS) * 1000.0).ceil() as u64)),
        Amount::Wrong => {
            Err(Fault::misuse(format!("Option \"{name}\" of hold must be a number of seconds")))
        }
    }
}

fn wrong(name: &str, expected: &str, value: &Value) -> Fault {
    let kind = match value {
        Value::String(text) => format!("\"{}\"", text.to_string_lossy()),
        other => format!("a {}", binding::kind(other)),
    };
    Fault::misuse(format!("Option \"{name}\" of hold must be {expected}, not {kind}"))
}
