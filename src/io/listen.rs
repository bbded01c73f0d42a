//! Listening sockets: creating them and accepting from them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nix::unistd::{Gid, Uid};
use socket2::{Domain, SockAddr, SockFilter, SockRef, Socket, Type};

use super::address;
use crate::sys::os::resolve;

/// How many connections may wait to be accepted, unless said otherwise.
pub const BACKLOG: i32 = 1024;

/// The wildcard address for all interfaces, IPv6 and IPv4.
pub const ANY: &str = "::";

/// Listens on a TCP port, at the first address of `host` that this machine has, IPv6 before IPv4.
/// `port` is a number or a service name. Non-blocking, close-on-exec.
///
/// Connections accepted from it inherit `TCP_NODELAY` (the handles collect small writes themselves)
/// and `SO_LINGER` on with 0, so that an abnormal end sends RST.
///
/// # Errors
/// "Could not resolve host: …", or what `bind(2)` and `listen(2)` report, e.g. "Address already in
/// use".
pub fn tcp(host: &str, port: &str, backlog: i32) -> io::Result<OwnedFd> {
    at_first(host, port, |address| Ok(tcp_at(address, backlog)?.into()))
}

/// Calls `open` with the addresses of `host` in this order until it says of one that the machine has it.
///
/// # Errors
/// "Could not resolve host: …", or what `open` reports.
pub fn at_first<T>(
    host: &str,
    port: &str,
    open: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut addresses = resolve::tcp(host, port, true)?;
    addresses.sort_by_key(SocketAddr::is_ipv4);
    if host == ANY {
        // For machines without IPv6.
        let port = addresses.first().map_or(0, SocketAddr::port);
        addresses.push(([0, 0, 0, 0], port).into());
    }
    let mut failure = None;
    for address in addresses {
        match open(address) {
            Ok(opened) => return Ok(opened),
            Err(error) if is_absent(&error) => failure = failure.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)))
}

/// Whether the machine lacks the address or its family, so that another one may work.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

/// Checks that the machine has this address, without opening its port.
///
/// # Errors
/// What `bind(2)` reports, e.g. "Cannot assign requested address".
pub fn is_here(address: SocketAddr) -> io::Result<()> {
    let any = SocketAddr::new(address.ip(), 0);
    Socket::new(Domain::for_address(any), Type::STREAM.cloexec(), None)?.bind(&any.into())
}

fn tcp_at(address: SocketAddr, backlog: i32) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_reuse_address(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // Accept IPv4, too, whatever the machine's default is.
        let _ = socket.set_only_v6(false);
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

/// Who may connect to a local socket. What is not given stays as the kernel sets it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Permissions of the socket file.
    pub mode: Option<u32>,
    /// Its owner.
    pub owner: Option<Uid>,
    /// Its group.
    pub group: Option<Gid>,
}

/// Listens on a local socket at `path`, or at the abstract name after an `@`. Removes an existing socket
/// file first. Non-blocking, close-on-exec.
///
/// # Errors
/// What `bind(2)`, `chown(2)`, `chmod(2)` and `listen(2)` report: "Address already in use" if the path is
/// not a socket, "Invalid argument" if it is longer than 107 bytes.
pub fn local(path: &Path, access: &Access, backlog: i32) -> io::Result<OwnedFd> {
    let address = address::local(path)?;
    let has_file = !address::is_abstract(path);
    let is_socket = |meta: std::fs::Metadata| meta.file_type().is_socket();
    if has_file && std::fs::symlink_metadata(path).is_ok_and(is_socket) {
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&address)?;
    // Nobody can connect before `listen`.
    if let Err(error) = access.apply(path).and_then(|()| socket.listen(backlog)) {
        if has_file {
            let _ = std::fs::remove_file(path);
        }
        return Err(error);
    }
    Ok(socket.into())
}

impl Access {
    /// Changes what the socket file has otherwise. What it has already needs no rights.
    ///
    /// # Errors
    /// What `chown(2)` and `chmod(2)` report.
    pub fn apply(&self, path: &Path) -> io::Result<()> {
        if *self == Access::default() {
            return Ok(());
        }
        let file = std::fs::symlink_metadata(path)?;
        let owner = self.owner.filter(|owner| owner.as_raw() != file.uid());
        let group = self.group.filter(|group| group.as_raw() != file.gid());
        if owner.is_some() || group.is_some() {
            nix::unistd::chown(path, owner, group)?;
        }
        match self.mode.filter(|mode| *mode != file.mode() & 0o7777) {
            Some(mode) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)),
            None => Ok(()),
        }
    }
}

