//! The raw Lua C API: functions, classes and calls that cost no more than those of a C library.

pub mod alloc;
mod arguments;
pub mod c_file;
pub mod call_loop;
pub mod class;
pub mod compat;
pub mod continuation;
pub mod driver;
pub mod entry;
pub mod fields;
pub mod keys;
pub mod lua_stack;
pub mod method;
pub mod misuse;
mod recent;
mod record;
pub mod slow_report;
pub mod texts;
pub mod timeout_report;
pub mod userdata;
pub mod view;
