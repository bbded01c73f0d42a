//! The only unsafe code: thin, safe wrappers over system calls that `nix` and `socket2` do not cover.

pub mod at_exit;
pub mod calendar;
pub mod lock;
pub mod pipe;
pub mod process;
pub mod resolve;
pub mod shared;
pub mod sigterm;
pub mod syslog;
pub mod transfer;
pub mod worker_signals;
