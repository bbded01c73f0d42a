//! The methods of handles (reference, "Socket object"): reading and writing, and how a connection ends.

use std::cell::{RefCell, RefMut};
use std::ffi::c_int;
use std::rc::Rc;

use mlua::{Lua, ObjectLike, Table, Value as LuaValue};

use super::args::{Args, borrow};
use super::awaits::Awaits;
use super::buffer::KEEP;
use super::class::method;
use super::handle_table::stream_at;
use super::reading::{Status, Want};
use super::stream::{Direction, Stream};
use super::tls_options;
use crate::binding::{Fault, Reply};
use crate::sys::lua::driver::install as add;
use crate::sys::lua::method::{Action, Arguments, Call, Event, Method, Protection, Value, Wrong};

/// `write` collects this many bytes before it sends.
const WRITE_BUFFER: usize = 4096;

/// The parts that a write takes without allocating.
const PARTS: usize = 8;

/// How a method waits when a read or write would block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitMode {
    /// In `poll`, without limit.
    Blocking,
    /// Not at all (`_nb`).
    Never,
    /// By a function, the first argument, which is called with the handle, "r" or "w", and the module
    /// (`_call`).
    Function,
    /// By yielding the same three values (`_yield`).
    Yielding,
}

impl WaitMode {
    /// The first argument after `self` and the function to wait by.
    const fn first(self) -> c_int {
        if matches!(self, WaitMode::Function) { 3 } else { 2 }
    }

    /// What the driver has to do for that; with [`Event::Returned`] and the token it is over.
    fn wait(
        self,
        arguments: &Arguments<'_>,
        mode: usize,
        protection: Protection,
        token: isize,
    ) -> Result<Action, Wrong> {
        let values = [Value::Slot(1), Value::Word(mode), Value::Upvalue(MODULE)];
        if self == WaitMode::Yielding {
            return Ok(Action::Yield(values, token));
        }
        if arguments.is_nil(2) {
            return Err(arguments.expected(2, "function"));
        }
        let [this, mode, module] = values;
        Ok(Action::Call(Call {
            function: Value::Slot(2),
            arguments: [this, mode, module, Value::Absent],
            protection,
            token,
        }))
    }
}

/// The second results of reads by the number of their [`Status`], and the modes of waiting.
const WORDS: [&str; 6] = [
    Status::Term.as_str(),
    Status::MaxLen.as_str(),
    Status::Eof.as_str(),
    Status::Block.as_str(),
    "r",
    "w",
];
const READABLE: usize = 4;
const WRITABLE: usize = 5;

/// The mode in which a read or a write that would block has to wait.
fn mode(stream: &Stream, direction: Direction) -> usize {
    match stream.duplex.condition(direction) {
        Direction::Read => READABLE,
        Direction::Write => WRITABLE,
    }
}

/// The upvalue of each method: the module.
const MODULE: c_int = 1;

/// The slot of a long string while its memory in the buffer is given back.
const LONG: c_int = 2;

macro_rules! transfers {
    ($($type:ident $name:literal = $work:ident($waiting:ident $(, $flag:literal)?);)*) => {
        $(
            struct $type;
            impl Method for $type {
                type Object = ();
                const NAME: &'static str = $name;
                const FRAME: c_int = WaitMode::$waiting.first() + 1;
                const WORDS: &'static [&'static str] = &WORDS;

                #[inline(always)]
                fn step((): &(), arguments: &Arguments<'_>, event: Event) -> Action {
                    let outcome = $work(arguments, event, WaitMode::$waiting $(, $flag)?);
                    outcome.unwrap_or_else(|wrong| Action::Raise(wrong.into()))
                }
            }
        )*

        fn install_transfers(lua: &Lua, table: &Table, module: &Table) -> mlua::Result<()> {
            $(add::<$type>(lua, table, mlua::Nil, module)?;)*
            Ok(())
        }
    };
}

transfers! {
    Read "read" = read(Blocking);
    ReadNb "read_nb" = read(Never);
    ReadCall "read_call" = read(Function);
    ReadYield "read_yield" = read(Yielding);
    Drain "drain" = drain(Blocking);
    DrainNb "drain_nb" = drain(Never);
    DrainCall "drain_call" = drain(Function);
    DrainYield "drain_yield" = drain(Yielding);
    Write "write" = send(Blocking, false);
    WriteNb "write_nb" = send(Never, false);
    WriteCall "write_call" = send(Function, false);
    WriteYield "write_yield" = send(Yielding, false);
    Flush "flush" = send(Blocking, true);
    FlushNb "flush_nb" = send(Never, true);
    FlushCall "flush_call" = send(Function, true);
    FlushYield "flush_yield" = send(Yielding, true);
}

