//! Waiting for several handles (reference, "moonbridge_io.poll").

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mlua::{AnyUserData, IntoLua, Lua, MultiValue, Table, Value};
use nix::sys::signal::SigSet;

use super::args::{Args, borrow};
use super::child::{CHECK_INTERVAL, ChildProcess};
use super::handle_table::stream_at;
use super::listener::ListenerHandle;
use super::stream::{Direction, Stream};
use crate::binding::{self, Fault, Reply};
use crate::sys::lua::keys::{self, SetKey};
use crate::sys::lua::slow_report;
use crate::sys::os::alarm;
use crate::sys::os::child::Process;
use crate::sys::os::flusher;
use crate::sys::os::poll::{PollOutcome, PollSet};
use crate::sys::os::sigterm;

/// Timeouts from here on (three years) are considered mistakes.
const LONGEST: f64 = 1e8;

/// `moonbridge_io.poll(input_set, output_set, timeout, wakeup_on_sigterm)`.
pub fn poll(lua: &Lua, args: MultiValue) -> Reply<MultiValue> {
    let mut args = Args::new("poll", args);
    let mut request = PollRequest::default();
    request.collect(lua, &mut args, Direction::Read)?;
    request.collect(lua, &mut args, Direction::Write)?;
    let timeout = timeout(lua, &mut args)?;
    let wakeup = !matches!(args.value(), Value::Nil | Value::Boolean(false));
    // From here on SIGTERM cannot arrive between checking its flag and waiting.
    let blocked = if wakeup { Some(sigterm::block()?) } else { None };
    if wakeup && sigterm::received() {
        return ended(lua, "SIGTERM received", Some(true));
    }
    let timeout = match timeout {
        Timeout::Over => return ended(lua, "Timeout", wakeup.then_some(false)),
        Timeout::In(timeout) => timeout,
    };
    if request.ready {
        return ready();
    }
    let mask = blocked.as_ref().map(sigterm::BlockedSigterm::mask);
    match request.wait(timeout, mask.as_ref())? {
        PollOutcome::Interrupted if wakeup && sigterm::received() => {
            ended(lua, "SIGTERM received", Some(true))
        }
        PollOutcome::Ready | PollOutcome::Interrupted => ready(),
        PollOutcome::Timeout => ended(lua, "Timeout", wakeup.then_some(false)),
    }
}

fn ready() -> Reply<MultiValue> {
    Ok(MultiValue::from_vec(vec![Value::Boolean(true)]))
}

/// The results when nothing is ready. With `wakeup_on_sigterm`, also whether SIGTERM is the reason.
fn ended(lua: &Lua, message: &str, by_sigterm: Option<bool>) -> Reply<MultiValue> {
    let mut results = vec![Value::Boolean(false), message.into_lua(lua)?];
    results.extend(by_sigterm.map(Value::Boolean));
    Ok(MultiValue::from_vec(results))
}

/// How long to wait.
enum Timeout {
    /// The timeout had expired before the call.
    Over,
    /// This long; `None`: without limit.
    In(Option<Duration>),
}

fn timeout(lua: &Lua, args: &mut Args) -> Reply<Timeout> {
    match args.number(lua)? {
        None => Ok(Timeout::In(None)),
        Some(seconds) if seconds < 0.0 => Ok(Timeout::Over),
        Some(seconds) if seconds.is_nan() || seconds >= LONGEST => {
            Err(args.bad("timeout out of range"))
        }
        Some(seconds) => Ok(Timeout::In(Some(Duration::from_secs_f64(seconds)))),
    }
}

/// The contents of the two sets.
#[derive(Default)]
struct PollRequest {
    set: PollSet,
    /// Children without a descriptor.
    children: Vec<AnyUserData>,
    /// Something is ready without a system call.
    ready: bool,
}

