//! Moonbridge: a pre-forking network server for Lua applications, as a loadable Lua C module.
//!
//! | module | what it is |
//! |---|---|
//! | [`sys`] | all unsafe code: the operating system (`os`) and the raw Lua C API (`lua`) |
//! | [`binding`] | how Rust functions become Lua functions: misuse, system failures, wrappers |
//! | [`amount`] | sizes, counts and times in options and arguments |
//! | [`known_options`] | refuses options that do not exist |
//! | [`trusted_peers`] | lists of networks in options |
//! | [`callback`] | streaming with callbacks: `moonbridge.callback` |
//! | [`proxy`] | what proxies in front tell of a connection, and which are believed (pure) |
//! | [`io`] | handles, listeners, child processes, poll: `moonbridge.io` |
//! | [`http`] | HTTP/1.1: pure parsers and the request cycle: `moonbridge.http` |
//! | [`server`] | pools, supervisor, workers: `moonbridge` |
#![deny(unsafe_code)]

mod amount;
mod binding;
mod callback;
pub mod http;
mod io;
mod known_options;
pub mod proxy;
pub mod server;
#[allow(unsafe_code)]
pub mod sys;
mod trusted_peers;

// For fuzz targets.
#[cfg(feature = "tls")]
pub use io::tls::record as tls_record;

sys::lua::entry::entry_points! {
    /// `require "moonbridge"`: the supervisor (reference, "Global function listen").
    luaopen_moonbridge opens server::module;
    /// `require "moonbridge.io"` or `require "moonbridge_io"` (reference, "I/O library").
    luaopen_moonbridge_io opens io::module;
    /// `require "moonbridge.http"` or `require "moonbridge_http"` (reference, "HTTP module").
    luaopen_moonbridge_http opens http::module;
    /// `require "moonbridge.callback"` or `require "moonbridge_callback"` ("Streaming with Callbacks").
    luaopen_moonbridge_callback opens callback::module;
}
