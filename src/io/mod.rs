//! `moonbridge.io`: handles, listeners, child processes and waiting for them.
//!
//! | module | what it is |
//! |---|---|
//! | [`buffer`] | byte queues (pure) |
//! | [`awaits`] | what input must contain before a reader can use it (pure) |
//! | [`address`] | addresses, ports, paths (pure, except for looking up the ends of a connection) |
//! | [`plain_transport`] | a descriptor and how its kind receives, sends and ends |
//! | [`transport`] | a descriptor and, for TLS, the session that its bytes pass through |
//! | [`shared_session`] | such a session, shared with the thread that sends deferred output |
//! | [`tls`] | TLS sessions, certificates, whom to believe |
//! | [`tls_options`], [`tls_functions`] | these for Lua |
//! | [`stream`] | a connection with buffers and state, without Lua |
//! | [`session`] | what a handler keeps of a connection that has changed its protocol (pure) |
//! | [`reading`] | reading up to a length or a terminator |
//! | [`wait`] | waiting for one descriptor |
//! | [`listen`] | listening sockets, also those of the server |
//! | [`connect`] | connecting |
//! | [`class`] | method tables, computed fields, user fields |
//! | [`handle`], [`handle_table`] | what Lua holds of a stream, and how the stream is found |
//! | [`methods`], [`fields`] | of handles |
//! | [`listener`], [`child`], `child.lua` | the other two classes |
//! | [`interop`], `ltn12.lua` | what cqueues, LuaSocket and ltn12 need |
//! | [`functions`], [`poll`] | the functions of the module |
//! | [`descriptor_limit`] | a garbage collection when descriptors run out |
//! | [`args`] | arguments, checked |

pub mod address;
pub mod args;
pub mod awaits;
pub mod buffer;
pub mod child;
pub mod class;
pub mod connect;
pub mod descriptor_limit;
pub mod fields;
pub mod functions;
pub mod handle;
pub mod handle_table;
pub mod interop;
pub mod listen;
pub mod listener;
pub mod methods;
pub mod plain_transport;
pub mod poll;
pub mod reading;
pub mod session;
pub mod shared_session;
pub mod stream;
pub mod tls;
pub mod tls_functions;
pub mod tls_options;
pub mod transport;
pub mod wait;

use mlua::{Lua, Result, Table};

pub use crate::sys::os::sigterm;
pub use awaits::Awaits;
use class::Prototypes;
pub use handle::new_handle;
pub use handle_table::{Handle, stream_of};
pub use stream::{Fill, Stream, Wakeup};

use crate::binding;

#[derive(Clone)]
struct IoModule(Table);

/// The module's table: always the same one.
pub fn module(lua: &Lua) -> Result<Table> {
    Ok(binding::once(lua, load)?.0)
}

fn load(lua: &Lua) -> Result<IoModule> {
    keep_freed_memory();
    let module = lua.create_table()?;
    let prototypes = Prototypes::new(lua)?;
    methods::install(lua, &prototypes.handle, &module)?;
    listener::install(lua, &prototypes.listener)?;
    child::install(lua, &prototypes.child)?;
    interop::install(lua, &prototypes)?;
    install_chunks(lua, &module, &prototypes)?;
    module.raw_set("handle_pt", &prototypes.handle)?;
    module.raw_set("listener_pt", &prototypes.listener)?;
    module.raw_set("child_pt", &prototypes.child)?;
    functions::install(lua, &module)?;
    tls_functions::install(lua, &module, &prototypes.handle)?;
    lua.set_app_data(prototypes);
    functions::install_standard_streams(lua, &module)?;
    Ok(IoModule(module))
}

/// The methods that are Lua, because they call functions of the user's or are made of other methods.
fn install_chunks(lua: &Lua, module: &Table, prototypes: &Prototypes) -> Result<()> {
    let Prototypes { handle, child, .. } = prototypes;
    binding::chunk::<()>(lua, "moonbridge.io.child", include_str!("child.lua"), (handle, child))?;
    binding::chunk::<()>(lua, "moonbridge.io.ltn12", include_str!("ltn12.lua"), (handle, module))
}

/// Tells the C library's allocator not to give freed memory back to the system at once.
///
/// Strings of 64 KiB, as in bulk transfers, exceed its initial threshold (128 KiB at the top of the
/// heap): each garbage collection would return pages, and the next strings would fault them in
/// again. The threshold grows with the largest block ever freed (mallopt(3), M_MMAP_THRESHOLD), so
/// freeing one large block suffices.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(1024 * 1024)));
}
