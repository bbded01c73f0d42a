//! The access log: a line for each request.
//!
//! Workers put records into queues in shared memory; a process of its own makes lines of them and writes them.
//!
//! | module | what it is |
//! |---|---|
//! | [`format`], [`values`], [`moment`] | how a line looks (pure) |
//! | [`assembler`] | from what workers tell to records that are complete (pure) |
//! | [`output`] | where lines go |
//! | [`writer`] | the process |

mod assembler;
pub mod format;
mod moment;
pub mod output;
mod values;
pub mod writer;

use std::path::PathBuf;

use format::Format;
use output::Target;

/// What the options say of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogOptions {
    /// Where it goes.
    pub to: AccessLogName,
    /// How a line looks.
    pub format: Format,
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
pub struct AccessLogSettings {
    /// Where it goes.
    pub target: Target,
    /// How a line looks.
    pub format: Format,
}

impl AccessLogOptions {
    /// Opens it.
    ///
    /// # Errors
    /// What the system reports of the file.
    pub fn open(&self) -> std::io::Result<AccessLogSettings> {
        let target = match &self.to {
            AccessLogName::Stdout => Target::Stdout,
            AccessLogName::Stderr => Target::Stderr,
            AccessLogName::File(path) => Target::open(path)?,
        };
        Ok(AccessLogSettings { target, format: self.format.clone() })
    }
}
