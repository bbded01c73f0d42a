//! Child processes (reference, "moonbridge_io.exec").

use std::cell::Cell;
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use mlua::{AnyUserData, IntoLua, Lua, MultiValue, Table, UserData, UserDataFields, Value};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, getpid};

use super::args::Args;
use super::class::{self, UserdataClass, method};
use super::descriptor_limit::retry_after_collection;
use super::handle::new_free_handle;
use super::stream::Stream;
use crate::binding::{self, Fault, Reply};
use crate::sys;
use crate::sys::os::child::Process;
use crate::sys::os::error_text;
use crate::sys::os::flusher;

/// A process started by `exec`.
#[derive(Debug)]
pub struct ChildProcess {
    /// The descriptor stays open until this value is dropped, since event loops complain about
    /// descriptors that vanish. `None` after that.
    process: Option<Process>,
    /// Whether the exit status has been fetched.
    collected: Cell<bool>,
    /// The process that has started it: a forked copy of this value must not kill it.
    owner: Pid,
}

impl ChildProcess {
    /// The process; misuse if its exit status has already been fetched.
    pub fn process(&self) -> Reply<&Process> {
        match &self.process {
            Some(process) if !self.collected.get() => Ok(process),
            _ => Err(Fault::misuse("Attempt to use a process handle that was already collected")),
        }
    }

    /// A descriptor that becomes readable when the process ends.
    ///
    /// # Errors
    /// `ENOSYS` if the kernel provides none.
    pub fn raw_fd(&self) -> Reply<RawFd> {
        match self.process()?.descriptor() {
            Some(descriptor) => Ok(descriptor.as_raw_fd()),
            None => Err(std::io::Error::from_raw_os_error(libc::ENOSYS).into()),
        }
    }

    /// The exit code, or the negative number of the signal that ended the process. While it runs,
    /// waits for that if `block` is true, else returns `None`.
    fn wait(&self, block: bool) -> Reply<Option<i32>> {
        if block {
            flusher::send_now();
        }
        let outcome = self.process()?.wait(block);
        // After an error, other code has reaped it.
        self.collected.set(!matches!(outcome, Ok(None)));
        Ok(outcome?)
    }
}

impl Drop for ChildProcess {
    /// Kills and reaps the process, so that neither it nor a zombie is left.
    fn drop(&mut self) {
        if !self.collected.get()
            && self.owner == getpid()
            && let Some(process) = self.process.take()
        {
            sys::os::child::abandon(process);
        }
    }
}

/// How often to check for the end of a child for which the kernel provides no descriptor.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The class of child processes.
static CLASS: UserdataClass = UserdataClass {
    name: "moonbridge.io.child",
    prototype: |prototypes| &prototypes.child,
    property: field,
};

impl UserData for ChildProcess {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        class::add_fields(fields, &CLASS);
    }
}

/// The methods of child handles, except those with a wait function.
pub fn install(lua: &Lua, table: &Table) -> mlua::Result<()> {
    method(lua, table, "kill", |lua, mut args| {
        let (this, child) = this(&mut args)?;
        let signal = signal(lua, &mut args)?;
        borrow(&child)?.process()?.signal(signal)?;
        Ok(this)
    })?;
    method(lua, table, "wait", |_, mut args| {
        let (_, child) = this(&mut args)?;
        borrow(&child)?.wait(true)
    })?;
    method(lua, table, "wait_nb", wait_nb)
}

/// `wait_nb`, also a step of `wait_call`.
pub fn wait_nb(lua: &Lua, mut args: Args) -> Reply<MultiValue> {
    let (_, child) = this(&mut args)?;
    let outcome = borrow(&child)?.wait(false)?;
    Ok(MultiValue::from_vec(match outcome {
        Some(code) => vec![Value::Integer(code.into())],
        None => vec![Value::Boolean(false), "Process is still running".into_lua(lua)?],
    }))
}

/// The computed fields of child handles: `pid`.
fn field(_: &Lua, this: &Value, key: &str) -> Reply<Value> {
    Ok(match (this, key) {
        (Value::UserData(child), "pid") => {
            let child = child.borrow::<ChildProcess>().ok();
            let pid = child.and_then(|child| Some(child.process.as_ref()?.pid().as_raw()));
            pid.map_or(Value::Nil, |pid| Value::Integer(pid.into()))
        }
        _ => Value::Nil,
    })
}

/// `self` of a method.
pub fn this(args: &mut Args) -> Reply<(Value, AnyUserData)> {
    match args.this() {
        Value::UserData(child) if child.is::<ChildProcess>() => {
            Ok((Value::UserData(child.clone()), child))
        }
        other => Err(args.bad_self("process handle", &other)),
    }
}

fn borrow(child: &AnyUserData) -> Reply<mlua::UserDataRef<ChildProcess>> {
    Ok(child.borrow::<ChildProcess>()?)
}

