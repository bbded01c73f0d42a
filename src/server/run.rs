//! `run`: from registered pools to a serving supervisor, and the start of workers.

use std::cell::RefCell;
use std::ffi::c_void;
use std::os::fd::AsFd;
use std::rc::Rc;

use mlua::{Function, IntoLuaMulti, Lua, Table, Value};
use nix::sys::signal::Signal;

use super::credentials::Credentials;
use super::development::Development;
use super::ipc::clock;
use super::ipc::push_line::PushLine;
use super::listen::config::PoolConfig;
use super::listen::predecessor::Predecessor;
use super::listen::registry::Registry;
use super::listen::shared_sockets;
use super::listen::speaks_first;
use super::metrics::server::ServerMetrics;
use super::operator::access_log::{AccessLogSettings, calls};
use super::operator::check;
use super::operator::launcher::{self, Operations};
use super::operator::service_files::Parts;
use super::operator::{options, privileges};
use super::push;
use super::status_process;
use super::supervisor::push_process::PushSettings;
use super::supervisor::reload::later::GenerationOrigin;
use super::supervisor::{Supervisor, SupervisorEnd};
use super::worker::timeout;
use super::worker::{Subject, Worker};
use super::worker::{context, handle_methods, reload, request_log};
use super::worker_start::WorkerStart;
use crate::binding::{self, Fault, Reply};
use crate::http;
use crate::io::tls::vault;
use crate::io::{Handle, handle};
use crate::sys::lua::alloc;
use crate::sys::lua::call_loop::{self, Feed, NextCall};
use crate::sys::lua::compat;
use crate::sys::lua::slow_report;
use crate::sys::os::error_text::{self, ErrorCode};
use crate::sys::os::{alarm, process, worker_signals};

/// Where the registry of the Lua state keeps the message handler that adds tracebacks to errors.
const DESCRIBE: &str = "moonbridge.describe";

/// Defines `run`, `launch`, `timeout` and the methods that the server adds to all handles.
pub fn export(lua: &Lua, module: &Table, registry: Rc<Registry>) -> mlua::Result<()> {
    let operations = Rc::new(Operations::default());
    let shared = operations.clone();
    let serve = lua.create_function(move |lua, options: Option<Value>| {
        match serve(lua, options.as_ref(), &registry, &shared) {
            Err(Fault::Misuse(text) | Fault::System(text, _)) => {
                (Value::Nil, text).into_lua_multi(lua)
            }
            outcome => binding::settle(lua, outcome),
        }
    })?;
    let worker_main = compat::chunk(lua, "moonbridge.worker", include_str!("worker.lua"))?;
    let (public, run): (Function, Function) =
        binding::chunk(lua, "moonbridge.run", include_str!("run.lua"), (serve, worker_main))?;
    module.raw_set("run", public)?;
    let failed = lua.create_table()?;
    let take = lua.create_function(|_, ()| Ok(context::take_traceback()))?;
    let describe: Function =
        binding::chunk(lua, "moonbridge.describe", include_str!("describe.lua"), (take, &failed))?;
    lua.set_named_registry_value(DESCRIBE, &describe)?;
    timeout::export(lua, module, &failed)?;
    launcher::export(lua, module, run, describe, operations)?;
    reload::export(lua, module)?;
    handle_methods::export(lua)
}

