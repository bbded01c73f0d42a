//! The output of the log: a file, a terminal, a pipe or a socket. Writing does not block, except on
//! a file of a disk or network file system that hangs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, fchown};
use socket2::SockRef;

use super::line_queue::{LineQueue, lost_lines};
use crate::sys::os::blocked_signals::without;
use crate::sys::os::calendar::local_timestamp;
use crate::sys::os::lock::lock;
use crate::sys::os::{bounded_call, pipe, standard};

/// Permissions of a log file that is created.
const LOG_FILE_MODE: u32 = 0o640;

/// How long a write may block although the descriptor was ready.
const WRITE_TIMEOUT: Duration = Duration::from_millis(10);

/// An output of the log, and the lines waiting for it.
pub struct LogStream {
    target: LogTarget,
    queue: LineQueue,
}

enum LogTarget {
    Stderr,
    File { path: PathBuf, file: File, shared: bool },
}

impl LogStream {
    /// Standard error.
    pub fn stderr() -> Self {
        LogStream { target: LogTarget::Stderr, queue: LineQueue::default() }
    }

    /// Appends to the file at `path`, which stays locked if it is a regular file.
    ///
    /// # Errors
    /// `EWOULDBLOCK` if another process holds the lock, else what the system reports.
    pub fn file(path: &Path) -> io::Result<Self> {
        Self::appending(path, false)
    }

    /// The same for a later generation of a server, whose first process holds the lock.
    ///
    /// # Errors
    /// What the system reports.
    pub fn shared_file(path: &Path) -> io::Result<Self> {
        Self::appending(path, true)
    }

    fn appending(path: &Path, shared: bool) -> io::Result<Self> {
        let file = if shared { open(path) } else { open_locked(path) }?;
        let target = LogTarget::File { path: std::path::absolute(path)?, file, shared };
        Ok(LogStream { target, queue: LineQueue::default() })
    }

    /// Lets that user reopen the file, if it is a regular one. Without the right to do so, the file stays
    /// as it is.
    pub fn give_to(&self, owner: Uid) {
        if let LogTarget::File { file, .. } = &self.target
            && file.metadata().is_ok_and(|there| there.is_file())
        {
            let _ = fchown(file, Some(owner), None);
        }
    }

    /// Writes a line, which includes its line end. Returns whether lines are waiting.
    pub fn line(&mut self, line: String) -> bool {
        let fd = self.target.fd();
        self.queue.push(line.into_bytes(), note, |bytes| write(fd, bytes))
    }

    /// How many lines have been lost since the beginning.
    pub fn lost(&self) -> u64 {
        self.queue.lost_ever()
    }

    /// Retries waiting lines. Returns whether any are left.
    pub fn retry(&mut self) -> bool {
        let fd = self.target.fd();
        self.queue.retry(note, |bytes| write(fd, bytes))
    }

    /// Reopens the file after it has been renamed. On failure the old one stays in use.
    ///
    /// # Errors
    /// What the system reports.
    pub fn reopen(&mut self) -> io::Result<()> {
        match &mut self.target {
            // Only regular files are renamed.
            LogTarget::File { path, file, shared } if file.metadata()?.is_file() => {
                let reopened = if *shared { open(path) } else { open_locked(path) };
                match reopened {
                    Ok(fresh) => {
                        *file = fresh;
                        self.queue.redirected();
                    }
                    // The file has not been renamed: this process holds its lock.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl LogTarget {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            LogTarget::Stderr => standard::stream(2),
            LogTarget::File { file, .. } => file.as_fd(),
        }
    }
}

fn note(lost: u64) -> Vec<u8> {
    format!("{}: {}\n", local_timestamp(), lost_lines(lost)).into_bytes()
}

/// Writes the beginning of `bytes`, in one piece if it is not too long, so that the lines of
/// several processes do not mix.
fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    match SockRef::from(&fd).send_with_flags(bytes, flags) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {}
        outcome => return outcome,
    }
    if !is_writable(fd) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let part = bytes.get(..pipe::ATOMIC).unwrap_or(bytes);
    // A terminal may be configured to stop background processes that write (SIGTTOU).
    let raised = [Signal::SIGPIPE, Signal::SIGXFSZ, Signal::SIGTTOU];
    let outcome = without(&raised, || {
        bounded_call::within(WRITE_TIMEOUT, || Ok(nix::unistd::write(fd, part)?))
    });
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        outcome => outcome,
    }
}

fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut waited = [PollFd::new(fd, PollFlags::POLLOUT)];
    poll(&mut waited, PollTimeout::ZERO).map_or(true, |count| count > 0)
}

fn open_locked(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    // Other files, such as terminals and /dev/null, are shared.
    if file.metadata()?.is_file() {
        lock(&file)?;
    }
    Ok(file)
}

fn open(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(LOG_FILE_MODE)
        // A named pipe without a reader is an error instead of a reason to wait.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    opened.or_else(|error| standard_stream_at(path).ok_or(error))
}

/// `/dev/stdout` cannot be opened if it is a socket, or a pipe of another user: then uses the
/// stream itself.
fn standard_stream_at(path: &Path) -> Option<File> {
    let named = std::fs::metadata(path).ok()?;
    [1, 2].into_iter().find_map(|number| {
        let file = File::from(standard::stream(number).try_clone_to_owned().ok()?);
        let there = file.metadata().ok()?;
        ((there.dev(), there.ino()) == (named.dev(), named.ino())).then_some(file)
    })
}
