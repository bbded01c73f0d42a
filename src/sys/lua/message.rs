//! Lua functions that answer with a message of many texts, at the cost of a C function.
//!
//! A step fills a [`Message`] that belongs to this module, so that its texts stay where they are
//! while Lua copies them, whatever a finalizer does meanwhile.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_int;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi;
use mlua::{Function, Lua, Table};

use super::arguments::Arguments;

/// A message that is kept for the next call holds at most so much memory, in bytes and fields.
const KEEP: usize = 64 * 1024;

/// A message: ranges are positions in `bytes`.
#[derive(Debug, Default)]
pub struct Message {
    /// A number that belongs to it.
    pub number: i64,
    /// All texts.
    pub bytes: Vec<u8>,
    /// Names and values. Names that are equal: the last one counts.
    pub fields: Vec<(Range<usize>, Range<usize>)>,
    /// Its first line.
    pub line: Range<usize>,
    /// Its body, if it is all there.
    pub body: Option<Range<usize>>,
    /// Whether more can follow on the same way.
    pub reusable: bool,
}

impl Message {
    /// Makes it empty; keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        (self.number, self.line, self.body, self.reusable) = (0, 0..0, None, false);
    }

    /// Appends a text; where it is.
    pub fn add(&mut self, text: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        start..self.bytes.len()
    }
}

/// What a step answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: no value.
    Nothing,
    /// An integer, and the bytes of the message as a string, if there are any.
    Code(i64),
    /// False, and the bytes of the message.
    Failed,
    /// The message: its number, a table of its fields, its first line, its body (or nil), and
    /// whether it is reusable.
    Message,
}

/// A step that answers with a message.
pub trait Step: Any {
    /// The name in messages.
    const NAME: &'static str;

    /// Carries it out. `message` is empty.
    fn call(arguments: &Arguments<'_>, message: &mut Message) -> Verdict;
}

/// The step as a Lua function; `meta` becomes the metatable of the tables of fields.
///
/// # Errors
/// Out of memory.
pub fn function<S: Step>(lua: &Lua, meta: &Table) -> mlua::Result<Function> {
    // SAFETY: the value is on the stack and becomes the upvalue that `run` uses.
    unsafe { lua.exec_raw(meta, |state| ffi::lua_pushcclosure(state, run::<S>, 1)) }
}

thread_local! {
    static SPARE: Cell<Option<Box<Message>>> = const { Cell::new(None) };
}

/// The message goes back to be used again, unless it has become large.
fn give_back(mut message: Box<Message>) {
    if message.bytes.capacity() + message.fields.capacity() <= KEEP {
        message.clear();
        // At the end of the thread there is no place for it any more.
        let _ = SPARE.try_with(|spare| spare.set(Some(message)));
    }
}

// Runs as a Lua C function. A Lua error (there is no memory for a string) leaves it by a jump: then
// the message, which it holds as a plain pointer, is lost, and nothing else.
unsafe extern "C-unwind" fn run<S: Step>(state: *mut ffi::lua_State) -> c_int {
    let message = SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default();
    let message = Box::into_raw(message);
    // SAFETY: the pointer is that of a box which nobody else knows. Lua calls with a valid state and
    // at least 20 free slots, of which `push` uses five.
    unsafe {
        let arguments = Arguments::of(state, S::NAME, 1);
        let outcome = catch_unwind(AssertUnwindSafe(|| S::call(&arguments, &mut *message)));
        let count = push(state, outcome.unwrap_or(Verdict::Failed), message);
        give_back(Box::from_raw(message));
        count
    }
}

/// Pushes what a verdict stands for; how many values.
///
/// # Safety
/// As in `run`.
unsafe fn push(state: *mut ffi::lua_State, verdict: Verdict, message: *const Message) -> c_int {
    // SAFETY: granted by the caller.
    unsafe {
        let message = &*message;
        let all = 0..message.bytes.len();
        match verdict {
            Verdict::Nothing => 0,
            Verdict::Failed => {
                ffi::lua_pushboolean(state, 0);
                push_text(state, message, &all);
                2
            }
            Verdict::Code(code) => {
                ffi::lua_pushinteger(state, code);
                if all.is_empty() {
                    return 1;
                }
                push_text(state, message, &all);
                2
            }
            Verdict::Message => {
                ffi::lua_pushinteger(state, message.number);
                let count = c_int::try_from(message.fields.len()).unwrap_or(c_int::MAX);
                ffi::lua_createtable(state, 0, count);
                for (name, value) in &message.fields {
                    push_text(state, message, name);
                    push_text(state, message, value);
                    ffi::lua_rawset(state, -3);
                }
                ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
                ffi::lua_setmetatable(state, -2);
                push_text(state, message, &message.line);
                match &message.body {
                    Some(body) => push_text(state, message, body),
                    None => ffi::lua_pushnil(state),
                }
                ffi::lua_pushboolean(state, c_int::from(message.reusable));
                5
            }
        }
    }
}

/// Pushes a part of the message.
///
/// # Safety
/// As in `run`.
unsafe fn push_text(state: *mut ffi::lua_State, message: &Message, range: &Range<usize>) {
    let text = message.bytes.get(range.clone()).unwrap_or_default();
    // SAFETY: granted by the caller; Lua copies the bytes.
    unsafe { ffi::lua_pushlstring(state, text.as_ptr().cast(), text.len()) };
}
