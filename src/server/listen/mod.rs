//! `listen{...}`: from a Lua table to a pool with its open listeners.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the table, checked |
//! | [`listener`], [`inherited`] | listeners, opened here or by a service manager |
//! | [`speaks_first`] | whether `connect` waits for its client |
//! | [`registry`] | the pools of a Lua state, and whether they are served |
//! | [`shared_sockets`] | connections that all workers would share |
//! | [`accept_error`] | what errors of `accept(2)` mean (pure) |

pub mod accept_error;
pub mod config;
pub mod inherited;
pub mod listener;
pub mod registry;
pub mod shared_sockets;
pub mod speaks_first;
