//! `listen{...}`: from a Lua table to a pool with its open listeners.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`], [`spec`] | the table and its listeners, checked |
//! | `fields` | fields of a listener |
//! | [`listener`], [`inherited`] | listeners, opened here, by a service manager or by the previous generation |
//! | [`dry_run`] | what would keep a listener from being opened, for `moonbridge --check` |
//! | [`status_listener`] | ports of the status process |
//! | [`predecessor`] | what a reload passes to the process that it starts |
//! | [`proxies`] | which connections begin with a PROXY header |
//! | [`speaks_first`] | whether the client speaks first |
//! | [`pool`] | a pool as it is registered |
//! | [`registry`] | the pools of a Lua state, and whether they are served |
//! | [`shared_sockets`] | detects connections that all workers would share |
//! | [`accept_error`] | classes of `accept(2)` errors (pure) |

pub mod accept_error;
pub mod config;
pub mod dry_run;
mod fields;
pub mod inherited;
pub mod listener;
pub mod pool;
pub mod predecessor;
pub mod proxies;
pub mod registry;
pub mod shared_sockets;
pub mod speaks_first;
pub mod spec;
pub mod status_listener;
