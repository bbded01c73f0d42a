//! Forms as they come in, piece by piece. Pure: no Lua type, no system call.
//!
//! | module | what it is |
//! |---|---|
//! | [`multipart`], [`urlencoded`] | the two media types |
//! | [`reader`] | which fields are kept, which are passed on in chunks |

pub mod multipart;
pub mod reader;
pub mod urlencoded;