/// The argument of `kill`: a number, or a name with or without "SIG"; SIGKILL for nil.
fn signal(lua: &Lua, args: &mut Args) -> Reply<i32> {
    let Some(text) = args.optional_string(lua)? else { return Ok(libc::SIGKILL) };
    let text = text.to_string_lossy().to_uppercase();
    let number = text.strip_suffix(".0").unwrap_or(&text).parse::<i32>();
    let signal = match number {
        Ok(number) => Some(number),
        Err(_) if text.starts_with("SIG") => text.parse::<Signal>().ok().map(|it| it as i32),
        Err(_) => format!("SIG{text}").parse::<Signal>().ok().map(|it| it as i32),
    };
    let signal = signal.filter(|signal| (0..=sys::os::child::highest_signal()).contains(signal));
    signal.ok_or_else(|| args.bad("invalid signal"))
}

/// `moonbridge_io.exec([options, ] command, ...)`.
pub fn exec(lua: &Lua, args: MultiValue) -> Reply<Value> {
    let mut args = Args::new("exec", args);
    let die_with_parent = match args.table() {
        Some(options) => kill_with_parent(&args, &options)?,
        None => false,
    };
    let (command, arguments) = command_line(lua, args)?;
    let arguments: Vec<&OsStr> = arguments.iter().map(|text| OsStr::from_bytes(text)).collect();
    let [stdin, stdout, stderr] = retry_after_collection(lua, pairs)?;
    let streams = [stdin.1, stdout.1, stderr.1];
    let command = OsStr::from_bytes(&command);
    let pid =
        sys::os::child::spawn(command, &arguments, streams, die_with_parent).map_err(|error| {
            match Fault::from(error) {
                Fault::System(text, errno) => {
                    Fault::System(format!("Could not execute: {text}"), errno)
                }
                other => other,
            }
        })?;
    let (process, refused) = Process::of(pid);
    if let Some(error) = refused {
        complain(&error);
    }
    let child =
        ChildProcess { process: Some(process), owner: getpid(), collected: Cell::new(false) };
    let child = Value::UserData(lua.create_userdata(child)?);
    let set = binding::chunk::<mlua::Function>(lua, "moonbridge.io.child", SET_STREAMS, ())?;
    set.call::<()>((
        &child,
        new_free_handle(lua, Stream::accepted(stdin.0, None))?,
        new_free_handle(lua, Stream::accepted(stdout.0, None))?,
        new_free_handle(lua, Stream::accepted(stderr.0, None))?,
    ))?;
    Ok(child)
}

/// Logs once that the library has to poll for the end of children.
fn complain(error: &std::io::Error) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Relaxed) {
        let reason = error_text::reason(error);
        let _ = writeln!(
            std::io::stderr(),
            "pidfd_open failed ({reason}): Moonbridge checks for the end of child processes every {} ms",
            CHECK_INTERVAL.as_millis()
        );
    }
}

/// The only option: whether the kernel kills the program when this process ends.
fn kill_with_parent(args: &Args, options: &Table) -> Reply<bool> {
    let mut wanted = false;
    for pair in options.pairs::<Value, Value>() {
        match pair? {
            (Value::String(key), Value::Boolean(value)) if key == "kill_with_parent" => {
                wanted = value;
            }
            (Value::String(key), _) if key == "kill_with_parent" => {
                return Err(args.bad("option \"kill_with_parent\" is expected to be a boolean"));
            }
            (key, _) => {
                let key = key.to_string()?;
                return Err(
                    args.bad(format_args!("unknown option \"{key}\"; known: kill_with_parent"))
                );
            }
        }
    }
    Ok(wanted)
}

/// The program and its arguments.
fn command_line(lua: &Lua, mut args: Args) -> Reply<(Vec<u8>, Vec<Vec<u8>>)> {
    let command = args.string(lua)?;
    let arguments = args.strings(lua)?;
    if std::iter::once(&command).chain(&arguments).any(|text| text.as_bytes().contains(&0)) {
        return Err(Fault::misuse("Arguments of a program must not contain zero bytes"));
    }
    let arguments = arguments.iter().map(|text| text.as_bytes().to_vec()).collect();
    Ok((command.as_bytes().to_vec(), arguments))
}

/// The three streams are user fields, so they stay readable when the process has ended.
const SET_STREAMS: &str =
    "return function(child, i, o, e) child.stdin, child.stdout, child.stderr = i, o, e end";

/// A socket pair: our end and the child's. Both are close-on-exec; std duplicates the child's end.
type SocketPair = (OwnedFd, OwnedFd);

/// The socket pairs for the three streams. Ensures that the other descriptors needed to start a
/// program are free, since a started program cannot be retried.
fn pairs() -> Reply<[SocketPair; 3]> {
    let pair = || socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
    let pairs = [pair()?, pair()?, pair()?];
    let [(spare, _), ..] = &pairs;
    drop((spare.try_clone()?, spare.try_clone()?, spare.try_clone()?));
    Ok(pairs)
}
