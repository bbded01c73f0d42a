//! The pid file: contains the process id; its lock shows that the server is running.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::sys::os::blocked_signals::without;
use crate::sys::os::lock::lock;
use crate::sys::os::own_file::OwnFile;

/// Permissions of a pid file that is created.
const MODE: u32 = 0o644;

/// A locked pid file. The lock lasts while any process has the file open. The file is removed when
/// the owning process drops this value or calls `exit(3)`.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
    /// The process that has to remove it.
    owner: Option<(u32, OwnFile)>,
}

impl PidFile {
    /// Opens and locks the file at `path`, without changing its content.
    ///
    /// # Errors
    /// `EWOULDBLOCK` if another server holds the lock, else what the system reports.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Absolute, in case the script changes its working directory.
        let path = std::path::absolute(path)?;
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(MODE)
                .custom_flags(libc::O_NONBLOCK)
                .open(&path)?;
            // It will be removed, so it must not be a device or a pipe.
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no regular file"));
            }
            lock(&file)?;
            if is_file_at(&file, &path)? {
                return Ok(PidFile { path, file, owner: None });
            }
        }
    }

    /// Writes the id of the serving process.
    ///
    /// # Errors
    /// What `ftruncate(2)` and `write(2)` report.
    pub fn write(&mut self, pid: u32) -> io::Result<()> {
        without(&[Signal::SIGXFSZ], || {
            self.file.set_len(0)?;
            self.file.write_all(pid.to_string().as_bytes())
        })
    }

    /// Makes this process the owner, which removes the file.
    pub fn own(&mut self) {
        self.owner = OwnFile::at(&self.path).ok().map(|file| (std::process::id(), file));
    }
}

/// Whether `path` still refers to `file`: another server may have removed it between opening and
/// locking.
fn is_file_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Not in a worker, which has a copy of this value.
        if let Some((pid, file)) = &self.owner
            && *pid == std::process::id()
        {
            // The lock is still held here.
            file.remove();
            // A process that has changed its user may have no right to remove the file.
            let _ = self.file.set_len(0);
        }
    }
}
