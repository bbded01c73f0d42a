//! What the log is written to: a file, a terminal, a pipe, a socket. Whatever its other end does,
//! a line never waits.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
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

/// An output of the log and the lines that wait for it.
pub struct LogStream {
    target: LogTarget,
    queue: LineQueue,
}

enum LogTarget {
    Stderr,
    File { path: PathBuf, file: File },
}

impl LogStream {
    /// Standard error.
    pub fn stderr() -> Self {
        LogStream { target: LogTarget::Stderr, queue: LineQueue::default() }
    }

    /// The file at `path`, which is appended to, and stays locked if it is a regular one.
    ///
    /// # Errors
    /// `EWOULDBLOCK` if another process holds the lock, else what the system reports.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = open_locked(path)?;
        let target = LogTarget::File { path: std::path::absolute(path)?, file };
        Ok(LogStream { target, queue: LineQueue::default() })
    }

    /// Writes a line, which has its end. True if lines wait.
    pub fn line(&mut self, line: String) -> bool {
        let fd = self.target.fd();
        self.queue.push(line.into_bytes(), note, |bytes| write(fd, bytes))
    }

    /// Writes what waits. True if more waits.
    pub fn retry(&mut self) -> bool {
        let fd = self.target.fd();
        self.queue.retry(note, |bytes| write(fd, bytes))
    }

    /// Opens the file anew, after it was renamed. On failure the old one stays in use.
    ///
    /// # Errors
    /// What the system reports.
    pub fn reopen(&mut self) -> io::Result<()> {
        match &mut self.target {
            // Nobody renames a terminal or a pipe.
            LogTarget::File { path, file } if file.metadata()?.is_file() => match open_locked(path)
            {
                Ok(fresh) => {
                    *file = fresh;
                    self.queue.redirected();
                }
                // The file was not renamed: it is the one whose lock we hold.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            },
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

/// Writes the beginning of `bytes`, which goes out in one piece if it is not too long: that keeps
/// the lines of several processes apart.
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
    // A terminal stops processes in the background that write, if it is set up so (SIGTTOU).
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
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(LOG_FILE_MODE)
        // A named pipe that nobody reads is an error, and no reason to wait.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file = match opened {
        Err(error) => standard_stream_at(path).ok_or(error)?,
        Ok(file) => file,
    };
    // Terminals, pipes and /dev/null are everybody's.
    if file.metadata()?.is_file() {
        lock(&file)?;
    }
    Ok(file)
}

/// `/dev/stdout` cannot be opened if it is a socket, or a pipe of another user: then the stream
/// itself, whatever its name.
fn standard_stream_at(path: &Path) -> Option<File> {
    let named = std::fs::metadata(path).ok()?;
    [1, 2].into_iter().find_map(|number| {
        let file = File::from(standard::stream(number).try_clone_to_owned().ok()?);
        let there = file.metadata().ok()?;
        ((there.dev(), there.ino()) == (named.dev(), named.ino())).then_some(file)
    })
}
