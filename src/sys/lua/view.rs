//! Views: tables whose entries become Lua values when somebody asks for them.
//!
//! A view of text keeps its *source* under a key of its own: the text, which is searched for each name;
//! or a table with the values of all names, if there are many of them or something was assigned.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi::{self, lua_State};
use mlua::{Function, IntoLuaMulti, LightUserData, Lua, Table};

use super::method::Borrowed;
use super::recent::{self, Recent};
use super::texts::undropped;
use super::userdata::{self, Userdata};

static SOURCE: u8 = 0;

fn source() -> *mut c_void {
    (&raw const SOURCE).cast_mut().cast()
}

/// The key of a view's source.
pub fn source_key() -> LightUserData {
    LightUserData(source())
}

/// An entry of a view.
pub enum ViewEntry {
    /// None.
    Nil,
    /// True or false.
    Boolean(bool),
    /// A text.
    Text(Borrowed),
    /// A text that was made for this answer.
    Made(Vec<u8>),
    /// The text that [`Search::decode`] makes of this one.
    Encoded(Borrowed),
    /// An empty sequence.
    Empty,
    /// A sequence of this text alone.
    Single(Borrowed),
    /// A sequence of the pieces of this text, see [`ObjectView::pieces`].
    Split(Borrowed),
    /// A view of this text.
    View(Borrowed),
    /// `complete(name)` returns it, the name being in lower case.
    Complete,
}

/// How the text of a view is searched.
pub trait Search: 'static {
    /// The entry of `name`; it borrows at most from `text`.
    fn find(text: &[u8], name: &[u8]) -> ViewEntry;

    /// Appends what a text of [`ViewEntry::Encoded`] stands for to `out`.
    fn decode(_text: &[u8], _out: &mut Vec<u8>) {}
}

/// The `__index` of views whose source is a table: it returns a value that is no table itself, else the first
/// of the sequence.
///
/// # Errors
/// Out of memory.
pub fn search_store(lua: &Lua) -> mlua::Result<Function> {
    closure(lua, (), find_in_store)
}

/// The `__index` of views that are searched, which [remember](recent) with this memory. A view that gets a table for
/// its source gets another metatable as well.
///
/// # Errors
/// Out of memory.
pub fn search<S: Search>(lua: &Lua, memory: &Table) -> mlua::Result<Function> {
    closure(lua, (&Userdata::new(lua, Recent::new())?, memory), find::<S>)
}

/// Views that belong to an object, whose data they show as long as they are its *current* ones.
pub trait ObjectView: 'static {
    /// The object.
    type Object: 'static;

    /// The number of the view among those of the object.
    const NUMBER: c_int;

    /// Whether a view keeps its entries, whatever case their names have: they are tables.
    const KEEPS: bool;

    /// Whether the object has a view with this number.
    fn is_given(object: &Self::Object) -> bool;

    /// The entry of a name; `current`: whether the object has this view.
    fn entry(object: &Self::Object, name: &[u8], current: bool) -> ViewEntry;

    /// The pieces of the text of [`ViewEntry::Split`].
    fn pieces(text: &[u8]) -> impl Iterator<Item = &[u8]>;
}

/// The `__index` of such views, which [remember](recent) with this memory. `views` has the current ones by their
/// numbers, `metatable` is that of [`ViewEntry::View`].
///
/// # Errors
/// Out of memory.
pub fn index<V: ObjectView>(
    lua: &Lua,
    object: &Userdata<V::Object>,
    complete: &Function,
    (views, memory): (&Table, &Table),
    metatable: &Table,
) -> mlua::Result<Function> {
    let recent = Userdata::new(lua, Recent::new())?;
    closure(lua, (complete, object, views, memory, metatable, &recent), get::<V>)
}

pub(super) fn closure(
    lua: &Lua,
    upvalues: impl IntoLuaMulti,
    function: ffi::lua_CFunction,
) -> mlua::Result<Function> {
    // SAFETY: the values are on the stack and become the upvalues that the function uses.
    unsafe {
        lua.exec_raw(upvalues, |state| {
            ffi::lua_pushcclosure(state, function, ffi::lua_gettop(state));
        })
    }
}

pub(super) const COMPLETE: c_int = ffi::lua_upvalueindex(1);
pub(super) const OBJECT: c_int = ffi::lua_upvalueindex(2);
pub(super) const VIEWS: c_int = ffi::lua_upvalueindex(3);