/// Like [`local`], but only removes a socket file on which no server listens.
///
/// # Errors
/// "Address already in use" also if a server listens there.
pub fn local_if_free(path: &Path, access: &Access, backlog: i32) -> io::Result<OwnedFd> {
    // A server with a full backlog is also alive.
    let is_dead = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
    };
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    match probe.connect(&address::local(path)?) {
        Err(error) if is_dead(&error) => local(path, access, backlog),
        _ => Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
    }
}

/// Drops SYN packets for a listening TCP socket, so that no new handshake begins. Connections whose
/// handshake has begun can still be accepted.
///
/// # Errors
/// What `setsockopt(2)` reports.
pub fn begin_no_handshake(listener: &OwnedFd) -> io::Result<()> {
    const FLAGS: u32 = 13;
    const SYN: u32 = 2;
    let load = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    let test = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    let pass = (libc::BPF_RET | libc::BPF_K) as u16;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(load, 0, 0, FLAGS),
        SockFilter::new(test, 1, 0, SYN),
        SockFilter::new(pass, 0, 0, u32::MAX),
        SockFilter::new(pass, 0, 0, 0),
    ])
}

/// Accepts one connection without blocking (the listening socket must be non-blocking, as
/// [`tcp`] and [`local`] make it). The connection is non-blocking and close-on-exec.
///
/// # Errors
/// `WouldBlock` if no connection waits, else what `accept4(2)` reports.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SockAddr)> {
    let listener = SockRef::from(&listener);
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    loop {
        match listener.accept4(flags) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome.map(|(socket, peer)| (socket.into(), peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    use super::*;

    fn port(listener: &OwnedFd) -> u16 {
        let address = SockRef::from(listener).local_addr().unwrap();
        address.as_socket().unwrap().port()
    }

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("moonbridge-{}-{name}", std::process::id()))
    }

    #[test]
    fn any_listens_on_ipv4_and_ipv6() {
        let listener = tcp(ANY, "0", BACKLOG).unwrap();
        for host in ["127.0.0.1", "::1"] {
            let client = TcpStream::connect((host, port(&listener))).unwrap();
            let (_, peer) = accept(listener.as_fd()).unwrap();
            assert_eq!(peer.as_socket().unwrap().port(), client.local_addr().unwrap().port());
        }
    }

    #[test]
    fn accept_does_not_block() {
        let listener = tcp("127.0.0.1", "0", BACKLOG).unwrap();
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn accepted_connections_inherit_their_options() {
        let listener = tcp("127.0.0.1", "0", BACKLOG).unwrap();
        let _client = TcpStream::connect(("127.0.0.1", port(&listener))).unwrap();
        let (socket, _) = accept(listener.as_fd()).unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
        assert!(socket.nonblocking().unwrap());
    }

    #[test]
    fn a_port_in_use_is_an_error_and_no_reason_to_take_another_address() {
        let listener = tcp("localhost", "0", BACKLOG).unwrap();
        let again = tcp("localhost", &port(&listener).to_string(), BACKLOG).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EADDRINUSE));
    }

    #[test]
    fn a_stale_socket_file_is_replaced() {
        let path = path("stale");
        drop(local(&path, &Access::default(), BACKLOG).unwrap());
        let listener = local(&path, &Access::default(), BACKLOG).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        let (socket, peer) = accept(listener.as_fd()).unwrap();
        assert!(peer.is_unix());
        client.write_all(b"x").unwrap();
        assert_eq!(UnixStream::from(socket).read(&mut [0; 2]).unwrap(), 1);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let path = path("file");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(
            local(&path, &Access::default(), BACKLOG).unwrap_err().raw_os_error(),
            Some(libc::EADDRINUSE)
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_overlong_path_is_an_error() {
        let path = PathBuf::from("/tmp/".to_owned() + &"x".repeat(103));
        assert!(local(&path, &Access::default(), BACKLOG).is_err());
    }
}
