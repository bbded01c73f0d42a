//! Incremental parsers of forms. Pure: no Lua type, no system call.
//!
//! | module | what it is |
//! |---|---|
//! | [`multipart`], [`urlencoded`] | the two media types |
//! | [`reader`] | which fields to collect, and which to pass on in chunks |

pub mod multipart;
pub mod reader;
pub mod urlencoded;
