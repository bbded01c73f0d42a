//! What was looked up again in a view: a name that is asked for again and again is not searched, and no string
//! is made of its value. The first look only notes the name, since most are not asked for twice.
//!
//! Names and views are known by their addresses. A table keeps those alive that have a value there.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;

use mlua::ffi::{self, lua_State};

use super::userdata;

/// How many names of a view are noted.
const PLACES: usize = 8;

/// Where the table has the view, behind that a name and its value for each place.
const VIEW: i64 = 1;

/// What is known of the names that were looked up in one view.
pub struct Recent {
    view: Cell<*const c_void>,
    /// Names by their addresses, and whether the table has them: until then they may be over, and another one
    /// may have the address.
    names: [Cell<(*const c_void, bool)>; PLACES],
    /// The place that is used next.
    next: Cell<usize>,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It was not looked up before.
    First,
    /// It was: the value is to be kept at this place.
    Again(usize),
    /// The table has its value.
    Kept(usize),
}

impl Recent {
    /// Of no view yet.
    pub fn new() -> Self {
        let (view, next) = (Cell::new(ptr::null()), Cell::new(0));
        Recent { view, names: [const { Cell::new((ptr::null(), false)) }; PLACES], next }
    }

    fn look(&self, view: *const c_void, name: *const c_void) -> Look {
        if self.view.replace(view) != view {
            self.names.iter().for_each(|place| place.set((ptr::null(), false)));
        }
        for (place, known) in self.names.iter().enumerate() {
            match known.get() {
                (address, true) if address == name => return Look::Kept(place),
                (address, false) if address == name => return Look::Again(place),
                _ => {}
            }
        }
        let place = self.next.get();
        self.next.set((place + 1) % PLACES);
        self.names[place].set((name, false));
        Look::First
    }
}

/// Where the table has the name of a place; its value is the next one.
const fn slot(place: usize) -> i64 {
    VIEW + 1 + 2 * place as i64
}

/// Looks the name in slot 2 up for the view in slot 1. Pushes its value if that was kept.
///
/// # Safety
/// `recent` is the index of a userdata of [`Recent`], `table` that of a table which only it is used with. One
/// slot is free.
#[inline(always)]
pub unsafe fn look(state: *mut lua_State, recent: c_int, table: c_int) -> Look {
    // SAFETY: granted by the caller.
    unsafe {
        let Some(recent) = userdata::value::<Recent>(state, recent) else { return Look::First };
        let name = ffi::lua_topointer(state, 2);
        if name.is_null() {
            return Look::First;
        }
        let look = recent.look(ffi::lua_topointer(state, 1), name);
        if let Look::Kept(place) = look {
            ffi::lua_rawgeti(state, table, slot(place) + 1);
        }
        look
    }
}

/// Keeps the value on top of the stack if the name is looked up [again](Look::Again).
///
/// # Safety
/// As of [`look`], which gave the second argument for the same slots.
#[inline(always)]
pub unsafe fn keep(state: *mut lua_State, look: Look, recent: c_int, table: c_int) {
    let Look::Again(place) = look else { return };
    // SAFETY: granted by the caller. The table has had its slots since it was made, so nothing fails.
    unsafe {
        let Some(recent) = userdata::value::<Recent>(state, recent) else { return };
        let name = ffi::lua_topointer(state, 2);
        // Another function may have looked something up meanwhile.
        if recent.view.get() != ffi::lua_topointer(state, 1)
            || recent.names[place].replace((name, true)).0 != name
        {
            return recent.view.set(ptr::null());
        }
        ffi::lua_pushvalue(state, 1);
        ffi::lua_rawseti(state, table, VIEW);
        ffi::lua_pushvalue(state, 2);
        ffi::lua_rawseti(state, table, slot(place));
        ffi::lua_pushvalue(state, -1);
        ffi::lua_rawseti(state, table, slot(place) + 1);
    }
}

/// The size of the table.
pub const SIZE: usize = 1 + 2 * PLACES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_view_is_known_until_others_need_its_place() {
        let recent = Recent::new();
        let address = |number: usize| ptr::without_provenance(number);
        let (view, other) = (address(1000), address(2000));
        for number in 1..=PLACES + 1 {
            assert_eq!(recent.look(view, address(number)), Look::First);
        }
        assert_eq!(recent.look(view, address(2)), Look::Again(1));
        recent.names[1].set((address(2), true));
        assert_eq!(recent.look(view, address(2)), Look::Kept(1));
        assert_eq!(recent.look(view, address(1)), Look::First, "it was replaced");
        assert_eq!(recent.look(other, address(3)), Look::First, "it was the other view's");
        assert_eq!(recent.look(view, address(2)), Look::First);
    }
}
