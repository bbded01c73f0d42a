//! Receiving a message with the descriptors it carries.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The maximum number of descriptors in a message: what Linux allows (`SCM_MAX_FD` in unix(7)).
pub const MAX_DESCRIPTORS: usize = 253;

/// The size of the control message buffer, in words for its alignment.
const CONTROL: usize =
    (size_of::<libc::cmsghdr>() + MAX_DESCRIPTORS * size_of::<RawFd>()).div_ceil(8);

/// A received message.
pub struct ReceivedMessage {
    /// The number of bytes stored in the buffer; 0 at the end of the stream.
    pub length: usize,
    /// Its descriptors, in order.
    pub descriptors: Vec<OwnedFd>,
    /// Some descriptors are missing, because this process cannot open more.
    pub is_cut: bool,
}

/// Receives one message without blocking.
///
/// # Errors
/// What `recvmsg(2)` reports.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<ReceivedMessage> {
    let mut control = [0u64; CONTROL];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a zeroed `msghdr` is valid: no address, no parts, no control buffer.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: the header points to buffers of the lengths it tells, which outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled in `msg_controllen` and the control messages, which the macros
    // walk through. A descriptor in SCM_RIGHTS was installed for this process; nobody else knows it.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            if ((*message).cmsg_level, (*message).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
            {
                let first = libc::CMSG_DATA(message).cast::<RawFd>();
                let bytes = (*message).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for index in 0..bytes / size_of::<RawFd>() {
                    let descriptor = first.add(index).read_unaligned();
                    descriptors.push(OwnedFd::from_raw_fd(descriptor));
                }
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    Ok(ReceivedMessage { length, descriptors, is_cut: header.msg_flags & libc::MSG_CTRUNC != 0 })
}