impl PollRequest {
    /// Adds the keys of the next argument, a set or nil, that have true values.
    fn collect(&mut self, lua: &Lua, args: &mut Args, direction: Direction) -> Reply<()> {
        let table: Table = match args.value() {
            Value::Nil => return Ok(()),
            Value::Table(table) => table,
            other => {
                let got = binding::kind(&other);
                return Err(args.bad(format_args!("table expected, got {got}")));
            }
        };
        let mut keys = Vec::new();
        let is_handle = |address| stream_at(address).is_some();
        let others = keys::split(lua, &table, &mut keys, is_handle)?;
        for key in keys {
            match key {
                SetKey::Integer(fd) => self.add_number(args, fd, direction)?,
                SetKey::Userdata(address) => {
                    if let Some(stream) = stream_at(address) {
                        self.add_stream(&mut *borrow(&stream)?, direction)?;
                    }
                }
            }
        }
        for key in others.iter().flat_map(Table::sequence_values::<Value>) {
            self.add_other(args, &key?, direction == Direction::Write)?;
        }
        Ok(())
    }

    fn add_number(&mut self, args: &Args, fd: i64, direction: Direction) -> Reply<()> {
        match i32::try_from(fd) {
            Ok(fd) if fd >= 0 => {
                self.set.add(fd, direction == Direction::Write);
                Ok(())
            }
            _ => Err(args.bad("invalid file descriptor in set")),
        }
    }

    fn add_other(&mut self, args: &Args, key: &Value, write: bool) -> Reply<()> {
        let Value::UserData(object) = key else {
            let got = binding::kind(key);
            return Err(args.bad(format_args!("handle expected in set, got {got}")));
        };
        match (object.borrow::<ListenerHandle>(), object.borrow::<ChildProcess>()) {
            (Ok(listener), _) => self.add_listener(args, &listener, write),
            (_, Ok(child)) => {
                if self.add_child(args, &child, write)? {
                    self.children.push(object.clone());
                }
                Ok(())
            }
            _ => Err(args.bad("unexpected userdata in set")),
        }
    }

    fn add_stream(&mut self, stream: &mut Stream, direction: Direction) -> Reply<()> {
        if !stream.is_open() {
            return Err(Fault::misuse("Attempt to poll a closed I/O handle"));
        }
        // A finished local socket has no descriptor: its reads and writes do not block.
        match stream.duplex.raw_fd() {
            Some(_) if direction == Direction::Read && stream.has_input() => self.ready = true,
            Some(fd) => {
                let write = direction == Direction::Write;
                self.set.add_for(fd, stream.duplex.conditions(!write, write));
            }
            None => self.ready = true,
        }
        Ok(())
    }

    fn add_listener(&mut self, args: &Args, listener: &ListenerHandle, write: bool) -> Reply<()> {
        if write {
            return Err(args.bad("a listener cannot be in the output set"));
        }
        listener.with_socket(|socket| {
            self.set.add(socket.as_raw_fd(), false);
            Ok(())
        })
    }

    /// Returns true if the kernel provides no descriptor for it.
    fn add_child(&mut self, args: &Args, child: &ChildProcess, write: bool) -> Reply<bool> {
        if write {
            return Err(args.bad("a process handle cannot be in the output set"));
        }
        match child.process()?.descriptor() {
            Some(descriptor) => self.set.add(descriptor.as_raw_fd(), false),
            None => return Ok(true),
        }
        Ok(false)
    }

    fn a_child_has_ended(&self) -> bool {
        self.children.iter().any(|child| {
            child
                .borrow::<ChildProcess>()
                .is_ok_and(|child| child.process().is_ok_and(Process::has_ended))
        })
    }

    /// Waits for the collected objects and, with a mask, for SIGTERM. Ignores SIGALRM from a
    /// `moonbridge.timeout` whose deadline has been moved.
    fn wait(&mut self, timeout: Option<Duration>, mask: Option<&SigSet>) -> Reply<PollOutcome> {
        if timeout != Some(Duration::ZERO) {
            flusher::send_now();
        }
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if self.a_child_has_ended() {
                return Ok(PollOutcome::Ready);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let again = (!self.children.is_empty()).then_some(CHECK_INTERVAL);
            let slice = left.into_iter().chain(again).min();
            let early_rings = alarm::early_rings();
            slow_report::tell();
            match self.set.wait(slice, mask)? {
                PollOutcome::Timeout if slice != left => {}
                PollOutcome::Interrupted
                    if alarm::early_rings() != early_rings
                        && !(mask.is_some() && sigterm::received()) => {}
                outcome => return Ok(outcome),
            }
        }
    }
}
