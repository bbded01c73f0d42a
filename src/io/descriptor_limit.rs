//! When descriptors run out, garbage handles may still hold some.
//!
//! To Lua's garbage collector a handle looks small, so a program that leaves closing to it can reach
//! the descriptor limit long before a collection is due.

use mlua::Lua;

use crate::binding::{Fault, Reply};
use crate::sys::os::error_text::ErrorCode;

/// Calls `open`, and once more after a full collection if it failed for lack of descriptors. No
/// stream may be borrowed: finalizers run in between.
///
/// # Errors
/// What `open` returns.
pub fn retry_after_collection<T>(lua: &Lua, open: impl Fn() -> Reply<T>) -> Reply<T> {
    match open() {
        Err(Fault::System(_, Some(ErrorCode::Errno(libc::EMFILE | libc::ENFILE)))) => {
            // The first collection may only finish the running cycle, the second one finds the rest.
            lua.gc_collect()?;
            lua.gc_collect()?;
            open()
        }
        outcome => outcome,
    }
}
