//! Listening sockets passed by a service manager (sd_listen_fds(3)).
//!
//! They belong to the manager: the server neither shuts down nor unlinks them, so that clients find
//! an open port while it restarts.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use socket2::{SockAddr, SockRef, Type};

use crate::sys::os::{environment, resolve};

/// The number of the first passed descriptor.
const FIRST: i32 = 3;

/// The maximum number of passed descriptors.
const MAX: i32 = 1024;

/// The name that systemd gives to unnamed sockets.
const NAMELESS: &str = "unknown";

struct Inherited {
    name: String,
    socket: OwnedFd,
    address: SockAddr,
}

/// The inherited sockets that no listener has claimed yet.
#[derive(Default)]
pub struct Inheritance(RefCell<Option<Vec<Inherited>>>);

impl Inheritance {
    /// Claims the first unclaimed socket with that name, or the first one of all.
    ///
    /// # Errors
    /// A sentence that says which name is missing.
    pub fn claim(&self, name: Option<&str>) -> io::Result<OwnedFd> {
        let wanted = |socket: &Inherited| name.is_none_or(|name| socket.name == name);
        self.take(wanted).ok_or_else(|| {
            io::Error::other(match name {
                Some(name) => format!("No inherited socket has the name \"{name}\""),
                None => "No inherited socket is left".to_owned(),
            })
        })
    }

    /// Claims the socket that listens where `listen{...}` would open a TCP port.
    pub fn claim_tcp(&self, host: &str, port: &str) -> Option<OwnedFd> {
        if self.is_empty() {
            return None;
        }
        let addresses = resolve::tcp(host, port, true).ok()?;
        self.take(|socket| {
            socket.address.as_socket().is_some_and(|address| addresses.contains(&address))
        })
    }

    /// Claims the socket that listens at this path.
    pub fn claim_local(&self, path: &OsStr) -> Option<OwnedFd> {
        let path = std::path::absolute(Path::new(path)).ok()?;
        self.take(|socket| socket.address.as_pathname().is_some_and(|there| there == path))
    }

    /// Closes the unclaimed sockets, and returns their names.
    pub fn disclaim(&self) -> Vec<String> {
        let rest = self.0.borrow_mut().replace(Vec::new()).unwrap_or_default();
        rest.into_iter().map(|socket| socket.name).collect()
    }

    /// Takes over the passed sockets. Claiming a socket does this, too.
    pub fn adopt(&self) {
        self.0.borrow_mut().get_or_insert_with(receive);
    }

    fn is_empty(&self) -> bool {
        self.0.borrow_mut().get_or_insert_with(receive).is_empty()
    }

    fn take(&self, wanted: impl Fn(&Inherited) -> bool) -> Option<OwnedFd> {
        let mut sockets = self.0.borrow_mut();
        let sockets = sockets.get_or_insert_with(receive);
        let index = sockets.iter().position(wanted)?;
        Some(sockets.remove(index).socket)
    }
}

/// Takes over the sockets described by the environment, if they are meant for this process.
fn receive() -> Vec<Inherited> {
    let [pid, count, names] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map(environment::take);
    let number = |text: &OsStr| text.to_str()?.parse::<i32>().ok();
    let mine = pid.as_deref().and_then(number) == i32::try_from(std::process::id()).ok();
    let count = count.as_deref().and_then(number).unwrap_or(0);
    if !mine || !(1..=MAX).contains(&count) {
        return Vec::new();
    }
    let names = names.unwrap_or_default();
    let mut names = names.as_bytes().split(|byte| *byte == b':');
    let mut sockets = Vec::new();
    for number in FIRST..FIRST + count {
        let name = names.next().filter(|name| !name.is_empty());
        let name = name.map_or(NAMELESS.into(), String::from_utf8_lossy).into_owned();
        let Some(descriptor) = environment::adopt(number) else { continue };
        // Dropping closes everything that is not a listening socket.
        if let Ok(address) = prepare(&descriptor) {
            sockets.push(Inherited { name, socket: descriptor, address });
        }
    }
    sockets
}

/// Sets the options that the server's own sockets have; returns the address.
fn prepare(descriptor: &OwnedFd) -> io::Result<SockAddr> {
    let socket = SockRef::from(descriptor);
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return Err(io::Error::other("no listening socket"));
    }
    let address = socket.local_addr()?;
    socket.set_nonblocking(true)?;
    if address.as_socket().is_some() {
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(true)?;
    }
    Ok(address)
}
