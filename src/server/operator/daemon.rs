//! Going to the background.

use std::fs::OpenOptions;
use std::io;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::sys::os::inherited_descriptors;
use crate::sys::os::process::{Fork, fork};

/// Forks; the new process leads a session of its own, and its standard streams lead to `/dev/null`.
/// The working directory is kept. What whoever started the server had open is no business of a
/// daemon's, and closed.
///
/// # Errors
/// What the system reports. In the new process nothing fails that the starter could not be told of.
pub fn detach() -> io::Result<Fork> {
    let null =
        OpenOptions::new().read(true).write(true).open("/dev/null").map_err(|error| {
            io::Error::other(format!("/dev/null: {}", crate::glue::reason(&error)))
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
