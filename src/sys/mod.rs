//! The only unsafe code: thin, safe wrappers over system calls that `nix` and `socket2` do not cover.

pub mod pipe;
pub mod resolve;
pub mod sigterm;
pub mod transfer;