/// Puts the methods into the table of handles.
pub fn install(lua: &Lua, table: &Table, module: &Table) -> mlua::Result<()> {
    install_transfers(lua, table, module)?;
    method(lua, table, "close", |lua, args| close(lua, args, Stream::close))?;
    method(lua, table, "reset", |lua, args| close(lua, args, Stream::reset))?;
    method(lua, table, "finish", |_, args| finish(args))
}

#[inline(always)]
fn stream_of(arguments: &Arguments<'_>) -> Result<Rc<RefCell<Stream>>, Wrong> {
    stream_at(arguments.address(1)).ok_or_else(|| arguments.bad_self("I/O handle"))
}

#[inline(always)]
fn usable(stream: &RefCell<Stream>) -> Result<RefMut<'_, Stream>, Wrong> {
    stream.try_borrow_mut().map_err(|_| "Attempt to use an I/O handle recursively".to_owned())
}

/// The maxlen and terminator of a read, arguments `first` and the next one.
#[inline(always)]
fn want(arguments: &Arguments<'_>, first: c_int) -> Result<Want, Wrong> {
    // A negative length means no limit.
    let limit = arguments.optional_integer(first)?.and_then(|limit| usize::try_from(limit).ok());
    let terminator = match arguments.optional_string(first + 1)? {
        None | Some([]) => None,
        Some([byte]) => Some(*byte),
        Some(_) => return Err(arguments.bad(first + 1, "terminator must be a single byte")),
    };
    Ok(Want { limit, terminator })
}

fn check_readable(stream: &Stream) -> Result<(), Wrong> {
    match stream.is_open() {
        true => Ok(()),
        false => Err("Attempt to read from a closed I/O handle".to_owned()),
    }
}

fn check_writable(stream: &Stream) -> Result<(), Wrong> {
    let state = match () {
        () if !stream.is_open() => "closed",
        () if stream.is_finished() => "finished",
        () => return Ok(()),
    };
    Err(format!("Attempt to write to a {state} I/O handle"))
}

/// `read` in its four forms. A token that is not negative tells how far the input was searched before the
/// wait: input that does not suffice stays in the buffer, so nothing is lost if the wait is never resumed.
#[inline(always)]
fn read(arguments: &Arguments<'_>, event: Event, waiting: WaitMode) -> Result<Action, Wrong> {
    let stream = stream_of(arguments)?;
    if event != Event::Start {
        return read_on(arguments, event, waiting, &mut *usable(&stream)?);
    }
    let want = want(arguments, waiting.first())?;
    let mut stream = usable(&stream)?;
    // Without input, the state of the stream has to tell more.
    let input = stream.duplex.input();
    match want.find(input, 0) {
        Some((n, status)) if !input.is_empty() => Ok(take(&mut stream, n, status)),
        _ => receive(arguments, &mut stream, want, 0, waiting),
    }
}

#[cold]
fn read_on(
    arguments: &Arguments<'_>,
    event: Event,
    waiting: WaitMode,
    stream: &mut Stream,
) -> Result<Action, Wrong> {
    match event {
        Event::Returned(searched) if searched >= 0 => {
            let want = want(arguments, waiting.first())?;
            let position = isize::try_from(stream.duplex.input.position()).unwrap_or(isize::MAX);
            let seen = usize::try_from(searched.saturating_sub(position)).unwrap_or(0);
            receive(arguments, stream, want, seen, waiting)
        }
        // The string was copied: the buffer gives back the memory.
        Event::Returned(token) => {
            stream.duplex.consume(0);
            Ok(Action::ReturnPair(Value::Slot(LONG), Value::Word((-1 - token) as usize)))
        }
        // The wait was broken off: the input is not marked as waited for any more.
        _ => {
            stream.duplex.consume(0);
            Ok(Action::Throw(Value::Slot(arguments.result(1))))
        }
    }
}

/// Reads what is not buffered yet.
#[cold]
#[inline(never)]
fn receive(
    arguments: &Arguments<'_>,
    stream: &mut Stream,
    want: Want,
    seen: usize,
    waiting: WaitMode,
) -> Result<Action, Wrong> {
    check_readable(stream)?;
    match want.receive(stream, seen, waiting == WaitMode::Blocking) {
        Ok((n, Status::Block)) if waiting != WaitMode::Never => {
            let searched = stream.duplex.input.position().saturating_add(n as u64);
            let token = isize::try_from(searched).unwrap_or(isize::MAX);
            let mode = mode(stream, Direction::Read);
            let action = waiting.wait(arguments, mode, Protection::Caught, token)?;
            // A yield that is not possible throws: then nothing waits for the input.
            if waiting != WaitMode::Yielding || arguments.may_yield() {
                stream.duplex.input.hold(Awaits::More);
            }
            Ok(action)
        }
        Ok((n, status)) => Ok(take(stream, n, status)),
        Err(error) => Ok(Action::Fail(error)),
    }
}

