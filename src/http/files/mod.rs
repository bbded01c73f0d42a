//! Files as responses.
//!
//! | module | what it is |
//! |---|---|
//! | [`path`] | the path of a request as one below a folder (pure) |
//! | [`folder`] | a folder that is served: which file a request is for |
//! | [`opened`] | a file that was opened: its size and its validators |
//! | [`media_types`] | media types by extension |
//! | [`recent`] | files that were opened lately, and are as they were |
//! | [`answer`] | what a request gets of a file: all of it, a part, or nothing (pure) |
//! | [`byteranges`] | several parts of a file in one body |
//! | [`reply`] | the response that is made of a file or a folder |
//! | [`listing`] | the page that lists a folder |
//!
//! This room knows `wire`.

pub mod answer;
pub mod byteranges;
pub mod folder;
pub mod listing;
pub mod media_types;
pub mod opened;
pub mod path;
pub mod recent;
pub mod reply;
