//! Connecting (reference, "moonbridge_io.tcpconnect" and "moonbridge_io.localconnect").

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::address;
use super::stream::Stream;
use super::transport::{DescriptorKind, Transport};
use super::wait::{Direction, ready};
use crate::sys::os::resolve;

/// A TCP connection to the first address of `host` that accepts.
///
/// # Errors
/// "Could not resolve host: …", or the error of the last address.
pub fn tcp(host: &str, port: &str) -> io::Result<Stream> {
    first(resolve::tcp(host, port, false)?, |address| {
        let socket = tcp_socket(address)?;
        match socket.connect(&address.into()) {
            Err(error) if is_under_way(&error) => {
                ready(socket.as_fd(), Direction::Write, None)?;
                socket.take_error()?.map_or(Ok(()), Err)?;
            }
            outcome => outcome?,
        }
        Ok(tcp_stream(socket, address))
    })
}

/// A TCP connection that may still be in progress. The name lookup blocks if `host` is not numeric.
///
/// # Errors
/// "Could not resolve host: …", or what the system reports immediately. The first read or write
/// reports a refused connection.
pub fn tcp_nb(host: &str, port: &str) -> io::Result<Stream> {
    first(resolve::tcp(host, port, false)?, start)
}

/// Starts a TCP connection to one address.
///
/// # Errors
/// What the system reports immediately. The first read or write reports a refused connection.
pub fn start(address: SocketAddr) -> io::Result<Stream> {
    let socket = tcp_socket(address)?;
    let outcome = socket.connect(&address.into());
    let mut stream = tcp_stream(socket, address);
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            stream.duplex.set_failure(libc::ECONNREFUSED);
        }
        Err(error) if !is_under_way(&error) => return Err(error),
        _ => {}
    }
    Ok(stream)
}

/// A connection to the local socket at `path`.
///
/// # Errors
/// What `connect(2)` reports.
pub fn local(path: &Path) -> io::Result<Stream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    let address = address::local(path)?;
    loop {
        match socket.connect(&address) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => break outcome?,
        }
    }
    socket.set_nonblocking(true)?;
    Ok(local_stream(socket))
}

/// The same without blocking.
///
/// # Errors
/// What `connect(2)` reports. The first read or write reports a refused connection.
pub fn local_nb(path: &Path) -> io::Result<Stream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    let outcome = socket.connect(&address::local(path)?);
    let mut stream = local_stream(socket);
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            stream.duplex.set_failure(libc::ECONNREFUSED);
        }
        outcome => outcome?,
    }
    Ok(stream)
}

/// The first success, or else the last failure.
fn first(
    addresses: Vec<SocketAddr>,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<Stream>,
) -> io::Result<Stream> {
    let mut failure = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
    for address in addresses {
        match attempt(address) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A signal does not abort a connect: it continues like a non-blocking one (connect(2)).
fn is_under_way(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR))
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    let options = SockRef::from(&socket);
    options.set_tcp_nodelay(true)?;
    options.set_linger(Some(Duration::ZERO))?;
    Ok(socket)
}

fn tcp_stream(socket: Socket, address: SocketAddr) -> Stream {
    Stream::over(Transport::owned(OwnedFd::from(socket), DescriptorKind::Tcp), Some(address.into()))
}

fn local_stream(socket: Socket) -> Stream {
    Stream::over(Transport::owned(OwnedFd::from(socket), DescriptorKind::Local), None)
}
