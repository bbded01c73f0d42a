//! A record: what a method answers when it has many texts.
//!
//! Its texts stay where they are while Lua copies them, whatever a finalizer does meanwhile.

use std::cell::Cell;
use std::ffi::c_int;
use std::ops::Range;

use mlua::ffi::{self, lua_State};

/// A record that is kept for the next call holds at most so much memory, in bytes and fields.
const KEEP: usize = 64 * 1024;

/// A record: ranges are positions in `bytes`.
#[derive(Debug, Default)]
pub struct Record {
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

impl Record {
    /// An empty record, with memory that was used before.
    pub fn take() -> Box<Self> {
        SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default()
    }

    /// Makes it empty; keeps the memory.
    fn clear(&mut self) {
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

    /// The record is not needed any more: it can be reused, unless it has become large.
    pub fn give_back(mut self: Box<Self>) {
        if self.bytes.capacity() + self.fields.capacity() <= KEEP {
            self.clear();
            // At the end of the thread there is no place for it any more.
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }

    /// Pushes its number, a table of its fields, its line, its body (or nil), and whether it is reusable; how
    /// many values. If Lua has no memory for a string, its error leaves this by a jump: then the record is lost,
    /// and nothing else.
    ///
    /// # Safety
    /// The state must be that of a running C function, with eight free slots, and the index that of a table.
    pub(super) unsafe fn push(self: Box<Self>, state: *mut lua_State, metatable: c_int) -> c_int {
        let record = Box::into_raw(self);
        // SAFETY: granted by the caller; the pointer is that of a box which nobody else knows.
        unsafe {
            let this = &*record;
            ffi::lua_pushinteger(state, this.number);
            let count = c_int::try_from(this.fields.len()).unwrap_or(c_int::MAX);
            ffi::lua_createtable(state, 0, count);
            for (name, value) in &this.fields {
                this.push_text(state, name);
                this.push_text(state, value);
                ffi::lua_rawset(state, -3);
            }
            ffi::lua_pushvalue(state, metatable);
            ffi::lua_setmetatable(state, -2);
            this.push_text(state, &this.line);
            match &this.body {
                Some(body) => this.push_text(state, body),
                None => ffi::lua_pushnil(state),
            }
            ffi::lua_pushboolean(state, c_int::from(this.reusable));
            Box::from_raw(record).give_back();
        }
        5
    }

    /// Pushes a part of the record.
    ///
    /// # Safety
    /// As for [`Record::push`].
    unsafe fn push_text(&self, state: *mut lua_State, range: &Range<usize>) {
        let text = self.bytes.get(range.clone()).unwrap_or_default();
        // SAFETY: granted by the caller; Lua copies the bytes.
        unsafe { ffi::lua_pushlstring(state, text.as_ptr().cast(), text.len()) };
    }
}

thread_local! {
    static SPARE: Cell<Option<Box<Record>>> = const { Cell::new(None) };
}
