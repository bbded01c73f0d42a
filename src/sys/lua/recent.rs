//! What is looked up in a view repeatedly. The first two lookups only note the name, since most names are read once or
//! twice. With the third, the view begins to *remember*: it gets the twin of its metatable, whose
//! `__index` is a table, and what is there is found without any function. One view of each kind remembers at a time.
//!
//! `maps.lua` makes the twin and the *memory*, a table of the view that remembers and of what follows it below.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;

use mlua::ffi::{self, lua_State};

use super::userdata;

/// How many names of a view are noted.
const NAMES: usize = 8;

/// How many values a view remembers.
const VALUES: usize = 32;

// The entries of the memory. All are there from the beginning: to change them takes no memory.
/// The view that remembers.
const VIEW: i64 = 1;
/// The metatable of views that do not.
const PLAIN: i64 = 2;
/// That of the view that does.
const TWIN: i64 = 3;
/// Its `__index`. What is not there is looked up by the function of the plain metatable.
const REMEMBERED: i64 = 4;

/// What is known of the names that were looked up in one view.
pub struct Recent {
    view: Cell<*const c_void>,
    /// Names by their addresses, and whether they were looked up twice. One may be over by now, and another have its
    /// address.
    names: [Cell<(*const c_void, bool)>; NAMES],
    /// The place that is used next.
    next: Cell<usize>,
    /// The view that remembers, its table, and how many values that has got.
    owner: Cell<*const c_void>,
    table: Cell<*const c_void>,
    count: Cell<usize>,
    /// The two metatables.
    plain: Cell<*const c_void>,
    twin: Cell<*const c_void>,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It was not looked up before, or once.
    First,
    /// It was looked up twice: its value is worth remembering.
    Again,
}

impl Recent {
    /// Of no view yet.
    pub fn new() -> Self {
        Recent {
            view: Cell::new(ptr::null()),
            names: [const { Cell::new((ptr::null(), false)) }; NAMES],
            next: Cell::new(0),
            owner: Cell::new(ptr::null()),
            table: Cell::new(ptr::null()),
            count: Cell::new(0),
            plain: Cell::new(ptr::null()),
            twin: Cell::new(ptr::null()),
        }
    }

    fn note_lookup(&self, view: *const c_void, name: *const c_void) -> Lookup {
        if self.view.replace(view) != view {
            self.names.iter().for_each(|noted| noted.set((ptr::null(), false)));
        }
        if let Some(noted) = self.names.iter().find(|noted| noted.get().0 == name) {
            return if noted.replace((name, true)).1 { Lookup::Again } else { Lookup::First };
        }
        let place = self.next.get();
        self.next.set((place + 1) % NAMES);
        self.names[place].set((name, false));
        Lookup::First
    }
}

/// Looks the name at that address, the string in slot 2, up for the view in slot 1. Where the table of the view that
/// remembers is asked, the view takes its place.
///
/// # Safety
/// `recent` is the index of a userdata of [`Recent`], `memory` that of its memory. Three slots are free.
#[inline(always)]
pub unsafe fn note_lookup(
    state: *mut lua_State,
    recent: c_int,
    memory: c_int,
    name: *const u8,
) -> Lookup {
    // SAFETY: granted by the caller.
    unsafe {
        let Some(recent) = userdata::value::<Recent>(state, recent) else { return Lookup::First };
        let mut view = ffi::lua_topointer(state, 1);
        if view == recent.table.get() && !view.is_null() {
            ffi::lua_rawgeti(state, memory, VIEW);
            ffi::lua_replace(state, 1);
            view = recent.owner.get();
        }
        recent.note_lookup(view, name.cast())
    }
}

/// Remembers the value on top of the stack if the name in slot 2 is looked up [again](Lookup::Again), and if there is a
/// value.
///
/// # Safety
/// As of [`note_lookup`], which gave the second argument.
#[inline(always)]
pub unsafe fn keep(state: *mut lua_State, lookup: Lookup, recent: c_int, memory: c_int) {
    // SAFETY: granted by the caller.
    unsafe {
        if lookup == Lookup::Again && ffi::lua_type(state, -1) != ffi::LUA_TNIL {
            remember(state, recent, memory);
        }
    }
}

