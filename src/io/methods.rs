//! The methods of handles that never run a function of the user's (reference, "Socket object").

use mlua::{Function, IntoLua, Lua, MultiValue, Table, Value};

use super::args::{Args, borrow, with_bytes};
use super::awaits::Awaits;
use super::child;
use super::class::method;
use super::reading::{Status, Want};
use super::stream::Stream;
use super::usual::Usual;
use crate::glue::{self, Fault, Reply};
use crate::sys::lua::quick;

/// `write` collects this many bytes before it sends.
const WRITE_BUFFER: usize = 4096;

/// Puts the methods into the table of handles.
///
/// # Errors
/// Out of memory.
pub fn install(lua: &Lua, table: &Table) -> mlua::Result<()> {
    let quick = |name: &'static str, f: fn(&Lua, Args) -> Reply<MultiValue>| {
        let complete = glue::raw(lua, move |lua, args| f(lua, Args::new(name, args)))?;
        table.raw_set(name, quick::method::<Usual>(lua, name, &complete)?)
    };
    quick("read", |lua, args| read(lua, args, true))?;
    quick("read_nb", |lua, args| read(lua, args, false))?;
    quick("drain", |lua, args| drain(lua, args.limit(3), true))?;
    quick("drain_nb", |lua, args| drain(lua, args.limit(3), false))?;
    quick("write", |lua, args| single(send(lua, args, false)?))?;
    quick("flush", |lua, args| single(send(lua, args, true)?))?;
    quick("write_nb", |lua, args| single(send_nb(lua, args, false)?))?;
    quick("flush_nb", |lua, args| single(send_nb(lua, args, true)?))?;
    method(lua, table, "close", |_, args| close(args, Stream::close))?;
    method(lua, table, "reset", |_, args| close(args, Stream::reset))?;
    method(lua, table, "finish", |_, args| finish(args))
}

/// The steps that the methods in Lua (`loops.lua`, `ltn12.lua`) are made of. They are not public and report
/// misuse by [`glue::marker`].
///
/// # Errors
/// Out of memory.
pub fn steps(lua: &Lua) -> mlua::Result<Table> {
    let steps = lua.create_table()?;
    let step = |name: &'static str, f: fn(&Lua, Args) -> Reply<MultiValue>| {
        // The function to wait by comes first, and is not passed on.
        let before = usize::from(name.ends_with("_call"));
        let step = move |lua: &Lua, args| f(lua, Args::new(name, args).behind(before));
        steps.raw_set(name, glue::raw(lua, step)?)
    };
    step("read_nb", |lua, args| read(lua, args, false))?;
    step("write", |lua, args| single(send(lua, args, false)?))?;
    step("flush", |lua, args| single(send(lua, args, true)?))?;
    step("read_call", read_step)?;
    step("drain_call", |lua, args| drain(lua, args, false))?;
    step("wait_call", child::wait_nb)?;
    step("write_call", |lua, args| single(send_nb(lua, args, false)?))?;
    step("flush_call", |lua, args| single(send_nb(lua, args, true)?))?;
    step("release", release)?;
    // `quick(name, f)`: the method over `f`, which is called where the quick form does not suffice.
    let quick = |lua: &Lua, (name, complete): (String, Function)| {
        quick::method::<Usual>(lua, &name, &complete)
    };
    steps.raw_set("quick", lua.create_function(quick)?)?;
    Ok(steps)
}

fn single(value: Value) -> Reply<MultiValue> {
    Ok(MultiValue::from_vec(vec![value]))
}

/// The maxlen and terminator of a read.
fn want(lua: &Lua, args: &mut Args) -> Reply<Want> {
    // A negative length means no limit.
    let limit = args.integer(lua)?.and_then(|limit| usize::try_from(limit).ok());
    let terminator = match args.optional_string(lua)? {
        Some(text) => match *text.as_bytes() {
            [] => None,
            [byte] => Some(byte),
            _ => return Err(args.bad("terminator must be a single byte")),
        },
        None => None,
    };
    Ok(Want { limit, terminator })
}

fn check_readable(stream: &Stream) -> Reply<()> {
    if stream.is_open() {
        Ok(())
    } else {
        Err(Fault::misuse("Attempt to read from a closed I/O handle"))
    }
}

fn check_writable(stream: &Stream) -> Reply<()> {
    if !stream.is_open() {
        Err(Fault::misuse("Attempt to write to a closed I/O handle"))
    } else if stream.is_finished() {
        Err(Fault::misuse("Attempt to write to a finished I/O handle"))
    } else {
        Ok(())
    }
}

/// `read` and `read_nb`.
fn read(lua: &Lua, mut args: Args, blocking: bool) -> Reply<MultiValue> {
    let (_, stream) = args.stream()?;
    let want = want(lua, &mut args)?;
    let mut stream = borrow(&stream)?;
    check_readable(&stream)?;
    let (n, status) =
        if blocking { stream.receive_all(&want)? } else { stream.receive(&want, 0)? };
    take(lua, &mut stream, n, status)
}

