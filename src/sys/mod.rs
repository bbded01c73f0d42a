//! The only unsafe code, behind safe interfaces.
//!
//! | room | what it is |
//! |---|---|
//! | [`os`] | system calls and signals that `nix` and `socket2` do not cover |
//! | [`lua`] | the raw Lua C API: functions, classes and calls that cost no more than those of a C library |

pub mod lua;
pub mod os;
