//! Where the access log goes. Lines are written whole, in batches; a line that cannot be written is counted.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, fchown};

use crate::sys::os::blocked_signals::without;
use crate::sys::os::standard;

/// Permissions of a file that is created.
const MODE: u32 = 0o640;

/// How long a target that does not block may take nothing, in milliseconds.
const LONGEST_STALL: u16 = 1000;

/// What a write may raise: where nobody reads, at a limit on the size of files, at a terminal in the background.
const RAISED: [Signal; 3] = [Signal::SIGPIPE, Signal::SIGXFSZ, Signal::SIGTTOU];

/// Where the access log goes.
#[derive(Debug)]
pub enum AccessLogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file.
    File(PathBuf, File),
}

/// A target, and what is to be written to it.
#[derive(Debug)]
pub struct AccessLogOutput {
    target: AccessLogTarget,
    batch: Vec<u8>,
    /// The last line was written only in part.
    torn: bool,
}

impl AccessLogTarget {
    /// Appends to the file at `path`.
    ///
    /// # Errors
    /// What the system reports.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let file = open(&path)?;
        Ok(AccessLogTarget::File(path, file))
    }

    /// Lets that user reopen the file. Without the right to do so, it stays as it is.
    pub fn give_to(&self, owner: Uid) {
        if let AccessLogTarget::File(_, file) = self
            && file.metadata().is_ok_and(|there| there.is_file())
        {
            let _ = fchown(file, Some(owner), None);
        }
    }

    /// Opens the file anew, after it was renamed. On failure the old one stays in use.
    ///
    /// # Errors
    /// What the system reports.
    pub fn reopen(&mut self) -> io::Result<()> {
        if let AccessLogTarget::File(path, file) = self {
            *file = open(path)?;
        }
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            AccessLogTarget::Stdout => standard::stream(1),
            AccessLogTarget::Stderr => standard::stream(2),
            AccessLogTarget::File(_, file) => file.as_fd(),
        }
    }
}

impl AccessLogOutput {
    /// Nothing is written yet.
    pub fn new(target: AccessLogTarget) -> Self {
        AccessLogOutput { target, batch: Vec::new(), torn: false }
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> RawFd {
        self.target.fd().as_raw_fd()
    }

    /// Lets `write` append a line, with its end, to the batch. Returns its size.
    pub fn line(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        write(&mut self.batch);
        self.batch.len()
    }

    /// Writes the batch.
    ///
    /// # Errors
    /// How many lines could not be written, and why.
    pub fn flush(&mut self) -> Result<(), (u64, Errno)> {
        let batch = std::mem::take(&mut self.batch);
        let outcome = self.write(&batch);
        self.batch = batch;
        self.batch.clear();
        outcome
    }

    fn write(&mut self, batch: &[u8]) -> Result<(), (u64, Errno)> {
        let mut rest = batch;
        while !rest.is_empty() {
            // Once there is room again, the line that was cut ends.
            let bytes: &[u8] = if self.torn { b"\n" } else { rest };
            let written = without(&RAISED, || Ok(nix::unistd::write(self.target.fd(), bytes)?));
            match written
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
            {
                Ok(_) if self.torn => self.torn = false,
                Ok(written) => rest = &rest[written..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if self.has_room() => {}
                Err(errno) => {
                    let lost = memchr::memchr_iter(b'\n', rest).count() as u64;
                    // The rest begins with a whole line unless one was cut.
                    let at = batch.len() - rest.len();
                    self.torn |= at > 0 && batch[at - 1] != b'\n';
                    return Err((lost, errno));
                }
            }
        }
        Ok(())
    }

    /// Waits until a target that does not block takes more; not for long.
    fn has_room(&self) -> bool {
        let mut waited = [PollFd::new(self.target.fd(), PollFlags::POLLOUT)];
        poll(&mut waited, LONGEST_STALL).is_ok_and(|count| count > 0)
    }

    /// As [`AccessLogTarget::reopen`].
    ///
    /// # Errors
    /// What the system reports.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.target.reopen()?;
        self.torn = false;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE);
    // A named pipe without a reader is an error instead of a reason to wait.
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}