/// Of views that belong to an object.
const MEMORY: c_int = ffi::lua_upvalueindex(4);
const RECENT: c_int = ffi::lua_upvalueindex(6);

/// Of views that are searched.
const SEARCHED: c_int = ffi::lua_upvalueindex(1);
const SEARCHED_MEMORY: c_int = ffi::lua_upvalueindex(2);

/// The metatable of the view with the given number, or the only metatable.
pub(super) const fn metatable(number: c_int) -> c_int {
    ffi::lua_upvalueindex(4 + number)
}

// The functions below run as Lua C functions. A Lua error leaves them by a jump, so they hold nothing that
// would have to be dropped while they call Lua, and borrow nothing of the object: what they push of it is
// copied before any other code runs.

thread_local! {
    /// The text that was made last: it is dropped here, as a Lua error may jump over the function that pushes it.
    static MADE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Where a text stays until the next one is kept.
fn keep(text: Vec<u8>) -> Borrowed {
    let place = Borrowed::new(&text);
    MADE.set(text);
    place
}

/// What an encoded text stands for.
fn decoded<S: Search>(text: &[u8]) -> Borrowed {
    let mut out = MADE.take();
    out.clear();
    // Nothing of it is used if it panics.
    let _ = catch_unwind(AssertUnwindSafe(|| S::decode(text, &mut out)));
    keep(out)
}

unsafe extern "C-unwind" fn find<S: Search>(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots. The text and the name stay on the
    // stack while they are searched and pushed.
    unsafe {
        if ffi::lua_type(state, 2) != ffi::LUA_TSTRING {
            return 0;
        }
        let name = string(state, 2);
        let lookup = recent::note_lookup(state, SEARCHED, SEARCHED_MEMORY, name.as_ptr());
        if ffi::lua_type(state, 1) != ffi::LUA_TTABLE
            || ffi::lua_rawgetp(state, 1, source()) != ffi::LUA_TSTRING
        {
            return 0;
        }
        let text = string(state, -1);
        match catch_unwind(|| S::find(text, name)).unwrap_or(ViewEntry::Nil) {
            ViewEntry::Encoded(text) => push(state, decoded::<S>(text.bytes())),
            entry => push_entry(state, entry),
        }
        recent::keep(state, lookup, SEARCHED, SEARCHED_MEMORY);
        1
    }
}

unsafe extern "C-unwind" fn find_in_store(state: *mut lua_State) -> c_int {
    // SAFETY: as above.
    unsafe {
        ffi::lua_settop(state, 2);
        if ffi::lua_type(state, 1) != ffi::LUA_TTABLE
            || ffi::lua_rawgetp(state, 1, source()) != ffi::LUA_TTABLE
        {
            return 0;
        }
        ffi::lua_pushvalue(state, 2);
        if ffi::lua_rawget(state, 3) == ffi::LUA_TTABLE {
            ffi::lua_geti(state, 4, 1);
        }
        1
    }
}

unsafe extern "C-unwind" fn get<V: ObjectView>(state: *mut lua_State) -> c_int {
    // SAFETY: as above; the upvalues are those of `index`.
    unsafe {
        if ffi::lua_type(state, 2) != ffi::LUA_TSTRING {
            return 0;
        }
        let name = string(state, 2);
        let lookup = recent::note_lookup(state, RECENT, MEMORY, name.as_ptr());
        if ffi::lua_type(state, 1) != ffi::LUA_TTABLE {
            return 0;
        }
        if V::KEEPS {
            ffi::lua_settop(state, 2);
            if push_stored(state) {
                recent::keep(state, lookup, RECENT, MEMORY);
                return 1;
            }
        }
        let Some(object) = userdata::value::<V::Object>(state, OBJECT) else { return 0 };
        ffi::lua_rawgeti(state, VIEWS, V::NUMBER.into());
        let current = ffi::lua_rawequal(state, -1, 1) != 0 && V::is_given(object);
        let entry = AssertUnwindSafe(|| V::entry(object, name, current));
        let entry = catch_unwind(entry).unwrap_or(ViewEntry::Nil);
        match entry {
            ViewEntry::Complete => {
                ffi::lua_pushvalue(state, COMPLETE);
                push_lower(state, &[]);
                ffi::lua_call(state, 1, 1);
            }
            ViewEntry::Split(text) => push_pieces::<V>(state, text),
            entry => push_entry(state, entry),
        }
        if V::KEEPS {
            ffi::lua_pushvalue(state, ENTRY_KEY);
            ffi::lua_pushvalue(state, -2);
            ffi::lua_rawset(state, 1);
        }
        if current {
            recent::keep(state, lookup, RECENT, MEMORY);
        }
        1
    }
}

/// The slot of the key under which a view keeps an entry: nothing that is assigned has it.
const ENTRY_KEY: c_int = 3;

/// Puts that key into its slot, and above it the entry; false if that is nil.
unsafe fn push_stored(state: *mut lua_State) -> bool {
    // SAFETY: the caller is `get`, with a view and a string in slots 1 and 2.
    unsafe {
        push_lower(state, &[0]);
        ffi::lua_pushvalue(state, ENTRY_KEY);
        ffi::lua_rawget(state, 1) != ffi::LUA_TNIL
    }
}

/// Pushes the string in slot 2 in lower case, after a prefix.
unsafe fn push_lower(state: *mut lua_State, prefix: &[u8]) {
    // SAFETY: the caller is `get`.
    unsafe {
        let mut lower = MADE.take();
        lower.clear();
        lower.extend_from_slice(prefix);
        lower.extend_from_slice(string(state, 2));
        lower.make_ascii_lowercase();
        push(state, keep(lower));
    }
}

/// Pushes a new view.
pub(super) unsafe fn push_view(state: *mut lua_State, metatable: c_int, text: Option<Borrowed>) {
    // SAFETY: the caller is one of the functions above; at most three slots are used. The text is pushed
    // before Lua can run other code.
    unsafe {
        if let Some(text) = text {
            push(state, text);
            ffi::lua_createtable(state, 0, 1);
            ffi::lua_insert(state, -2);
            ffi::lua_rawsetp(state, -2, source());
        } else {
            ffi::lua_createtable(state, 0, 0);
        }
        ffi::lua_pushvalue(state, metatable);
        ffi::lua_setmetatable(state, -2);
    }
}

unsafe fn push_entry(state: *mut lua_State, entry: ViewEntry) {
    // SAFETY: as in `push_view`.
    unsafe {
        match entry {
            ViewEntry::Nil | ViewEntry::Complete | ViewEntry::Split(_) | ViewEntry::Encoded(_) => {
                ffi::lua_pushnil(state)
            }
            ViewEntry::Boolean(truth) => ffi::lua_pushboolean(state, c_int::from(truth)),
            ViewEntry::Text(text) => push(state, text),
            ViewEntry::Made(text) => push(state, keep(text)),
            ViewEntry::Empty => ffi::lua_createtable(state, 0, 0),
            ViewEntry::Single(text) => {
                push(state, text);
                ffi::lua_createtable(state, 1, 0);
                ffi::lua_insert(state, -2);
                ffi::lua_rawseti(state, -2, 1);
            }
            ViewEntry::View(text) => push_view(state, metatable(1), Some(text)),
        }
    }
}

/// Pushes a sequence of the pieces of a text.
unsafe fn push_pieces<V: ObjectView>(state: *mut lua_State, text: Borrowed) {
    // SAFETY: the caller is `get`. The pieces are taken from Lua's copy of the text, which stays on the
    // stack meanwhile.
    unsafe {
        push(state, text);
        let text = string(state, -1);
        let pieces = undropped(V::pieces(text));
        ffi::lua_createtable(state, undropped(V::pieces(text)).count() as c_int, 0);
        for (piece, index) in pieces.zip(1..) {
            ffi::lua_pushlstring(state, piece.as_ptr().cast(), piece.len());
            ffi::lua_rawseti(state, -2, index);
        }
    }
}

pub(super) unsafe fn push(state: *mut lua_State, text: Borrowed) {
    // SAFETY: granted by the callers: the text is where it was when it was borrowed. Lua copies it first.
    unsafe {
        let text = text.bytes();
        ffi::lua_pushlstring(state, text.as_ptr().cast(), text.len());
    }
}

/// The bytes of the string in a slot; they live as long as it stays there.
pub(super) unsafe fn string<'a>(state: *mut lua_State, slot: c_int) -> &'a [u8] {
    // SAFETY: granted by the callers.
    unsafe {
        let mut length = 0;
        let bytes = ffi::lua_tolstring(state, slot, &mut length);
        std::slice::from_raw_parts(bytes.cast(), length)
    }
}
