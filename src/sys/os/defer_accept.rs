//! Listening ports that defer a connection until its client has sent something.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// How long to defer a silent connection, in seconds: the kernel's minimum.
const SECONDS: libc::c_int = 1;

/// Makes a TCP port accept connections when there is input, or after a second without
/// (`TCP_DEFER_ACCEPT` in tcp(7)). Until then the kernel holds them. False: it accepts them at once.
///
/// # Errors
/// What `setsockopt(2)` reports, e.g. for a socket of another kind.
pub fn defer_accept(listener: BorrowedFd<'_>, deferred: bool) -> Result<(), Errno> {
    let seconds = if deferred { SECONDS } else { 0 };
    // SAFETY: the kernel reads as many bytes as the given size from `seconds`, a plain number that
    // lives through the call.
    let outcome = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    Errno::result(outcome).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_connection_is_there_when_it_has_input() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        defer_accept(listener.as_fd(), true).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        client.write_all(b"x").unwrap();
        listener.set_nonblocking(false).unwrap();
        let (mut connection, _) = listener.accept().unwrap();
        assert_eq!(connection.read(&mut [0; 2]).unwrap(), 1);
        defer_accept(listener.as_fd(), false).unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_ok());
    }

    #[test]
    fn local_sockets_know_no_such_thing() {
        let path = std::env::temp_dir().join(format!("moonbridge-defer-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(defer_accept(listener.as_fd(), true).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
