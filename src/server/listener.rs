//! A pool's listeners, opened: ports are bound when `listen{...}` is called, so that a port in use
//! is an ordinary Lua error there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, shutdown, socket,
};

use super::config::ListenerSpec;
use super::inherited::Inheritance;
use crate::glue::{self, Fault, Reply};
use crate::io::listen;
use crate::sys::defer_accept::defer_accept;

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
        /// A service manager has opened it.
        inherited: bool,
    },
    /// A Unix domain socket.
    Local {
        /// Path in the file system, as it was given.
        path: OsString,
        /// The same, whatever the working directory is.
        file: PathBuf,
        /// The listening socket.
        socket: OwnedFd,
        /// A service manager has opened it.
        inherited: bool,
    },
    /// A socket that a service manager has opened.
    Inherited {
        /// Its name, if it was asked for by that.
        name: Option<String>,
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
    /// Opens the listener that stands at `index` (from 1) of its pool, or takes the inherited one
    /// that listens there.
    pub fn open(index: usize, spec: ListenerSpec, inheritance: &Inheritance) -> Reply<Self> {
        Self::try_open(spec, inheritance).map_err(|error| {
            let reason = glue::reason(&error);
            Fault::misuse(format!("Could not initialize listener #{index}: {reason}"))
        })
    }

    fn try_open(spec: ListenerSpec, inheritance: &Inheritance) -> io::Result<Self> {
        Ok(match spec {
            ListenerSpec::Tcp { host, port, deferred } => {
                let (socket, inherited) = match inheritance.claim_tcp(&host, &port) {
                    Some(socket) => (socket, true),
                    None => (listen::tcp(&host, &port)?, false),
                };
                wait_for_clients(&socket, deferred);
                Listener::Tcp { host, port, socket, inherited }
            }
            ListenerSpec::Local { path } => {
                let file = std::path::absolute(Path::new(&path))?;
                match inheritance.claim_local(&path) {
                    Some(socket) => Listener::Local { path, file, socket, inherited: true },
                    None => {
                        let socket = listen::local(Path::new(&path))?;
                        Listener::Local { path, file, socket, inherited: false }
                    }
                }
            }
            ListenerSpec::Inherited { name, deferred } => {
                let socket = inheritance.claim(name.as_deref())?;
                wait_for_clients(&socket, deferred);
                Listener::Inherited { name, socket }
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
            Listener::Tcp { socket, .. }
            | Listener::Local { socket, .. }
            | Listener::Inherited { socket, .. } => Some(socket),
            Listener::Interval { .. } | Listener::Main { .. } => None,
        }
    }

    /// Refuses connections from now on. A service manager's socket goes on collecting them.
    pub fn close_port(&self) {
        match self {
            Listener::Tcp { socket, inherited: false, .. }
            | Listener::Local { socket, inherited: false, .. } => {
                let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
            }
            _ => {}
        }
    }

    /// What the log says when the listener's pool is created.
    pub fn announcement(&self) -> String {
        match self {
            Listener::Tcp { host, port, inherited, .. } => {
                let how = origin(*inherited);
                format!("Adding TCP listener on interface \"{host}\", port {port}{how}")
            }
            Listener::Local { path, inherited, .. } => {
                let how = origin(*inherited);
                format!("Adding local socket listener with path \"{}\"{how}", path.display())
            }
            Listener::Inherited { name: Some(name), .. } => {
                format!("Adding inherited listener \"{name}\"")
            }
            Listener::Inherited { name: None, .. } => "Adding inherited listener".to_owned(),
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
        if let Listener::Local { path, file, socket, inherited: false } = self
            && is_bound_to(file, path, socket)
        {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Leaves connections to the system until their clients have spoken. That is for speed and safety; a
/// system without it, or a local socket, serves without.
fn wait_for_clients(socket: &OwnedFd, deferred: bool) {
    if deferred {
        let _ = defer_accept(socket.as_fd());
    }
}

fn origin(inherited: bool) -> &'static str {
    if inherited { " (inherited)" } else { "" }
}

/// Whether the socket file at `path` still leads to `socket`: another server may have taken its
/// place meanwhile. Connecting is the only way to tell; a listener that was shut down refuses.
/// `given` may be short enough for an address where `path`, which is absolute, is not.
fn is_bound_to(path: &Path, given: &OsStr, own: &OwnedFd) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let Ok(file) = std::fs::symlink_metadata(path) else { return false };
    if !file.file_type().is_socket() {
        return false;
    }
    let _ = shutdown(own.as_raw_fd(), Shutdown::Both);
    let probe = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    );
    match (probe, UnixAddr::new(path).or_else(|_| UnixAddr::new(given))) {
        (Ok(probe), Ok(address)) => {
            connect(probe.as_raw_fd(), &address) == Err(nix::errno::Errno::ECONNREFUSED)
        }
        _ => false,
    }
}
