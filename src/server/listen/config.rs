//! `listen{...}`: from a Lua table to a checked pool configuration.
//!
//! This validates everything once, so that supervisor and workers never see an invalid value
//! (reference, "Global function listen{...}").

use std::time::Duration;

use mlua::{Function, Lua, Table, Value};

use super::speaks_first;
use crate::amount::Amount;
use crate::binding::{self, Fault, Reply};
use crate::io::address;

/// The most listeners one pool may have.
pub const MAX_LISTENERS: usize = 100;

/// The maximum of times in options, in seconds: three years, far from overflow.
const MAX_SECONDS: f64 = 1e8;

/// The maximum number of workers of a pool: more must be a mistake.
const MAX_WORKERS: f64 = 10_000.0;

/// One positional entry of `listen{...}`, not opened yet.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerSpec {
    /// A TCP port.
    Tcp {
        /// Name or address of the interface.
        host: String,
        /// Port number or service name.
        port: String,
        /// Leave connections to the kernel until the client has sent something.
        deferred: bool,
    },
    /// A Unix domain socket.
    Local {
        /// Path in the file system.
        path: std::ffi::OsString,
    },
    /// A socket passed by a service manager.
    Inherited {
        /// Its name; `None`: the first unclaimed one.
        name: Option<String>,
        /// As for a TCP port.
        deferred: bool,
    },
    /// A timer.
    Interval {
        /// What the handler finds in `socket.interval`.
        name: String,
        /// Time between ticks.
        delay: Duration,
        /// Schedule ticks at fixed times, whatever the run time of the handler.
        strict: bool,
    },
    /// A function that runs once; the server shuts down when it ends.
    Main {
        /// What the handler finds in `socket.main`.
        name: String,
    },
}

/// The named options of one pool.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// The number of idle workers to keep.
    pub pre_fork: usize,
    /// The minimum number of workers.
    pub min_fork: usize,
    /// The maximum number of workers.
    pub max_fork: usize,
    /// Time between forks that enlarge the pool.
    pub fork_delay: Duration,
    /// Time before a fork after a failed `prepare` or a failed fork.
    pub fork_error_delay: Duration,
    /// Time between terminations of surplus workers.
    pub exit_delay: Duration,
    /// An idle worker ends after this time.
    pub idle_timeout: Option<Duration>,
    /// The memory limit of a worker's Lua state, in bytes.
    pub memory_limit: Option<usize>,
}

/// The functions of one pool.
#[derive(Debug, Clone)]
pub struct Handlers {
    /// Runs once in each new worker.
    pub prepare: Option<Function>,
    /// Runs for each connection, tick or main call.
    pub connect: Function,
    /// Runs when a worker ends gracefully.
    pub finish: Option<Function>,
}

/// The parsed argument of `listen{...}`.
#[derive(Debug)]
pub struct Listen {
    /// The positional entries.
    pub listeners: Vec<ListenerSpec>,
    /// The named numeric options.
    pub pool: PoolConfig,
    /// The named functions.
    pub handlers: Handlers,
}

/// Reads the argument of `listen{...}`.
pub fn parse(lua: &Lua, table: &Table) -> Reply<Listen> {
    let count = table.raw_len();
    if count == 0 {
        return Err(Fault::misuse(
            "No listen ports specified; at least one listener is expected as a positional entry",
        ));
    }
    if count > MAX_LISTENERS {
        return Err(Fault::misuse(format!("Too many listeners (at most {MAX_LISTENERS})")));
    }
    let handler = function(table, "connect");
    let deferred = match &handler {
        Ok(Some(connect)) => speaks_first::is_client_first(lua, connect)?,
        _ => false,
    };
    let mut listeners = Vec::with_capacity(count);
    for index in 1..=count {
        listeners.push(listener(index, &table.raw_get(index)?, deferred)?);
    }
    let pool = pool(table, &listeners)?;
    let handlers = Handlers {
        prepare: function(table, "prepare")?,
        connect: handler?.ok_or_else(|| {
            Fault::misuse("Option \"connect\" must be a function; it handles each connection")
        })?,
        finish: function(table, "finish")?,
    };
    Ok(Listen { listeners, pool, handlers })
}

