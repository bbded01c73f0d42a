//! Handles: what Lua holds of a stream.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{AnyUserData, Lua};

use super::class::{self, UserdataClass};
use super::fields;
use super::handle_table::Handle;
use super::stream::Stream;
use crate::sys::lua::userdata;

/// The class of handles.
pub static CLASS: UserdataClass = UserdataClass {
    name: "moonbridge.io.handle",
    prototype: |prototypes| &prototypes.handle,
    property: fields::of_handle,
};

/// The classes of handles of a Lua state.
struct Classes {
    full: Rc<userdata::Class<Handle>>,
    /// For handles without computed fields. See [`class::plain_metatable`].
    plain: Rc<userdata::Class<Handle>>,
}

fn with_classes<R>(lua: &Lua, f: impl FnOnce(&Classes) -> R) -> mlua::Result<R> {
    if let Some(classes) = lua.app_data_ref::<Classes>() {
        return Ok(f(&classes));
    }
    let full = class::metatable(lua, &CLASS)?;
    let plain = class::plain_metatable(lua, &CLASS, &full)?;
    let classes = Classes {
        full: Rc::new(userdata::Class::new(lua, full)?),
        plain: Rc::new(userdata::Class::new(lua, plain)?),
    };
    let result = f(&classes);
    lua.set_app_data(classes);
    Ok(result)
}

/// The class of handles of a Lua state.
pub fn class(lua: &Lua) -> mlua::Result<Rc<userdata::Class<Handle>>> {
    with_classes(lua, |classes| classes.full.clone())
}

/// A new handle for Lua.
pub fn new_handle(lua: &Lua, stream: Stream) -> mlua::Result<AnyUserData> {
    create(lua, &*class(lua)?, stream)
}

/// Like [`new_handle`], for a stream outside a server: if it is not an internet connection, the
/// handle has neither addresses nor a [`wakeup`](Stream::wakeup).
pub fn new_free_handle(lua: &Lua, stream: Stream) -> mlua::Result<AnyUserData> {
    if stream.duplex.is_tcp() {
        return new_handle(lua, stream);
    }
    create(lua, &*with_classes(lua, |classes| classes.plain.clone())?, stream)
}

/// As [`new_handle`], on a stream that others share.
pub fn of_stream(lua: &Lua, stream: Rc<RefCell<Stream>>) -> mlua::Result<AnyUserData> {
    class(lua)?.create(lua, |address| Handle::at(address, stream))
}

fn create(lua: &Lua, class: &userdata::Class<Handle>, stream: Stream) -> mlua::Result<AnyUserData> {
    let stream = Rc::new(RefCell::new(stream));
    class.create(lua, |address| Handle::at(address, stream))
}
