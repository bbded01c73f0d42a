//! An access log that is a function: what the Lua code of its process asks for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use mlua::{Function, Lua, LuaString, Table, Value};
use nix::unistd::dup2_stderr;

use super::fields::{FIELDS, Shown, push, shown};
use super::moment::Moment;
use super::reader::{Command, RecordReader, RecordSink};
use super::wall_clock::WallClock;
use crate::binding;
use crate::server::ipc::access_queue::AccessQueue;
use crate::server::ipc::request_record::{self, Closing, LogValue, Opening};
use crate::server::log_throttle::{LogThrottle, Occasion};

/// What the process needs in the beginning.
pub struct CallsStart {
    /// What workers tell.
    pub queue: Rc<AccessQueue>,
    /// From the supervisor, and closed when it and all workers are gone.
    pub commands: OwnedFd,
    /// To the log.
    pub stderr: OwnedFd,
    /// What is called.
    pub function: Function,
}

struct Calls {
    reader: RecordReader,
    clock: WallClock,
    complete: Complete,
    /// Nobody can have anything more to say.
    is_over: bool,
    failures: LogThrottle,
    /// What the last one says.
    failure: Vec<u8>,
}

/// Records for which the call of the function has not ended.
#[derive(Default)]
struct Complete(VecDeque<Vec<u8>>);

impl RecordSink for Complete {
    fn complete(&mut self, opening: &Opening<'_>, closing: &Closing<'_>) {
        let mut record = Vec::new();
        opening.encode(&mut record);
        closing.encode(&mut record);
        self.0.push_back(record);
    }

    fn release(&mut self) -> usize {
        self.0.len()
    }
}

/// In the new process: gives the functions for `run.lua`:
///
/// * `next()`: waits, and returns the fields of the next request, or nil at the end;
/// * `call(fields)`: the function of the application;
/// * `failed(text)`: tells of an error of that.
pub fn begin(lua: &Lua, start: CallsStart) -> mlua::Result<Table> {
    let _ = dup2_stderr(&start.stderr);
    let calls = Calls {
        reader: RecordReader::new(start.queue, start.commands),
        clock: WallClock::new(),
        complete: Complete::default(),
        is_over: false,
        failures: LogThrottle::default(),
        failure: Vec::new(),
    };
    let calls = Rc::new(RefCell::new(calls));
    let shared = calls.clone();
    let next = lua.create_function(move |lua, ()| {
        // Nothing of this is borrowed while Lua makes values.
        let record = shared.borrow_mut().next();
        match record.as_ref().map(|record| request_record::decode(record)) {
            Some(Ok((opening, closing))) => {
                let at = *shared.borrow_mut().clock.at(opening.begun);
                fields_of(lua, (&opening, &closing), &at).map(Value::Table)
            }
            _ => Ok(Value::Nil),
        }
    })?;
    let failed = lua.create_function(move |_, text: LuaString| {
        let mut calls = calls.borrow_mut();
        calls.failures.note(1);
        calls.failure = text.as_bytes().to_vec();
        calls.tell_failures(Occasion::at(Instant::now()));
        Ok(())
    })?;
    let step = lua.create_table()?;
    step.raw_set("next", next)?;
    step.raw_set("call", start.function)?;
    step.raw_set("failed", failed)?;
    Ok(step)
}

impl Calls {
    /// Tells of errors of the function, if it is time.
    fn tell_failures(&mut self, occasion: Occasion) {
        let Some(times) = self.failures.take(occasion) else { return };
        let before = if times > 1 { format!("{times} times, at last: ") } else { String::new() };
        let parts =
            [b"Error in \"access_log\" function: ", before.as_bytes(), &self.failure, b"\n"];
        let _ = std::io::stderr().write_all(&parts.concat());
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        // The function has returned; if it ends this process, only the request that it was called for is lost.
        self.reader.hold(self.complete.0.len());
        loop {
            let Calls { reader, clock, complete, is_over, .. } = self;
            if let Some(record) = complete.0.pop_front() {
                return Some(record);
            }
            if reader.read_one(complete) {
                continue;
            }
            if *is_over {
                reader.finish(complete);
                let last = complete.0.pop_front();
                if last.is_none() {
                    self.tell_failures(Occasion::last());
                }
                return last;
            }
            *is_over = reader.wait() == Command::End;
            clock.set();
            self.tell_failures(Occasion::at(Instant::now()));
        }
    }
}

/// The fields of a JSON object as a table.
fn fields_of(lua: &Lua, record: (&Opening<'_>, &Closing<'_>), at: &Moment) -> mlua::Result<Table> {
    let fields = lua.create_table()?;
    for (name, field) in FIELDS.iter().filter(|(_, field)| field.is_in_json()) {
        let value = match shown(*field, record) {
            Shown::Nothing => continue,
            Shown::Text(text) => binding::bytes(lua, text)?,
            Shown::Number(number) => Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)),
            Shown::Time(time) => Value::Number(time as f64 / 1e6),
            other => {
                let mut text = Vec::new();
                push(&mut text, &other, at);
                binding::bytes(lua, &text)?
            }
        };
        fields.raw_set(*name, value)?;
    }
    let added = lua.create_table()?;
    for (name, value) in request_record::fields(record.1.fields) {
        let value = match value {
            LogValue::Text(text) => binding::bytes(lua, text)?,
            LogValue::Number(digits) => number(digits),
            LogValue::Boolean(value) => Value::Boolean(value),
        };
        added.raw_set(binding::bytes(lua, name)?, value)?;
    }
    fields.raw_set("fields", added)?;
    Ok(fields)
}

/// A number as Lua has written it.
fn number(digits: &[u8]) -> Value {
    let text = str::from_utf8(digits).unwrap_or_default();
    let float = || text.parse().map_or(Value::Nil, Value::Number);
    text.parse().map_or_else(|_| float(), Value::Integer)
}
