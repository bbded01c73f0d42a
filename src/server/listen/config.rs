//! `listen{...}`: from a Lua table to a checked pool configuration.
//!
//! This validates everything once, so that supervisor and workers never see an invalid value
//! (reference, "Global function listen{...}").

use std::time::Duration;

use mlua::{Function, Lua, Table, Value};

use super::speaks_first;
use super::spec::{ListenEntry, ListenerSpec, StatusSpec};
use crate::amount::{Amount, MAX_SECONDS};
use crate::binding::{self, Fault, Reply};
use crate::known_options;
use crate::server::credentials::Credentials;

/// The most listeners one pool may have.
pub const MAX_LISTENERS: usize = 100;

/// The maximum number of workers of a pool: more must be a mistake.
const MAX_WORKERS: f64 = 10_000.0;

/// The names of all options of a pool.
const NAMES: [&str; 17] = [
    "prepare",
    "connect",
    "finish",
    "pre_fork",
    "min_fork",
    "max_fork",
    "fork_delay",
    "fork_error_delay",
    "exit_delay",
    "idle_timeout",
    IDLE_TIME,
    "memory_limit",
    "max_requests",
    "max_requests_jitter",
    "max_memory",
    "user",
    "group",
];

/// The name of `idle_timeout` in the reference ("Global function timeout").
const IDLE_TIME: &str = "idle_time";

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
    /// A worker ends after so many runs of the handler,
    pub max_requests: Option<u64>,
    /// and up to so many more, by chance.
    pub max_requests_jitter: u64,
    /// A worker ends when its process has more memory, in bytes.
    pub max_memory: Option<usize>,
    /// What its workers run as; `None`: as the supervisor.
    pub identity: Option<Credentials>,
}

impl PoolConfig {
    /// What is wrong if the Lua state holds more memory already than a worker's may hold.
    ///
    /// # Errors
    /// Errors of finalizers, which run to free memory.
    pub fn memory_trouble(&self, lua: &Lua) -> mlua::Result<Option<String>> {
        let Some(limit) = self.memory_limit.filter(|limit| lua.used_memory() > *limit) else {
            return Ok(None);
        };
        lua.gc_collect()?;
        let used = lua.used_memory();
        let text = || format!("memory_limit is {limit}, but the script holds {used} bytes already");
        Ok((used > limit).then(text))
    }
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

/// The parsed argument of `listen{...}`. The positions of listeners are counted from 1.
#[derive(Debug)]
pub struct Listen {
    /// The pool, unless all entries are for the status process.
    pub pool: Option<PoolListen>,
    /// The entries for the status process.
    pub status: Vec<(usize, StatusSpec)>,
}

/// What `listen{...}` says of its pool.
#[derive(Debug)]
pub struct PoolListen {
    /// The positional entries.
    pub listeners: Vec<(usize, ListenerSpec)>,
    /// The named numeric options.
    pub config: PoolConfig,
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
    let (mut listeners, mut status) = (Vec::with_capacity(count), Vec::new());
    for index in 1..=count {
        match ListenEntry::parse(index, &table.raw_get(index)?, deferred)? {
            ListenEntry::Pool(spec) => listeners.push((index, spec)),
            ListenEntry::Status(spec) => status.push((index, spec)),
        }
    }
    known_options::check(table, "listen", &NAMES, count)?;
    if listeners.is_empty() {
        if let Some(name) = NAMES.iter().find(|name| table.contains_key(**name).unwrap_or(true)) {
            return Err(Fault::misuse(format!(
                "Option \"{name}\" of listen has no effect: status listeners have no workers"
            )));
        }
        return Ok(Listen { pool: None, status });
    }
    let config = pool(table, &listeners)?;
    let handlers = Handlers {
        prepare: function(table, "prepare")?,
        connect: handler?.ok_or_else(|| {
            Fault::misuse("Option \"connect\" must be a function; it handles each connection")
        })?,
        finish: function(table, "finish")?,
    };
    Ok(Listen { pool: Some(PoolListen { listeners, config, handlers }), status })
}

/// The configuration of a pool with these listeners and without options.
pub fn defaults(lua: &Lua, listeners: &[(usize, ListenerSpec)]) -> Reply<PoolConfig> {
    pool(&lua.create_table()?, listeners)
}

fn pool(table: &Table, listeners: &[(usize, ListenerSpec)]) -> Reply<PoolConfig> {
    let mains =
        listeners.iter().filter(|(_, spec)| matches!(spec, ListenerSpec::Main { .. })).count();
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
        idle_timeout: seconds(table, "idle_timeout")?
            .or(seconds(table, IDLE_TIME)?)
            .filter(|time| !time.is_zero()),
        memory_limit: memory(table, "memory_limit")?,
        max_requests: count(table, "max_requests")?.filter(|count| *count > 0),
        max_requests_jitter: count(table, "max_requests_jitter")?.unwrap_or(0),
        max_memory: memory(table, "max_memory")?,
        identity: Credentials::read(table)?,
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

/// A number of runs; false counts as 0.
pub fn count(table: &Table, name: &str) -> Reply<Option<u64>> {
    match option(table, name, Some(0.0))? {
        None => Ok(None),
        Some(count) if count.fract() == 0.0 => Ok(Some(count as u64)),
        Some(_) => Err(Fault::misuse(format!(
            "Option \"{name}\" is expected to be a non-negative number without a fraction"
        ))),
    }
}

fn memory(table: &Table, name: &str) -> Reply<Option<usize>> {
    let limit = option(table, name, Some(0.0))?;
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