/// Parses one positional entry; `deferred` is the default for that option.
fn listener(index: usize, value: &Value, deferred: bool) -> Reply<ListenerSpec> {
    let Value::Table(table) = value else {
        return Err(Fault::misuse(format!(
            "Listener #{index} must be a table such as {{proto=\"tcp\", port=8080}}, not a {}",
            binding::kind(value)
        )));
    };
    let proto = match table.get::<Value>("proto")? {
        Value::String(proto) => proto.to_string_lossy(),
        Value::Nil => {
            return Err(Fault::misuse(format!(
                "No protocol specified for listener #{index}; \"proto\" must be \"tcp\", \"local\", \"interval\", \"main\" or \"inherit\""
            )));
        }
        other => {
            return Err(Fault::misuse(format!(
                "Field \"proto\" of listener #{index} must be a string, not a {}",
                binding::kind(&other)
            )));
        }
    };
    match proto.as_str() {
        "tcp" => tcp(index, table, deferred),
        "local" => local(index, table),
        "inherit" => {
            let name = text(index, table, "name")?;
            let deferred = flag(index, table, "deferred")?.unwrap_or(deferred);
            Ok(ListenerSpec::Inherited { name, deferred })
        }
        "interval" => interval(index, table),
        "main" => Ok(ListenerSpec::Main { name: text(index, table, "name")?.unwrap_or_default() }),
        other => Err(Fault::misuse(format!("Unknown protocol \"{other}\" of listener #{index}"))),
    }
}

fn tcp(index: usize, table: &Table, deferred: bool) -> Reply<ListenerSpec> {
    let host = text(index, table, "host")?.unwrap_or_else(|| "::".to_owned());
    let port = match table.get::<Value>("port")? {
        Value::Nil => {
            return Err(Fault::misuse(format!(
                "No port specified; field \"port\" is required for TCP listener #{index}"
            )));
        }
        port @ (Value::Integer(_) | Value::Number(_) | Value::String(_)) => {
            address::port(&port.to_string()?).ok_or_else(|| bad_port(index))?
        }
        _ => return Err(bad_port(index)),
    };
    let deferred = flag(index, table, "deferred")?.unwrap_or(deferred);
    Ok(ListenerSpec::Tcp { host, port, deferred })
}

fn bad_port(index: usize) -> Fault {
    Fault::misuse(format!(
        "Field \"port\" of listener #{index} must be a number from 0 to 65535 or a service name"
    ))
}

fn local(index: usize, table: &Table) -> Reply<ListenerSpec> {
    use std::os::unix::ffi::OsStringExt;
    let path = match table.get::<Value>("path")? {
        Value::String(path) => path.as_bytes().to_vec(),
        _ => Vec::new(),
    };
    if path.is_empty() || path.len() > 107 || path.contains(&0) {
        return Err(Fault::misuse(format!(
            "No valid path specified for local socket; field \"path\" of listener #{index} must be a string of 1 to 107 bytes"
        )));
    }
    Ok(ListenerSpec::Local { path: std::ffi::OsString::from_vec(path) })
}

fn interval(index: usize, table: &Table) -> Reply<ListenerSpec> {
    let name = text(index, table, "name")?.unwrap_or_default();
    let delay = match table.get("delay")? {
        Amount::Of(delay) if delay > 0.0 && delay <= MAX_SECONDS => Duration::from_secs_f64(delay),
        _ => {
            return Err(Fault::misuse(format!(
                "No valid interval delay specified; field \"delay\" of listener #{index} must be a positive number of seconds"
            )));
        }
    };
    let strict = flag(index, table, "strict")?.unwrap_or(false);
    Ok(ListenerSpec::Interval { name, delay, strict })
}

fn flag(index: usize, table: &Table, field: &str) -> Reply<Option<bool>> {
    match table.get::<Value>(field)? {
        Value::Nil => Ok(None),
        Value::Boolean(flag) => Ok(Some(flag)),
        other => Err(Fault::misuse(format!(
            "Field \"{field}\" of listener #{index} must be a boolean, not a {}",
            binding::kind(&other)
        ))),
    }
}

fn text(index: usize, table: &Table, field: &str) -> Reply<Option<String>> {
    match table.get::<Value>(field)? {
        Value::Nil => Ok(None),
        Value::String(text) => Ok(Some(text.to_string_lossy())),
        other => Err(Fault::misuse(format!(
            "Field \"{field}\" of listener #{index} must be a string, not a {}",
            binding::kind(&other)
        ))),
    }
}

