//! When descriptors run out: handles that are garbage still hold some.
//!
//! A handle looks small to Lua's garbage collector, so a program that leaves closing to it can meet
//! the limit on descriptors long before a collection is due.

use mlua::Lua;

use crate::glue::{Fault, Reply};

/// Calls `open`, and once more after a full collection if descriptors were what was missing. No
/// stream may be borrowed: finalizers run in between.
///
/// # Errors
/// What `open` returns.
pub fn retry<T>(lua: &Lua, open: impl Fn() -> Reply<T>) -> Reply<T> {
    match open() {
        Err(Fault::System(_, Some(libc::EMFILE | libc::ENFILE))) => {
            // The first one runs the finalizers of what a cycle before has found to be garbage.
            lua.gc_collect()?;
            lua.gc_collect()?;
            open()
        }
        outcome => outcome,
    }
}
