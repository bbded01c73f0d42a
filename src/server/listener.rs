//! A pool's listeners, opened: ports are bound when `listen{...}` is called, so that a port in use
//! is an ordinary Lua error there.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::config::ListenerSpec;
use crate::glue::{Fault, Reply};
use crate::io::listen;

/// One opened listener.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp {
        /// Name or address of the interface, as it was given.
        host: String,
        /// Port as it was given.
        port: String,
        /// The listening socket.
        socket: OwnedFd,
    },
    /// A Unix domain socket.
    Local {
        /// Path in the file system.
        path: OsString,
        /// The listening socket.
        socket: OwnedFd,
    },
    /// A timer.
    Interval {
        /// What the handler finds in `socket.interval`.
        name: String,
        /// Time between ticks.
        delay: Duration,
        /// Whether the run time of the handler leaves the rhythm alone.
        strict: bool,
    },
    /// A function that runs once.
    Main {
        /// What the handler finds in `socket.main`.
        name: String,
    },
}

impl Listener {
    /// Opens the listener that stands at `index` (from 1) of its pool.
    pub fn open(index: usize, spec: ListenerSpec) -> Reply<Self> {
        let failed = |error: std::io::Error| {
            let reason = match error.raw_os_error() {
                Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_owned(),
                None => error.to_string(),
            };
            Fault::misuse(format!("Could not initialize listener #{index}: {reason}"))
        };
        Ok(match spec {
            ListenerSpec::Tcp { host, port } => {
                let socket = listen::tcp(&host, &port).map_err(failed)?;
                Listener::Tcp { host, port, socket }
            }
            ListenerSpec::Local { path } => {
                let socket = listen::local(Path::new(&path)).map_err(failed)?;
                Listener::Local { path, socket }
            }
            ListenerSpec::Interval { name, delay, strict } => {
                Listener::Interval { name, delay, strict }
            }
            ListenerSpec::Main { name } => Listener::Main { name },
        })
    }

    /// The listening socket, if connections arrive here.
    pub fn socket(&self) -> Option<&OwnedFd> {
        match self {
            Listener::Tcp { socket, .. } | Listener::Local { socket, .. } => Some(socket),
            Listener::Interval { .. } | Listener::Main { .. } => None,
        }
    }

    /// What the log says when the listener's pool is created.
    pub fn announcement(&self) -> String {
        match self {
            Listener::Tcp { host, port, .. } => {
                format!("Adding TCP listener on interface \"{host}\", port {port}")
            }
            Listener::Local { path, .. } => {
                format!("Adding local socket listener with path \"{}\"", path.display())
            }
            Listener::Interval { name, .. } if name.is_empty() => {
                "Adding unnamed interval listener".to_owned()
            }
            Listener::Interval { name, .. } => format!("Adding interval listener \"{name}\""),
            Listener::Main { name } if name.is_empty() => "Adding unnamed main listener".to_owned(),
            Listener::Main { name } => format!("Adding main listener \"{name}\""),
        }
    }

    /// The supervisor's side, when serving ends: what is bound in the file system goes away.
    pub fn unlink(&self) {
        if let Listener::Local { path, socket } = self
            && is_bound_to(path, socket)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether the socket file at `path` still leads to `socket`: another server may have taken its
/// place meanwhile. Connecting is the only way to tell; a listener that was shut down refuses.
fn is_bound_to(path: &OsString, own: &OwnedFd) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let Ok(file) = std::fs::symlink_metadata(path) else { return false };
    if !file.file_type().is_socket() {
        return false;
    }
    let _ = nix::sys::socket::shutdown(
        std::os::fd::AsRawFd::as_raw_fd(&own.as_fd()),
        nix::sys::socket::Shutdown::Both,
    );
    let probe = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    );
    match (probe, UnixAddr::new(path.as_bytes())) {
        (Ok(probe), Ok(address)) => {
            use std::os::fd::AsRawFd;
            connect(probe.as_raw_fd(), &address) == Err(nix::errno::Errno::ECONNREFUSED)
        }
        _ => false,
    }
}
