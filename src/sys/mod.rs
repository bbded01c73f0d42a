//! All unsafe code of the library, behind safe interfaces.
//!
//! | room | what it is |
//! |---|---|
//! | [`os`] | processes, signals, files and sockets: system calls that `nix` and `socket2` do not cover, and what is built on them |
//! | [`block`] | sixteen bytes at once |
//! | [`lua`] | the raw Lua C API: functions, classes and calls that are as cheap as those of a C library |

pub mod block;
pub mod lua;
pub mod os;