fn pool(table: &Table, listeners: &[ListenerSpec]) -> Reply<PoolConfig> {
    let mains = listeners.iter().filter(|spec| matches!(spec, ListenerSpec::Main { .. })).count();
    let pre_fork = workers(table, "pre_fork")?;
    let min_fork = workers(table, "min_fork")?;
    let max_fork = workers(table, "max_fork")?;
    if max_fork == Some(0) {
        return Err(Fault::misuse("Option \"max_fork\" is expected to be at least 1"));
    }
    let fork_delay = seconds(table, "fork_delay")?.unwrap_or(Duration::from_millis(250));
    let fork_error_delay = seconds(table, "fork_error_delay")?.unwrap_or(Duration::from_secs(2));
    let (pre_fork, min_fork, max_fork) = if mains == listeners.len() {
        (0, mains, mains)
    } else {
        let pre_fork = pre_fork.unwrap_or(1);
        let min_fork = min_fork.unwrap_or(pre_fork.max(2));
        let max_fork = max_fork.unwrap_or(min_fork.max(16));
        // Without any worker, connections would never be accepted.
        (pre_fork.min(max_fork), min_fork.clamp(1, max_fork), max_fork)
    };
    Ok(PoolConfig {
        pre_fork,
        min_fork,
        max_fork,
        fork_delay,
        fork_error_delay: fork_error_delay.max(fork_delay),
        exit_delay: seconds(table, "exit_delay")?.unwrap_or(Duration::from_secs(60)),
        idle_timeout: seconds(table, "idle_timeout")?.filter(|time| !time.is_zero()),
        memory_limit: memory(table)?,
    })
}

/// An option with a finite amount; false stands for `off`, if that is given.
fn option(table: &Table, name: &str, off: Option<f64>) -> Reply<Option<f64>> {
    match table.get(name)? {
        Amount::Missing => Ok(None),
        Amount::Off if off.is_some() => Ok(off),
        Amount::Of(number) if number.is_finite() => Ok(Some(number)),
        _ => {
            Err(Fault::misuse(format!("Option \"{name}\" is expected to be a non-negative number")))
        }
    }
}

fn workers(table: &Table, name: &str) -> Reply<Option<usize>> {
    match option(table, name, None)? {
        None => Ok(None),
        Some(count) if count.fract() == 0.0 && count <= MAX_WORKERS => Ok(Some(count as usize)),
        Some(_) => Err(Fault::misuse(format!(
            "Option \"{name}\" is expected to be a non-negative number without a fraction, at most {MAX_WORKERS}"
        ))),
    }
}

/// An option that is a time: a number of seconds, or false for 0.
pub fn seconds(table: &Table, name: &str) -> Reply<Option<Duration>> {
    match option(table, name, Some(0.0))? {
        None => Ok(None),
        Some(time) if time <= MAX_SECONDS => Ok(Some(Duration::from_secs_f64(time))),
        Some(_) => Err(Fault::misuse(format!(
            "Option \"{name}\" is expected to be a non-negative number of seconds, at most 1e8"
        ))),
    }
}

/// A size in bytes; false for no limit.
pub fn bytes(table: &Table, name: &str) -> Reply<Option<usize>> {
    match option(table, name, Some(usize::MAX as f64))? {
        None => Ok(None),
        Some(size) if size.fract() == 0.0 => Ok(Some(size as usize)),
        Some(_) => Err(Fault::misuse(format!(
            "Option \"{name}\" is expected to be a non-negative number of bytes without a fraction"
        ))),
    }
}

fn memory(table: &Table) -> Reply<Option<usize>> {
    let limit = option(table, "memory_limit", Some(0.0))?;
    Ok(limit.filter(|limit| *limit > 0.0).map(|limit| limit as usize))
}

fn function(table: &Table, name: &str) -> Reply<Option<Function>> {
    match table.get::<Value>(name)? {
        Value::Nil => Ok(None),
        Value::Function(function) => Ok(Some(function)),
        other => Err(Fault::misuse(format!(
            "Option \"{name}\" must be a function, not a {}",
            binding::kind(&other)
        ))),
    }
}
