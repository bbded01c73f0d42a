//! How many connections wait to be accepted.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Where Linux's `struct tcp_info` has `tcpi_unacked`, in 32-bit words: of a listening socket that
/// is the length of its accept queue (what `ss -l` shows as Recv-Q).
const UNACKED: usize = 6;

/// The length of a TCP port's accept queue; none for other sockets.
pub fn accept_queue(socket: BorrowedFd<'_>) -> Option<usize> {
    let mut info = [0_u32; UNACKED + 1];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes of plain numbers into `info`, and the number
    // of bytes into `length`; both live through the call.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    let complete = length as usize == size_of_val(&info);
    (outcome == 0 && complete).then(|| info[UNACKED] as usize)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn connections_are_counted_until_they_are_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        assert_eq!(accept_queue(listener.as_fd()), Some(3));
        listener.accept().unwrap();
        assert_eq!(accept_queue(listener.as_fd()), Some(2));
        assert_eq!(accept_queue(UnixStream::pair().unwrap().0.as_fd()), None);
    }
}
