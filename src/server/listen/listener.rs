//! The opened listeners of a pool: `listen{...}` binds the ports, so that a port in use is an
//! ordinary Lua error.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};

use super::config::ListenerSpec;
use super::inherited::Inheritance;
use crate::binding::{Fault, Reply};
use crate::io::listen;
use crate::sys::os::defer_accept::defer_accept;
use crate::sys::os::error_text;
use crate::sys::os::own_file::OwnFile;

/// One opened listener.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp {
        /// Name or address of the interface, as given.
        host: String,
        /// Port as given.
        port: String,
        /// The listening socket.
        socket: OwnedFd,
        /// Whether a service manager has passed it.
        inherited: bool,
    },
    /// A Unix domain socket.
    Local {
        /// Path in the file system, as given.
        path: OsString,
        /// The listening socket.
        socket: OwnedFd,
        /// Its file; `None` if a service manager has passed the socket.
        file: Option<OwnFile>,
    },
    /// A socket passed by a service manager.
    Inherited {
        /// Its name, if it was claimed by name.
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
        /// Whether ticks are scheduled at fixed times.
        strict: bool,
    },
    /// A function that runs once.
    Main {
        /// What the handler finds in `socket.main`.
        name: String,
    },
}

impl Listener {
    /// Opens the listener at `index` (from 1) of its pool, or takes the inherited socket for its
    /// address.
    pub fn open(index: usize, spec: ListenerSpec, inheritance: &Inheritance) -> Reply<Self> {
        Self::try_open(spec, inheritance).map_err(|error| {
            let reason = error_text::reason(&error);
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
                if let Some(socket) = inheritance.claim_local(&path) {
                    return Ok(Listener::Local { path, socket, file: None });
                }
                let socket = listen::local_if_free(Path::new(&path))?;
                let file = Some(OwnFile::at(Path::new(&path))?);
                Listener::Local { path, socket, file }
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

    /// Stops new connections; waiting ones can still be accepted. Returns false for listeners that
    /// are not a port of this server: a service manager's socket continues to collect connections.
    pub fn refuse(&self) -> bool {
        match self {
            Listener::Tcp { socket, inherited: false, .. } => {
                let _ = listen::begin_no_handshake(socket);
            }
            // Connections waiting at a local socket survive its shutdown.
            Listener::Local { file: Some(_), .. } => {
                self.unlink();
                self.close_port();
            }
            _ => return false,
        }
        true
    }

    /// Whether the server has opened this port itself.
    pub fn is_own_port(&self) -> bool {
        matches!(
            self,
            Listener::Tcp { inherited: false, .. } | Listener::Local { file: Some(_), .. }
        )
    }

    /// Closes the port in all processes. A service manager's socket stays open.
    pub fn close_port(&self) {
        if let Some(socket) = self.socket().filter(|_| self.is_own_port()) {
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        }
    }

    /// The log message for the creation of the listener's pool.
    pub fn announcement(&self) -> String {
        match self {
            Listener::Tcp { host, port, inherited, .. } => {
                let how = origin(*inherited);
                format!("Adding TCP listener on interface \"{host}\", port {port}{how}")
            }
            Listener::Local { path, file, .. } => {
                let how = origin(file.is_none());
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

    /// Removes the socket file, unless another one has replaced it.
    pub fn unlink(&self) {
        if let Listener::Local { file: Some(file), .. } = self {
            file.remove();
        }
    }
}

/// Leaves connections to the kernel until their clients have sent something. This is an
/// optimization, so errors (on local sockets, for example) are ignored.
fn wait_for_clients(socket: &OwnedFd, deferred: bool) {
    if deferred {
        let _ = defer_accept(socket.as_fd());
    }
}

fn origin(inherited: bool) -> &'static str {
    if inherited { " (inherited)" } else { "" }
}
