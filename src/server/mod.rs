//! `moonbridge`: pools of forked workers and their supervisor.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | `listen{...}`: from a Lua table to a checked configuration |
//! | [`listener`], [`inherited`] | a pool's listeners, opened here or by a service manager |
//! | [`first_word`] | whether `connect` waits for its client |
//! | [`ports`] | what waits at them when the server ends |
//! | [`registry`] | the pools of a Lua state, and whether they are served |
//! | [`supervisor`] | forks workers, watches them, ends in order |
//! | [`pool_state`], [`worker_entry`] | the supervisor's view of a pool and of a worker |
//! | [`sizing`], [`fullness`], [`timers`] | how many workers, whether these suffice, and when intervals tick (pure) |
//! | [`processors`] | whether the machine has processors to spare |
//! | [`worker`] | the event loop around the handler |
//! | [`accept`], [`parking`] | where a worker's connections come from, and where they wait |
//! | [`handle_methods`] | what the server adds to all handles |
//! | [`lease`], [`lobby`], [`held_input`] | who may act on a waiting connection, where idle ones wait, and with what |
//! | [`channel`], [`message`], [`scoreboard`] | how supervisor and workers talk, with and without system calls |
//! | [`context`] | what a worker is doing, for the log |
//! | [`log`], [`log_text`], [`log_stream`], [`syslog`], [`line_queue`], [`stderr_lines`] | what the operator reads |
//! | [`options`], [`service`] | `run{...}`: log, pid file, background |
//! | [`pid_file`], [`daemon`], [`notifier`] | their parts |
//! | [`status`] | what the pools are doing |
//! | [`timeout`] | `timeout(...)` |
//! | [`launcher`] | the program `moonbridge` |

pub mod accept;
pub mod attention;
pub mod channel;
pub mod clock;
pub mod config;
pub mod context;
pub mod cooling;
pub mod daemon;
pub mod descriptors;
pub mod first_word;
pub mod fullness;
pub mod grouping;
pub mod guest;
pub mod handle_methods;
pub mod held_input;
pub mod in_flight;
pub mod inherited;
pub mod launcher;
pub mod lease;
pub mod lent;
pub mod line_queue;
pub mod listener;
pub mod lobby;
pub mod log;
pub mod log_stream;
pub mod log_text;
pub mod message;
pub mod notifier;
pub mod occupation;
pub mod options;
pub mod overflow;
pub mod parking;
pub mod pid_file;
pub mod pool_state;
pub mod ports;
pub mod processors;
pub mod registry;
pub mod run;
pub mod scoreboard;
pub mod service;
mod shared_sockets;
pub mod sizing;
pub mod status;
pub mod stderr_lines;
pub mod stretch;
pub mod supervisor;
pub mod syslog;
pub mod tally;
mod timeout;
pub mod timers;
pub mod worker;
pub mod worker_entry;

use std::rc::Rc;

use mlua::{Lua, Result, Table, Value};

use crate::glue::{self, Fault};
use crate::sys::{process, starter};
use registry::{ForgottenRun, Registry};

pub use handle_methods::{is_child, is_worker, leave_child, park_stream as park};

/// The module's table: `{listen, run, timeout, _VERSION, io, http}`.
///
/// The reference documents `listen` and `timeout` as global functions, so they are defined as such
/// too where these names are still free.
pub fn module(lua: &Lua) -> Result<Table> {
    starter::note_descriptors();
    process::ensure_standard_streams();
    let module = lua.create_table()?;
    let registry = Registry::of(lua);
    // Lives in the registry of the Lua state and is dropped when the state closes.
    let sentinel = lua.create_userdata(ForgottenRun(registry.clone()))?;
    lua.set_named_registry_value("moonbridge.forgotten_run", sentinel)?;

    let pools: Rc<Registry> = registry.clone();
    glue::export(lua, &module, "listen", move |lua, args| match args.front() {
        Some(Value::Table(table)) => pools.add(config::parse(lua, table)?),
        other => Err(Fault::misuse(format!(
            "listen expects one table of listeners and options, not {}",
            other.map_or("nothing", Value::type_name)
        ))),
    })?;
    status::export(lua, &module, registry.clone())?;
    run::export(lua, &module, registry)?;
    module.raw_set("_VERSION", env!("CARGO_PKG_VERSION"))?;
    let require: mlua::Function = lua.globals().get("require")?;
    module.raw_set("io", require.call::<Table>("moonbridge.io")?)?;
    module.raw_set("http", require.call::<Table>("moonbridge.http")?)?;
    for name in ["listen", "timeout"] {
        if lua.globals().raw_get::<Value>(name)?.is_nil() {
            lua.globals().raw_set(name, module.raw_get::<Value>(name)?)?;
        }
    }
    Ok(module)
}