/// Returns the first `n` bytes of the input, which are consumed.
#[inline(always)]
fn take(stream: &mut Stream, n: usize, status: Status) -> Action {
    let bytes = Value::from(stream.duplex.input().get(..n).unwrap_or_default());
    stream.duplex.input.consume_lazily(n);
    if n > KEEP {
        return Action::Put(LONG, bytes, -1 - status as isize);
    }
    Action::ReturnPair(bytes, Value::Word(status as usize))
}

/// `drain` in its four forms. The token tells how many bytes were drained before the wait.
fn drain(arguments: &Arguments<'_>, event: Event, waiting: WaitMode) -> Result<Action, Wrong> {
    let done = match event {
        Event::Start => 0,
        Event::Returned(done) | Event::Threw(done) => done as usize,
    };
    let stream = stream_of(arguments)?;
    let mut want = want(arguments, waiting.first())?;
    want.limit = want.limit.map(|limit| limit.saturating_sub(done));
    let mut stream = usable(&stream)?;
    check_readable(&stream)?;
    match want.discard(&mut stream, waiting == WaitMode::Blocking) {
        Ok((n, Status::Block)) if waiting != WaitMode::Never => {
            let mode = mode(&stream, Direction::Read);
            waiting.wait(arguments, mode, Protection::None, (done + n) as isize)
        }
        Ok((n, status)) => {
            let count = i64::try_from(done + n).unwrap_or(i64::MAX);
            Ok(Action::ReturnPair(Value::Integer(count), Value::Word(status as usize)))
        }
        Err(error) => Ok(Action::Fail(error)),
    }
}

/// `write` and `flush`, each in its four forms. While they wait, the output is queued.
fn send(
    arguments: &Arguments<'_>,
    event: Event,
    waiting: WaitMode,
    flush: bool,
) -> Result<Action, Wrong> {
    let stream = stream_of(arguments)?;
    // After a wait, all that is left is queued.
    let first = waiting.first();
    let indices = first..if event == Event::Start { arguments.count() + 1 } else { first };
    let string = |index| match arguments.optional_string(index)? {
        Some(text) => Ok::<&[u8], Wrong>(text),
        None => Err(arguments.expected(index, "string")),
    };
    let count = indices.len();
    let mut few: [&[u8]; PARTS] = [&[]; PARTS];
    let mut many = Vec::new();
    let parts = if let Some(parts) = few.get_mut(..count) {
        for (part, index) in parts.iter_mut().zip(indices) {
            *part = string(index)?;
        }
        &*parts
    } else {
        many.reserve(count);
        for index in indices {
            many.push(string(index)?);
        }
        &many[..]
    };
    let mut stream = usable(&stream)?;
    check_writable(&stream)?;
    let outcome = if !flush && !overflows(&stream, parts) {
        parts.iter().for_each(|part| stream.duplex.put(part));
        stream.duplex.output.check().map(|()| 0)
    } else if waiting == WaitMode::Blocking {
        stream.duplex.send_all(parts).map(|()| 0)
    } else {
        stream.duplex.send_nb(parts)
    };
    match (outcome, waiting) {
        (Err(error), _) => Ok(Action::Fail(error)),
        (Ok(left), WaitMode::Never) => {
            Ok(Action::Return(Value::Integer(i64::try_from(left).unwrap_or(i64::MAX))))
        }
        (Ok(0), _) => Ok(Action::Return(Value::Slot(1))),
        (Ok(_), waiting) => {
            let mode = mode(&stream, Direction::Write);
            waiting.wait(arguments, mode, Protection::None, 0)
        }
    }
}

/// Whether the small buffer of `write` is full with `parts`.
fn overflows(stream: &Stream, parts: &[&[u8]]) -> bool {
    stream.duplex.pending() + parts.iter().map(|part| part.len()).sum::<usize>() >= WRITE_BUFFER
}

/// `close` and `reset`.
fn close(lua: &Lua, mut args: Args, end: fn(&mut Stream) -> std::io::Result<()>) -> Reply<bool> {
    let (this, shared) = args.stream()?;
    let mut stream = borrow(&shared)?;
    if !stream.is_open() {
        return Err(Fault::misuse("Attempt to close a closed I/O handle"));
    }
    // The fields of the handle stay readable.
    stream.endpoints();
    let tls = match stream.duplex.session() {
        Some(session) => tls_options::describe(lua, &session)?,
        None => LuaValue::Nil,
    };
    let ended = end(&mut stream);
    drop(stream);
    if let (LuaValue::UserData(handle), false) = (&this, tls.is_nil()) {
        handle.set("tls", tls)?;
    }
    ended?;
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