fn serve(
    lua: &Lua,
    options: Option<&Value>,
    registry: &Rc<Registry>,
    operations: &Operations,
) -> Reply {
    registry.remember();
    let options = options::parse(options)?;
    let (pools, status) = registry.start()?;
    if registry.only_checks() {
        registry.end();
        let identity = operations.checked_identity(&options);
        privileges::agree(&pools, identity.as_ref()).map_err(Fault::Misuse)?;
        let text = check::report(lua, &pools, &status.listeners)?.map_err(Fault::Misuse)?;
        return Ok(("checked", text).into_lua_multi(lua)?);
    }
    clock::start();
    // The script's own time is over; a supervisor has no limit.
    alarm::disarm();
    let predecessor = registry.take_predecessor();
    let is_candidate = predecessor.is_some();
    let service = operations
        .take(&options, is_candidate)
        .inspect_err(|_| registry.end())
        .map_err(|error| Fault::System(error.text, error.errno.map(ErrorCode::Errno)))?;
    let limits = service.limits;
    let identity = service.identity.clone();
    if let Err(text) = privileges::check(&pools, identity.as_ref()) {
        registry.end();
        return Err(Fault::Misuse(text));
    }
    let Parts { mut log, later_log, mut access_log, pid_file } = service.into_parts();
    for name in registry.inheritance.close_unclaimed() {
        log.notice(&format!("No listener has claimed the inherited socket \"{name}\""));
    }
    if let Some(identity) = &identity {
        log.give_to(identity.uid());
        if let Some(target) = access_log.as_mut().and_then(AccessLogSettings::target) {
            target.give_to(identity.uid());
        }
    }
    let warned = predecessor.as_ref().is_some_and(|predecessor| predecessor.warned);
    if let Some(text) = privileges::warning(&pools, identity.as_ref(), warned) {
        log.notice(&text);
    }
    let mut known = http::client::connections();
    known.extend(predecessor.iter().flat_map(Predecessor::descriptors));
    if let Some(text) = shared_sockets::warning(&known) {
        log.notice(&text);
    }
    let line = push_line(predecessor.as_ref()).inspect_err(|_| registry.end())?;
    PushLine::set(Some(line.clone()));
    let origin = predecessor.map(|predecessor| GenerationOrigin { predecessor, log: later_log });
    let report = |path| {
        handle_methods::with_worker(|worker| worker.report_loaded(path));
    };
    let watcher = Development::of(lua).and_then(|development| development.take_watcher(report));
    let metrics = ServerMetrics::new(registry.metrics.clone()).map_err(Fault::Misuse)?;
    let counters = registry.metrics.push().map_err(Fault::Misuse)?;
    let push = PushSettings { line, counters, topics: registry.take_topics(), most: limits.held };
    let mut supervisor = Supervisor::new(
        (pools, status),
        (metrics, push),
        (log, access_log),
        &limits,
        origin,
        watcher,
    )
    .map_err(|errno| {
        registry.end();
        let reason = error_text::describe(errno as i32);
        let code = Some(ErrorCode::Errno(errno as i32));
        Fault::System(format!("Could not start to serve: {reason}"), code)
    })?;
    if let Some(Err(text)) = identity.as_ref().map(Credentials::assume) {
        supervisor.close();
        registry.end();
        return Err(Fault::Misuse(text));
    }
    match supervisor.serve() {
        // Only the first process, which the outside knows, goes on after `run`.
        SupervisorEnd::Ended(code) if is_candidate => {
            supervisor.close();
            drop(supervisor);
            std::process::exit(code)
        }
        SupervisorEnd::Ended(code) => {
            supervisor.close();
            registry.end();
            drop(pid_file);
            operations.ended(code);
            PushLine::set(None);
            Ok(code.into_lua_multi(lua)?)
        }
        SupervisorEnd::Status(start) => {
            // It ends with its supervisor, not by a signal.
            worker_signals::ignore_all();
            drop(supervisor);
            drop(pid_file);
            status_process::serve(start, registry);
            process::exit_now(0)
        }
        SupervisorEnd::AccessLog(start) => {
            // As above.
            worker_signals::ignore_all();
            drop(supervisor);
            drop(pid_file);
            Ok(("access log", calls::begin(lua, start)?).into_lua_multi(lua)?)
        }
        SupervisorEnd::Push(start) => {
            worker_signals::ignore_all();
            // Its descriptors are closed, and its limit stays.
            std::mem::forget((supervisor, pid_file));
            push::serve(start);
            process::exit_now(0)
        }
        SupervisorEnd::Worker(start) => {
            // Before signals get through: none of these ends a worker that has not begun.
            let caught = worker_signals::catch_termination();
            drop(supervisor);
            PushLine::close_receiver();
            drop(pid_file);
            let worker = caught.map_err(Fault::from).and_then(|()| become_worker(lua, *start));
            // A worker that cannot work must never go on with what the host does after `run`.
            Ok(worker.unwrap_or_else(|fault| start_failed(&fault)))
        }
    }
}

/// The way to the push process.
fn push_line(predecessor: Option<&Predecessor>) -> std::io::Result<Rc<PushLine>> {
    let line = match predecessor {
        Some(predecessor) => PushLine::of(predecessor.push.try_clone()?),
        None => {
            // The process is a child of this one, even if only a later generation has TLS.
            vault::prepare()?;
            PushLine::new()?
        }
    };
    Ok(Rc::new(line))
}

