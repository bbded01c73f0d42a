//! The only unsafe code: thin, safe wrappers over system calls that `nix` and `socket2` do not cover.

pub mod accept_queue;
pub mod alarm;
pub mod alloc;
pub mod at_exit;
pub mod calendar;
pub mod child;
pub mod class;
pub mod disconnect;
pub mod dispositions;
pub mod environment;
pub mod fast;
pub mod lock;
pub mod lua_stack;
pub mod pipe;
pub mod poll;
pub mod process;
pub mod quick;
pub mod resolve;
pub mod shared;
pub mod sigterm;
pub mod standard;
pub mod syslog;
pub mod texts;
pub mod transfer;
pub mod usage;
pub mod worker_signals;
