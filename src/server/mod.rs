//! `moonbridge`: pools of forked workers and their supervisor.
//!
//! | room | what it is |
//! |---|---|
//! | [`listen`] | `listen{...}`: from a Lua table to a pool with its open listeners |
//! | [`ipc`] | what supervisor and workers share: channel, messages, leases, scoreboard |
//! | [`metrics`] | what the server and the application count, and its text |
//! | [`supervisor`] | forks workers, watches them, holds the connections that wait, shuts down gracefully |
//! | [`worker`] | the event loop around the handler |
//! | [`push`] | holds connections without a process each, and passes on what is published |
//! | [`status_process`] | answers health checks and serves the metrics |
//! | [`operator`] | options of `run`, log, status, pid file, launcher |
//! | [`development`] | what `--dev` adds |
//! | [`credentials`] | the user that a process runs as |
//! | [`log_text`], [`log_throttle`] | what lines of the log share |
//! | [`run`], [`worker_start`] | from registered pools to a serving supervisor, and to its workers |
//!
//! `ipc` and `development` know none of the others; `metrics` knows `ipc`, and `listen` knows both; `worker`, `push`,
//! `status_process` and `operator` know these three, and `operator` `development`. `supervisor` knows all but `worker`:
//! what these two share is `ipc`.

pub(crate) mod credentials;
pub(crate) mod development;
pub mod ipc;
pub(crate) mod listen;
pub(crate) mod log_text;
pub(crate) mod log_throttle;
pub(crate) mod metrics;
pub(crate) mod operator;
pub(crate) mod push;
pub(crate) mod run;
pub(crate) mod status_process;
pub(crate) mod supervisor;
pub(crate) mod worker;
pub(crate) mod worker_start;

#[cfg(test)]
mod connections_test;

use std::rc::Rc;

use mlua::{Lua, Result, Table, Value};

use crate::binding::{self, Fault};
use crate::sys::os::{anew, inherited_descriptors, process};
use listen::registry::{ForgottenRun, Registry};

/// The module's table: `{listen, run, timeout, _VERSION, io, http}`.
///
/// The reference documents `listen` and `timeout` as global functions, so they are defined as such
/// too where these names are still free.
pub fn module(lua: &Lua) -> Result<Table> {
    inherited_descriptors::record();
    anew::record();
    process::ensure_standard_streams();
    let module = lua.create_table()?;
    let registry = Registry::of(lua);
    // Lives in the registry of the Lua state and is dropped when the state closes.
    let sentinel = lua.create_userdata(ForgottenRun(registry.clone()))?;
    lua.set_named_registry_value("moonbridge.forgotten_run", sentinel)?;

    let pools: Rc<Registry> = registry.clone();
    binding::export(lua, &module, "listen", move |lua, args| match args.front() {
        Some(Value::Table(table)) => pools.add(listen::config::parse(lua, table)?),
        other => Err(Fault::misuse(format!(
            "listen expects one table of listeners and options, not {}",
            other.map_or("nothing", Value::type_name)
        ))),
    })?;
    operator::status::export(lua, &module, registry.clone())?;
    let pools = registry.clone();
    let sources = move || pools.sources();
    metrics::lua::export(lua, &module, registry.metrics.clone(), sources)?;
    push::lua::export(lua, &module, registry.clone())?;
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
