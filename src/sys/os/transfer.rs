//! Receives into the spare capacity of a vector, without clearing it first, and sends.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// One non-blocking `recv` into the spare capacity of `buffer`; the number of bytes, 0 at EOF.
pub fn recv_append(socket: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    append(buffer, |spare, room| {
        // SAFETY: `spare` points to `room` writable bytes, see `append`.
        unsafe { libc::recv(socket.as_raw_fd(), spare, room, libc::MSG_DONTWAIT) }
    })
}

/// One `read` into the spare capacity of `buffer`; the number of bytes, 0 at EOF.
pub fn read_append(file: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    append(buffer, |spare, room| {
        // SAFETY: `spare` points to `room` writable bytes, see `append`.
        unsafe { libc::read(file.as_raw_fd(), spare, room) }
    })
}

/// One non-blocking `recv` that discards up to `limit` bytes of a TCP socket's input.
pub fn recv_discard(socket: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: with MSG_TRUNC, TCP (tcp(7)) drops the bytes and stores nothing after the pointer.
    let n = unsafe { libc::recv(socket.as_raw_fd(), std::ptr::null_mut(), limit, flags) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// One non-blocking `send`, which raises no SIGPIPE; the number of bytes.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and the length are those of a slice.
    let n = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Calls `receive` with the spare capacity of `buffer` and appends what it has stored.
fn append(
    buffer: &mut Vec<u8>,
    receive: impl FnOnce(*mut libc::c_void, usize) -> isize,
) -> io::Result<usize> {
    let spare = buffer.spare_capacity_mut();
    let n = receive(spare.as_mut_ptr().cast(), spare.len());
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written `n` bytes, at most `spare.len()`, after the old length.
    unsafe { buffer.set_len(buffer.len() + n) };
    Ok(n)
}
