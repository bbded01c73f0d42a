//! Going to the background.

use std::fs::OpenOptions;
use std::io;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::sys::process::{Fork, fork};

/// Forks; the new process leads a session of its own. The working directory is kept.
///
/// # Errors
/// What `fork(2)` and, in the new process, `setsid(2)` report.
pub fn detach() -> io::Result<Fork> {
    let side = fork()?;
    if side == Fork::Child {
        setsid()?;
    }
    Ok(side)
}

/// Standard input, output and error lead to `/dev/null` from now on.
///
/// # Errors
/// What the system reports of `/dev/null`.
pub fn silence() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}
