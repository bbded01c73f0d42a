//! The access log: a line for each request.
//!
//! Workers put records into queues in shared memory; a process of its own makes lines of them and writes them, or
//! calls a function in Lua.
//!
//! | module | what it is |
//! |---|---|
//! | [`format`], [`json`], [`text`] | how a line looks (pure) |
//! | [`fields`], [`values`], [`moment`] | what stands in it (pure) |
//! | [`assembler`] | from what workers tell to records that are complete (pure) |
//! | [`output`] | where lines go |
//! | [`reader`], [`wall_clock`] | what the process reads, and the time |
//! | [`writer`] | the process that writes lines |
//! | [`calls`] | the process that calls a function in Lua |

mod assembler;
pub mod calls;
mod fields;
pub mod format;
mod json;
mod moment;
pub mod output;
pub mod reader;
pub mod text;
mod values;
mod wall_clock;
pub mod writer;

use std::path::PathBuf;

use mlua::Function;

use format::LineFormat;
use output::AccessLogTarget;

use crate::server::ipc::access_queue::WantedFields;

/// What the options say of the access log.
#[derive(Clone, Debug, PartialEq)]
pub enum AccessLogOptions {
    /// Lines go there, and look like that.
    Lines(AccessLogName, LineFormat),
    /// This function is called.
    Calls(Function),
}

/// Where an access log goes, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The file with this path.
    File(PathBuf),
}

/// An access log that is open.
#[derive(Debug)]
pub enum AccessLogSettings {
    /// Lines go there, and look like that.
    Lines(AccessLogTarget, LineFormat),
    /// This function is called.
    Calls(Function),
}

impl AccessLogOptions {
    /// Opens it.
    ///
    /// # Errors
    /// What the system reports of the file.
    pub fn open(&self) -> std::io::Result<AccessLogSettings> {
        let (to, format) = match self {
            AccessLogOptions::Calls(function) => {
                return Ok(AccessLogSettings::Calls(function.clone()));
            }
            AccessLogOptions::Lines(to, format) => (to, format),
        };
        let target = match to {
            AccessLogName::Stdout => AccessLogTarget::Stdout,
            AccessLogName::Stderr => AccessLogTarget::Stderr,
            AccessLogName::File(path) => AccessLogTarget::open(path)?,
        };
        Ok(AccessLogSettings::Lines(target, format.clone()))
    }
}

impl AccessLogSettings {
    /// What it tells of a request.
    pub fn wanted(&self) -> WantedFields {
        match self {
            AccessLogSettings::Lines(_, format) => format.wanted(),
            AccessLogSettings::Calls(_) => WantedFields { names: true, headers: true },
        }
    }

    /// The file, if it is one.
    pub fn target(&mut self) -> Option<&mut AccessLogTarget> {
        match self {
            AccessLogSettings::Lines(target, _) => Some(target),
            AccessLogSettings::Calls(_) => None,
        }
    }
}