/// The results of a read of the first `n` bytes of the input, which are consumed.
fn take(lua: &Lua, stream: &mut Stream, n: usize, status: Status) -> Reply<MultiValue> {
    let data = glue::bytes(lua, stream.input().get(..n).unwrap_or_default())?;
    stream.consume(n);
    Ok(MultiValue::from_vec(vec![data, status.as_str().into_lua(lua)?]))
}

/// One step of `read_call(self, maxlen, terminator)`, with the position up to which the input was
/// searched as fourth argument. Returns the results of the read, or false and the position. Input
/// that does not suffice stays in the buffer, so nothing is lost if the wait is never resumed.
fn read_step(lua: &Lua, mut args: Args) -> Reply<MultiValue> {
    let (_, stream) = args.stream()?;
    let want = want(lua, &mut args)?;
    let searched = args.integer(lua)?.unwrap_or(0);
    let mut stream = borrow(&stream)?;
    check_readable(&stream)?;
    let start = i64::try_from(stream.position()).unwrap_or(i64::MAX);
    let seen = usize::try_from(searched.saturating_sub(start)).unwrap_or(0);
    let (n, status) = stream.receive(&want, seen)?;
    if status != Status::Block {
        return take(lua, &mut stream, n, status);
    }
    stream.hold_input(Awaits::More);
    let searched = start.saturating_add(i64::try_from(n).unwrap_or(i64::MAX));
    Ok(MultiValue::from_vec(vec![Value::Boolean(false), Value::Integer(searched)]))
}

/// Ends the hold of a read whose wait was broken off.
fn release(_: &Lua, mut args: Args) -> Reply<MultiValue> {
    let (_, stream) = args.stream()?;
    borrow(&stream)?.consume(0);
    Ok(MultiValue::new())
}

/// `drain` and `drain_nb`.
fn drain(lua: &Lua, mut args: Args, blocking: bool) -> Reply<MultiValue> {
    let (_, stream) = args.stream()?;
    let mut want = want(lua, &mut args)?;
    // A round of `drain_call` passes on what the rounds before have drained.
    let done = args.integer(lua)?.and_then(|done| usize::try_from(done).ok()).unwrap_or(0);
    want.limit = want.limit.map(|limit| limit.saturating_sub(done));
    let mut stream = borrow(&stream)?;
    check_readable(&stream)?;
    let (n, status) = if blocking { stream.discard_all(&want)? } else { stream.discard(&want)? };
    Ok(MultiValue::from_vec(vec![
        Value::Integer(i64::try_from(n).unwrap_or(i64::MAX)),
        status.as_str().into_lua(lua)?,
    ]))
}

/// `write` and `flush`: returns the handle.
fn send(lua: &Lua, mut args: Args, flush: bool) -> Reply<Value> {
    let (this, stream) = args.stream()?;
    let strings = args.strings(lua)?;
    let mut stream = borrow(&stream)?;
    check_writable(&stream)?;
    with_bytes(&strings, |parts| {
        if flush || overflows(&stream, parts) {
            return stream.send_all(parts);
        }
        parts.iter().for_each(|part| stream.put(part));
        stream.check_write()
    })?;
    Ok(this)
}

/// `write_nb` and `flush_nb`: returns how many bytes could not be sent.
fn send_nb(lua: &Lua, mut args: Args, flush: bool) -> Reply<Value> {
    let (_, stream) = args.stream()?;
    let strings = args.strings(lua)?;
    let mut stream = borrow(&stream)?;
    check_writable(&stream)?;
    let left = with_bytes(&strings, |parts| {
        if flush || overflows(&stream, parts) {
            return stream.send_nb(parts);
        }
        parts.iter().for_each(|part| stream.put(part));
        stream.check_write().map(|()| 0)
    })?;
    Ok(Value::Integer(i64::try_from(left).unwrap_or(i64::MAX)))
}

/// Whether the small buffer of `write` is full with `parts`.
pub fn overflows(stream: &Stream, parts: &[&[u8]]) -> bool {
    stream.pending() + parts.iter().map(|part| part.len()).sum::<usize>() >= WRITE_BUFFER
}

/// `close` and `reset`.
fn close(mut args: Args, end: fn(&mut Stream) -> std::io::Result<()>) -> Reply<bool> {
    let (_, stream) = args.stream()?;
    let mut stream = borrow(&stream)?;
    if !stream.is_open() {
        return Err(Fault::misuse("Attempt to close a closed I/O handle"));
    }
    // The fields of the handle stay readable.
    stream.endpoints();
    end(&mut stream)?;
    Ok(true)
}

/// `finish`.
fn finish(mut args: Args) -> Reply<bool> {
    let (_, stream) = args.stream()?;
    let mut stream = borrow(&stream)?;
    if !stream.is_open() {
        return Err(Fault::misuse("Attempt to finish a closed I/O handle"));
    }
    if stream.is_finished() {
        return Err(Fault::misuse("Attempt to finish a finished I/O handle"));
    }
    stream.finish()?;
    Ok(true)
}
