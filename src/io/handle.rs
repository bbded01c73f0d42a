//! Handles: what Lua holds of a stream.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{AnyUserData, Lua, UserData};

use super::stream::Stream;

/// A handle, shared between Lua and the Rust code that serves it.
#[derive(Debug)]
pub struct Handle {
    stream: Rc<RefCell<Stream>>,
}

impl Handle {
    /// A handle on `stream`.
    pub fn new(stream: Stream) -> Handle {
        Handle { stream: Rc::new(RefCell::new(stream)) }
    }

    /// The stream behind the handle.
    pub fn stream(&self) -> Rc<RefCell<Stream>> {
        self.stream.clone()
    }
}

impl UserData for Handle {}

/// A new handle for Lua.
///
/// # Errors
/// Out of memory.
pub fn new_handle(lua: &Lua, stream: Stream) -> mlua::Result<AnyUserData> {
    lua.create_userdata(Handle::new(stream))
}

/// The stream behind a handle; `None` if the value is something else. This is the way to get at a
/// stream from a Lua value.
pub fn stream_of(handle: &AnyUserData) -> Option<Rc<RefCell<Stream>>> {
    Some(handle.borrow::<Handle>().ok()?.stream())
}
