//! Methods in C: what a method is, what happens to it, and what it can ask for.
//!
//! A [`Method`] is a state machine. It gets its arguments by the stack, and answers each [`Event`] with an
//! [`Action`]: return, raise, or call a Lua function and go on when that has returned. The
//! [driver](super::driver) carries actions out with continuations, so that each function it calls may yield. A
//! method never calls Lua itself, and holds no borrow while Lua runs.

use std::borrow::Cow;
use std::ffi::c_int;
use std::io;

pub use super::arguments::{Arguments, Wrong};
pub use super::record::Record;
use crate::sys::os::error_text::ErrorCode;

/// A method.
pub trait Method: 'static {
    /// What the function works on, kept in an [`userdata::Userdata`]. Zero-sized: nothing is kept.
    type Object: 'static;

    /// The name in messages.
    const NAME: &'static str;

    /// So many arguments stay on the stack while the method calls a function: the slots 1 to `FRAME`.
    const FRAME: c_int;

    /// Strings that are ready to be returned or passed on, see [`Value::Word`].
    const WORDS: &'static [&'static str] = &[];

    /// Answers an event. `arguments` are those of the call at the start, and later the frame and what the
    /// called function has returned, which begins at [`Arguments::result`].
    fn step(object: &Self::Object, arguments: &Arguments<'_>, event: Event) -> Action;
}

/// What has happened. A token is that of the action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The method was called.
    Start,
    /// The called function has returned, or the coroutine was resumed.
    Returned(isize),
    /// The function, called with [`Protection`], has thrown the first result.
    Threw(isize),
}

/// What the driver has to do.
pub enum Action {
    /// Return nothing.
    Done,
    /// Return a value.
    Return(Value),
    /// Return two values.
    ReturnPair(Value, Value),
    /// Return a value, the message of an error, and its code, or nil.
    ReturnFault(Value, String, Option<ErrorCode>),
    /// Return the values of a record; the metatable of its table is the first upvalue.
    Record(Box<Record>),
    /// Return `nil, message, errno`.
    Fail(io::Error),
    /// Throw a text with the position of the caller.
    Raise(Cow<'static, str>),
    /// Throw a value.
    Throw(Value),
    /// Call a function.
    Call(Call),
    /// Yield three values.
    Yield([Value; 3], isize),
    /// Keep a value in a slot of the frame; then [`Event::Returned`].
    Put(c_int, Value, isize),
    /// Retire the object of [`Value::Object`].
    Retire(Retirement),
    /// Convert the arguments from this one on as `tostring` does; then [`Event::Start`] again.
    ConvertToStrings(c_int),
}

/// What is done when an object must not be used any more: it gets another metatable, and leaves the table.
pub struct Retirement {
    /// The table with the object, an upvalue.
    pub table: c_int,
    /// The object's new metatable, an upvalue.
    pub metatable: c_int,
    /// What is returned then.
    pub result: Value,
    /// Instead of that, it is kept in a slot of the frame, and [`Event::Returned`] follows with a token.
    pub keep: Option<(c_int, isize)>,
}

/// A call of a function.
pub struct Call {
    /// The function.
    pub function: Value,
    /// Its arguments, up to the first [`Value::Absent`].
    pub arguments: [Value; 4],
    /// What happens if it throws.
    pub protection: Protection,
    /// The token of the event that follows.
    pub token: isize,
}

/// What happens if a called function throws an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The error passes through the method.
    None,
    /// The method learns of it.
    Caught,
    /// The same, with the message handler that is this upvalue; it is the first result, and what the function
    /// has returned, or its error, the next.
    Traced(c_int),
}

/// A value for Lua. Upvalues are counted from 1 on, those that were given to
/// [`function`](super::driver::function).
#[derive(Clone, Copy)]
pub enum Value {
    /// No argument.
    Absent,
    /// nil.
    Nil,
    /// A boolean.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A number.
    Number(f64),
    /// A string of [`Method::WORDS`].
    Word(usize),
    /// A string that stays where it is until the method's object is used again.
    Bytes(Borrowed),
    /// What is in a slot of the stack.
    Slot(c_int),
    /// An upvalue.
    Upvalue(c_int),
    /// A new table with a metatable, the second upvalue. It becomes the second entry of a table, the first
    /// upvalue; what is in the first slot of the stack becomes the first entry.
    Object(c_int, c_int),
}

/// A string, by its address.
#[derive(Clone, Copy)]
pub struct Borrowed {
    pub(super) bytes: *const u8,
    pub(super) length: usize,
}

impl Borrowed {
    /// The bytes have to stay in memory until the method is called again, or another one for the same
    /// object: Lua copies them before any other code runs.
    #[inline(always)]
    pub fn new(bytes: &[u8]) -> Self {
        Borrowed { bytes: bytes.as_ptr(), length: bytes.len() }
    }

    /// Whether it is the empty string.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }

    /// # Safety
    /// The bytes must still be where they were.
    #[inline(always)]
    pub(super) unsafe fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: granted by the caller.
        unsafe { std::slice::from_raw_parts(self.bytes, self.length) }
    }
}

impl From<&[u8]> for Value {
    #[inline(always)]
    fn from(bytes: &[u8]) -> Self {
        Value::Bytes(Borrowed::new(bytes))
    }
}
