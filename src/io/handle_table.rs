//! The streams of handles, by the address of the userdata.

use std::cell::RefCell;
use std::ffi::c_void;
use std::rc::Rc;

use mlua::{AnyUserData, Value};
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::stream::Stream;

/// Keeps the stream of a userdata in [`LIVE`]. When the last owner of the stream is
/// garbage-collected, the connection is reset.
#[derive(Debug)]
pub struct Handle {
    /// The address of the userdata.
    address: usize,
}

impl Handle {
    /// The handle of `stream` whose userdata is at `address`. See [`super::handle::new_handle`].
    pub fn at(address: *mut c_void, stream: Rc<RefCell<Stream>>) -> Handle {
        let address = address as usize;
        LIVE.with(|live| live.borrow_mut().insert(address, stream));
        Handle { address }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let address = self.address;
        // The thread-local may already be gone at the end of the thread.
        let _ = LIVE.try_with(|live| live.try_borrow_mut().map(|mut live| live.remove(address)));
    }
}

thread_local! {
    static LIVE: RefCell<HandleTable> = const { RefCell::new(HandleTable::new()) };
}

/// The streams of all handles in this thread, by the address of their userdata, so that a method
/// finds its stream without a type check by mlua.
struct HandleTable {
    all: FxHashMap<usize, Rc<RefCell<Stream>>>,
    /// The one that was made or looked up last: most calls are for that.
    last: Option<(usize, Rc<RefCell<Stream>>)>,
}

impl HandleTable {
    const fn new() -> Self {
        HandleTable { all: FxHashMap::with_hasher(FxBuildHasher), last: None }
    }

    fn insert(&mut self, address: usize, stream: Rc<RefCell<Stream>>) {
        self.last = Some((address, stream.clone()));
        self.all.insert(address, stream);
    }

    fn remove(&mut self, address: usize) -> Option<Rc<RefCell<Stream>>> {
        if matches!(self.last, Some((last, _)) if last == address) {
            self.last = None;
        }
        self.all.remove(&address)
    }

    #[inline]
    fn get(&mut self, address: usize) -> Option<&Rc<RefCell<Stream>>> {
        if !matches!(self.last, Some((last, _)) if last == address) {
            self.look_up(address)?;
        }
        self.last.as_ref().map(|(_, stream)| stream)
    }

    #[cold]
    #[inline(never)]
    fn look_up(&mut self, address: usize) -> Option<()> {
        self.last = Some((address, self.all.get(&address)?.clone()));
        Some(())
    }
}

/// Gives back the memory of handles that are gone.
pub fn shrink() {
    LIVE.with_borrow_mut(|live| live.all.shrink_to_fit());
}

/// The stream of a handle; `None` if the value is something else.
pub fn stream_of(handle: &AnyUserData) -> Option<Rc<RefCell<Stream>>> {
    LIVE.with(|live| live.try_borrow_mut().ok()?.get(handle.to_pointer() as usize).cloned())
}

/// Like [`stream_of`], for any value.
pub fn stream_of_value(value: &Value) -> Option<Rc<RefCell<Stream>>> {
    match value {
        Value::UserData(handle) => stream_of(handle),
        _ => None,
    }
}

/// Like [`stream_of`], for the handle whose userdata is at `address`, if there is one.
#[inline]
pub fn stream_at(address: *mut c_void) -> Option<Rc<RefCell<Stream>>> {
    LIVE.with(|live| live.try_borrow_mut().ok()?.get(address as usize).cloned())
}
