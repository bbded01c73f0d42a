//! Where the access log goes. Lines are written whole, in batches; a line that cannot be written is counted.
//!
//! The system may take a part of a line, as where the disk is full or the reader of a pipe has stopped. That part is
//! removed from the end of a file; elsewhere the rest of the line comes first when there is room again.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
    /// What is missing of a line that was written in part.
    tail: Vec<u8>,
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

    /// Removes what was written last from the end of a file. False if it is no file, or somebody else has written to
    /// it since.
    fn remove_last(&self, bytes: usize) -> bool {
        let AccessLogTarget::File(_, file) = self else { return false };
        let (Ok(metadata), Ok(end)) = (file.metadata(), (&*file).stream_position()) else {
            return false;
        };
        metadata.is_file()
            && metadata.len() == end
            && file.set_len(end.saturating_sub(bytes as u64)).is_ok()
    }

    /// Which file it is.
    fn identity(&self) -> Option<(u64, u64)> {
        let AccessLogTarget::File(_, file) = self else { return None };
        file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
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
        AccessLogOutput { target, batch: Vec::new(), tail: Vec::new() }
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
        let lines = |bytes| memchr::memchr_iter(b'\n', bytes).count() as u64;
        let tail = std::mem::take(&mut self.tail);
        if let Err((written, errno)) = self.write_all(&tail) {
            self.tail = tail[written..].to_vec();
            return Err((lines(batch), errno));
        }
        let Err((written, errno)) = self.write_all(batch) else { return Ok(()) };
        let (written, rest) = batch.split_at(written);
        let mut lost = lines(rest);
        let begun = written.len() - memchr::memrchr(b'\n', written).map_or(0, |end| end + 1);
        if begun > 0 && !self.target.remove_last(begun) {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            self.tail = rest[..end].to_vec();
            lost = lost.saturating_sub(1);
        }
        Err((lost, errno))
    }

    /// Writes all of it. The error tells how much of it was written.
    fn write_all(&self, bytes: &[u8]) -> Result<(), (usize, Errno)> {
        let mut written = 0;
        while written < bytes.len() {
            let rest = &bytes[written..];
            let outcome = without(&RAISED, || Ok(nix::unistd::write(self.target.fd(), rest)?));
            match outcome
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
            {
                Ok(count) => written += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if self.has_room() => {}
                Err(errno) => return Err((written, errno)),
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
        let before = self.target.identity();
        self.target.reopen()?;
        if self.target.identity() != before {
            self.tail.clear();
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE);
    // A named pipe without a reader is an error instead of a reason to wait.
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;

    use super::*;

    #[test]
    fn a_line_that_a_pipe_has_taken_in_part_is_completed_when_it_takes_more() {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        let mut reader = File::from(reader);
        let mut read = || {
            let mut bytes = Vec::new();
            let _ = reader.read_to_end(&mut bytes);
            bytes
        };
        let target = AccessLogTarget::File(PathBuf::new(), File::from(writer));
        let mut output = AccessLogOutput::new(target);
        for _ in 0..100 {
            output.line(|line| line.extend_from_slice(&[[b'x'; 999].as_slice(), b"\n"].concat()));
        }
        let (lost, errno) = output.flush().unwrap_err();
        assert_eq!(errno, Errno::EAGAIN);
        let mut bytes = read();
        assert_ne!(bytes.last(), Some(&b'\n'));
        assert_eq!(output.flush(), Ok(()));
        bytes.extend(read());
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        assert!(lines.all(|line| line.len() == 1000 && line.ends_with(b"\n")));
        assert_eq!(bytes.len() as u64 / 1000 + lost, 100);
    }
}
