//! Running in the background.

use std::fs::OpenOptions;
use std::io;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::sys::os::error_text;
use crate::sys::os::inherited_descriptors;
use crate::sys::os::process::{Fork, fork};

/// Forks. The new process leads a new session, with its standard streams on `/dev/null` and the
/// same working directory. Closes descriptors inherited from the process that started the server.
///
/// # Errors
/// What the system reports. After the fork, the new process cannot report errors.
pub fn detach() -> io::Result<Fork> {
    let null =
        OpenOptions::new().read(true).write(true).open("/dev/null").map_err(|error| {
            io::Error::other(format!("/dev/null: {}", error_text::reason(&error)))
        })?;
    let side = fork()?;
    if side == Fork::Child {
        setsid()?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        drop(null);
        inherited_descriptors::close();
    }
    Ok(side)
}
