//! A part of a file that is to be sent after the queued output.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::io::transport::Transport;
use crate::sys::os::file_transfer;

/// The rest of a file's part that is to be sent.
///
/// Where it goes on is the descriptor's own position, which the kernel moves with each byte that a socket takes. So
/// the file must not share its position with anybody else, and another process that has a duplicate of the descriptor
/// can go on at any time.
#[derive(Debug)]
pub struct FileTail {
    file: OwnedFd,
    left: u64,
    /// The system cannot send this file by itself.
    is_copied: bool,
}

impl FileTail {
    /// The next `left` bytes of a file.
    pub fn new(file: OwnedFd, left: u64) -> Self {
        FileTail { file, left, is_copied: false }
    }

    /// What comes of a file between its position and `end`.
    ///
    /// # Errors
    /// What the system reports.
    pub fn until(file: OwnedFd, end: u64) -> io::Result<Self> {
        let left = end.saturating_sub(file_transfer::position(file.as_fd())?);
        Ok(FileTail::new(file, left))
    }

    /// The position of its end in the file.
    ///
    /// # Errors
    /// What the system reports; `Unsupported` if the position is not the kernel's to move, so that nobody else can go on.
    pub fn end(&self) -> io::Result<u64> {
        if self.is_copied {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(file_transfer::position(self.file.as_fd())? + self.left)
    }

    /// How many bytes are still to be sent.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The file.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Sends up to `most` bytes to a transport; returns how many it took.
    ///
    /// # Errors
    /// As [`Transport::send`]; `UnexpectedEof` if the file has become shorter.
    pub fn send(&mut self, to: &mut Transport, most: u64) -> io::Result<u64> {
        let count = usize::try_from(self.left.min(most)).unwrap_or(usize::MAX);
        self.is_copied |= !to.takes_files();
        let mut sent = Err(Errno::EINVAL.into());
        if !self.is_copied {
            sent = to.plain().send_file(self.file.as_fd(), count);
        }
        if let Err(error) = &sent
            && error.raw_os_error() == Some(libc::EINVAL)
        {
            // Some file systems cannot.
            self.is_copied = true;
            sent = to.send_copy(self.file.as_fd(), count);
        }
        match sent? as u64 {
            0 if self.left > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            sent => {
                self.left = self.left.saturating_sub(sent);
                Ok(sent)
            }
        }
    }
}