/// In a new process: from what the fork left to a worker. Returns its functions for `worker.lua`.
fn become_worker(lua: &Lua, start: WorkerStart) -> Reply {
    if let Some(identity) = &start.pool.config.identity {
        identity.assume().map_err(Fault::Misuse)?;
    }
    reseed(lua)?;
    worker_signals::install(start.supervisor, start.channel.as_fd(), &start.pool.sockets())?;
    if start.held {
        // Until it serves, it is useless without its supervisor.
        let _ = process::set_parent_death_signal(Signal::SIGKILL);
    }
    if start.answers {
        slow_report::install(request_log::had_begun);
    }
    let (pool, queue) = (&start.pool, start.access_queue.clone());
    let (handlers, config) = (start.pool.handlers.clone(), start.pool.config.clone());
    let is_http = speaks_first::is_client_first(lua, &handlers.connect)?;
    request_log::begin(pool.number, is_http, (&pool.scoreboard, start.cell), queue);
    let has_jobs = start.pool.listeners.iter().any(|listener| listener.job().is_some());
    let handles = lua.create_table()?;
    let worker = Rc::new(RefCell::new(Worker::new(start, handles.clone(), is_http)?));
    handle_methods::set_worker(&worker)?;

    let pool = lua.create_table()?;
    pool.raw_set("prepare", handlers.prepare)?;
    pool.raw_set("finish", handlers.finish)?;

    let step = lua.create_table()?;
    let this = worker.clone();
    step.raw_set(
        "ready",
        lua.create_function(move |_, ()| {
            // `prepare` may have dropped rights.
            worker_signals::watch_supervisor().map_err(std::io::Error::from)?;
            Ok(this.borrow_mut().ready().map_err(std::io::Error::from)?)
        })?,
    )?;
    let this = worker.clone();
    let complete = lua.create_function(move |lua, (keep, argument): (Option<bool>, Value)| {
        this.borrow_mut().next(lua, keep.unwrap_or(false), &argument)
    })?;
    let this = worker.clone();
    step.raw_set(
        "over",
        lua.create_function(move |_, ()| {
            this.borrow().over();
            Ok(())
        })?,
    )?;
    step.raw_set(
        "show",
        lua.create_function(move |lua, report| show(lua, report, is_http && !has_jobs))?,
    )?;
    let describe: Function = lua.named_registry_value(DESCRIBE)?;
    let class = handle::class(lua)?;
    let values = call_loop::LoopValues {
        complete: &complete,
        class: &class,
        callback: &handlers.connect,
        describe: &describe,
        arguments: &handles,
    };
    step.raw_set("serve", call_loop::function::<Tasks>(lua, &values)?)?;
    step.raw_set(
        "disarm",
        lua.create_function(|_, ()| {
            alarm::disarm();
            Ok(())
        })?,
    )?;
    step.raw_set("describe", describe)?;
    step.raw_set("context", lua.create_function(|lua, ()| describe_context(lua))?)?;
    step.raw_set(
        "abort",
        lua.create_function(move |_, ()| -> mlua::Result<()> {
            handle_methods::leave_child(1);
            worker.borrow_mut().abandon();
            process::exit_now(1)
        })?,
    )?;
    step.raw_set(
        "leave_child",
        lua.create_function(|_, ()| {
            handle_methods::leave_child(0);
            Ok(())
        })?,
    )?;
    step.raw_set("lift_limit", lua.create_function(|lua, ()| alloc::lift(lua))?)?;
    let limit = lua.create_function(move |lua, ()| limit_memory(lua, &config))?;
    step.raw_set("limit", limit)?;
    Ok(("worker", pool, step).into_lua_multi(lua)?)
}

/// In development: the worker's handlers show this error, if they can.
fn show(lua: &Lua, report: mlua::LuaString, can_show: bool) -> mlua::Result<bool> {
    let Some(development) = Development::of(lua).filter(|_| can_show) else { return Ok(false) };
    development.fail(report.to_string_lossy());
    Ok(true)
}

/// What a worker calls its handler for.
struct Tasks;

impl Feed for Tasks {
    type Made = Handle;

    fn next(keep: bool) -> NextCall {
        match handle_methods::with_worker(|worker| worker.advance(keep)) {
            Some(Some(Subject::Parked(place))) => NextCall::Place(i64::from(place) + 1),
            Some(Some(Subject::New)) => NextCall::New,
            Some(None) => NextCall::Complete,
            None => {
                handle_methods::leave_child(0);
                NextCall::Complete
            }
        }
    }

    fn no_result() {
        handle_methods::with_worker(|worker| worker.note_no_result());
    }

    fn make(address: *mut c_void) -> Option<Handle> {
        let stream = handle_methods::with_worker(|worker| worker.new_stream()).flatten();
        stream.map(|stream| Handle::at(address, stream))
    }
}

/// Limits the memory of the Lua state. Returns what is wrong if it holds more already.
fn limit_memory(lua: &Lua, config: &PoolConfig) -> mlua::Result<Option<String>> {
    let trouble = config.memory_trouble(lua)?;
    if let (Some(limit), None) = (config.memory_limit, &trouble) {
        alloc::limit(lua, limit)?;
    }
    Ok(trouble)
}

fn start_failed(fault: &Fault) -> ! {
    use std::io::Write;
    let reason = match fault {
        Fault::Misuse(text) | Fault::System(text, _) => text.clone(),
        Fault::Lua(error) => error.to_string(),
    };
    let _ = writeln!(std::io::stderr(), "Could not start the worker: {reason}");
    process::exit_now(1)
}

/// What was being done, for the log.
fn describe_context(lua: &Lua) -> mlua::Result<Value> {
    context::describe().map_or(Ok(Value::Nil), |text| binding::bytes(lua, &text))
}

/// Workers must not all draw the same random numbers.
fn reseed(lua: &Lua) -> mlua::Result<()> {
    let Ok(math) = lua.globals().get::<Table>("math") else { return Ok(()) };
    let Ok(seed) = math.get::<Function>("randomseed") else { return Ok(()) };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |now| now.as_nanos() as u64);
    let pid = u64::from(std::process::id());
    let mixed = (nanoseconds ^ pid.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    seed.call::<()>((mixed >> 1) as i64)
}
