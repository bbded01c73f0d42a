//! Sending of files without a copy in this process, without blocking on the peer and without a signal.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::sendfile::sendfile;
use nix::sys::signal::Signal;
use nix::sys::uio::pread;
use nix::unistd::{Whence, lseek};

use super::blocked_signals::without;

/// Sends up to `count` bytes of a file to a non-blocking socket, from the file's position on, which moves by as much as
/// the socket takes; the number of bytes, 0 at the end of the file.
///
/// # Errors
/// `EAGAIN` if the socket takes nothing now, `EPIPE` if its peer is gone, `EINVAL` if this kind of file cannot be sent
/// in this way.
pub fn send(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
    without(&[Signal::SIGPIPE], || {
        loop {
            match sendfile(socket, file, None, count) {
                Err(Errno::EINTR) => {}
                outcome => return Ok(outcome?),
            }
        }
    })
}

/// Reads from a file's position on, which does not move; the number of bytes.
///
/// # Errors
/// What the system reports.
pub fn peek(file: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let position = lseek(file, 0, Whence::SeekCur)?;
    loop {
        match pread(file, buffer, position) {
            Err(Errno::EINTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

/// Moves a file's position on.
///
/// # Errors
/// What the system reports.
pub fn skip(file: BorrowedFd<'_>, count: usize) -> io::Result<()> {
    lseek(file, i64::try_from(count).unwrap_or(i64::MAX), Whence::SeekCur)?;
    Ok(())
}

/// Fills the buffer with what a file has at `position`; its own position does not move.
///
/// # Errors
/// What the system reports; `UnexpectedEof` if the file ends before.
pub fn read_at(file: BorrowedFd<'_>, position: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = i64::try_from(position + filled as u64).map_err(|_| Errno::EOVERFLOW)?;
        match pread(file, rest, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// A file's position.
///
/// # Errors
/// What the system reports.
pub fn position(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(u64::try_from(lseek(file, 0, Whence::SeekCur)?).unwrap_or(0))
}

/// Moves a file's position to `position`.
///
/// # Errors
/// What the system reports.
pub fn seek(file: BorrowedFd<'_>, position: u64) -> io::Result<()> {
    lseek(file, i64::try_from(position).map_err(|_| Errno::EOVERFLOW)?, Whence::SeekSet)?;
    Ok(())
}