unsafe fn remember(state: *mut lua_State, recent: c_int, memory: c_int) {
    // SAFETY: granted by the caller; at most eight slots are used. Of all calls only `lua_rawset` takes memory, and may
    // fail.
    unsafe {
        let Some(recent) = userdata::value::<Recent>(state, recent) else { return };
        let value = ffi::lua_gettop(state);
        ffi::lua_rawgeti(state, memory, REMEMBERED);
        let remembers = recent.owner.get() == ffi::lua_topointer(state, 1);
        if (remembers || succeed(state, recent, memory, value + 1)) && recent.count.get() < VALUES {
            recent.count.set(recent.count.get() + 1);
            ffi::lua_pushvalue(state, 2);
            ffi::lua_pushvalue(state, value);
            ffi::lua_rawset(state, value + 1);
        }
        ffi::lua_settop(state, value);
    }
}

/// From now on the view in slot 1 remembers, instead of another one, in the table at `remembered`. False if it cannot:
/// it has another metatable, as something was assigned to it. Leaves values on the stack.
unsafe fn succeed(
    state: *mut lua_State,
    recent: &Recent,
    memory: c_int,
    remembered: c_int,
) -> bool {
    // SAFETY: as above.
    unsafe {
        if recent.table.get().is_null() {
            recent.table.set(ffi::lua_topointer(state, remembered));
            for (place, address) in [(PLAIN, &recent.plain), (TWIN, &recent.twin)] {
                ffi::lua_rawgeti(state, memory, place);
                address.set(ffi::lua_topointer(state, -1));
                ffi::lua_pop(state, 1);
            }
        }
        if !has_metatable(state, 1, recent.plain.get()) {
            return false;
        }
        if recent.count.replace(0) > 0 {
            clear(state, remembered);
        }
        ffi::lua_rawgeti(state, memory, VIEW);
        if has_metatable(state, -1, recent.twin.get()) {
            ffi::lua_rawgeti(state, memory, PLAIN);
            ffi::lua_setmetatable(state, -3);
        }
        ffi::lua_pushvalue(state, 1);
        ffi::lua_rawseti(state, memory, VIEW);
        ffi::lua_rawgeti(state, memory, TWIN);
        ffi::lua_setmetatable(state, 1);
        recent.owner.set(ffi::lua_topointer(state, 1));
        true
    }
}

/// Whether the value at `index` has the metatable at that address. If it has one, this is pushed.
unsafe fn has_metatable(state: *mut lua_State, index: c_int, metatable: *const c_void) -> bool {
    // SAFETY: as above.
    unsafe {
        ffi::lua_getmetatable(state, index) != 0 && ffi::lua_topointer(state, -1) == metatable
    }
}

/// Empties the table at `index`, which keeps its room.
unsafe fn clear(state: *mut lua_State, index: c_int) {
    // SAFETY: as above. Entries may be cleared while they are traversed.
    unsafe {
        ffi::lua_pushnil(state);
        while ffi::lua_next(state, index) != 0 {
            ffi::lua_pop(state, 1);
            ffi::lua_pushvalue(state, -1);
            ffi::lua_pushnil(state);
            ffi::lua_rawset(state, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_view_is_known_until_others_need_its_place() {
        let recent = Recent::new();
        let address = |number: usize| ptr::without_provenance(number);
        let (view, other) = (address(1000), address(2000));
        for _ in 0..2 {
            assert_eq!(recent.note_lookup(view, address(1)), Lookup::First);
        }
        assert_eq!(recent.note_lookup(view, address(1)), Lookup::Again);
        for number in 2..=NAMES + 1 {
            assert_eq!(recent.note_lookup(view, address(number)), Lookup::First);
        }
        for number in [2, 1, 1] {
            assert_eq!(recent.note_lookup(view, address(number)), Lookup::First, "{number}");
        }
        assert_eq!(recent.note_lookup(view, address(1)), Lookup::Again);
        for view in [other, view] {
            assert_eq!(
                recent.note_lookup(view, address(1)),
                Lookup::First,
                "it was the other view's"
            );
        }
    }
}
