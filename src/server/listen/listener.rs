//! The listeners of a pool: `listen{...}` binds the ports, so that a port in use is an ordinary Lua error.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use nix::sys::socket::{Shutdown, shutdown};
use socket2::{SockAddr, SockRef};

use super::dry_run::DryRun;
use super::inherited::{Claimed, Inheritance, inherit_key, local_key, tcp_key};
use super::spec::ListenerSpec;
use crate::binding::{Fault, Reply};
use crate::io::tls::TlsServer;
use crate::io::{address, listen};
use crate::server::ipc::attributes::Attributes;
use crate::sys::os::defer_accept::defer_accept;
use crate::sys::os::error_text;
use crate::sys::os::own_file::OwnFile;

/// One listener.
#[derive(Debug, Clone)]
pub struct Listener {
    /// What it was registered as.
    pub spec: ListenerSpec,
    /// Where connections arrive; `None` for intervals and main listeners, and for listeners that are only
    /// checked, unless a service manager has passed the socket.
    port: Option<Rc<Port>>,
    /// What its clients are shown if they speak TLS.
    tls: Option<Rc<TlsServer>>,
}

/// An open port.
#[derive(Debug)]
struct Port {
    socket: OwnedFd,
    origin: Origin,
}

/// Who has opened a port.
#[derive(Debug)]
enum Origin {
    /// This server, with the socket file if it has one.
    Own(Option<OwnFile>),
    /// A service manager.
    Inherited,
}

impl Listener {
    /// Opens the listener at `index` (from 1) of its pool, or takes the inherited socket for its
    /// address.
    ///
    /// # Errors
    /// Misuse that names the listener, the reason and the address.
    pub fn open(index: usize, spec: ListenerSpec, inheritance: &Inheritance) -> Reply<Self> {
        let opened = tls_of(&spec).and_then(|tls| Ok((tls, Port::open(&spec, inheritance)?)));
        match opened {
            Ok((tls, port)) => Ok(Listener { spec, port: port.map(Rc::new), tls }),
            Err(error) => Err(failed(index, &spec, &error)),
        }
    }

    /// The listener at `index` (from 1) of its pool, without opening anything.
    ///
    /// # Errors
    /// Misuse as for [`Listener::open`].
    pub fn check(
        index: usize,
        spec: ListenerSpec,
        inheritance: &Inheritance,
        dry_run: &DryRun,
    ) -> Reply<Self> {
        let socket =
            dry_run.check(&spec, inheritance).map_err(|error| failed(index, &spec, &error))?;
        let port = socket.map(|socket| Port { socket, origin: Origin::Inherited });
        let tls = tls_of(&spec).map_err(|error| failed(index, &spec, &error))?;
        Ok(Listener { spec, port: port.map(Rc::new), tls })
    }

    /// What its clients are shown if they speak TLS.
    pub fn tls(&self) -> Option<&TlsServer> {
        self.tls.as_deref()
    }

    /// What a new connection of this peer has.
    pub fn attributes(&self, peer: &SockAddr) -> Attributes {
        let tls = self.tls.as_ref().and_then(|_| self.key()).map(Rc::from);
        Attributes { proxied: self.spec.proxied(peer), tls, ..Attributes::default() }
    }

    /// The listening socket, if connections arrive here.
    pub fn socket(&self) -> Option<&OwnedFd> {
        self.port.as_ref().map(|port| &port.socket)
    }

    /// What the generations of a server call its socket.
    pub fn key(&self) -> Option<Vec<u8>> {
        Some(match (&self.spec, self.port.as_deref()) {
            (ListenerSpec::Tcp { host, port, .. }, _) => tcp_key(host, port),
            (ListenerSpec::Local { .. }, Some(Port { origin: Origin::Own(Some(file)), .. })) => {
                local_key(file.path())
            }
            (ListenerSpec::Local { path, .. }, _) => local_key(&std::path::absolute(path).ok()?),
            (ListenerSpec::Inherited { name, .. }, _) => inherit_key(name.as_deref()),
            (ListenerSpec::Interval { .. } | ListenerSpec::Main { .. }, _) => return None,
        })
    }

    /// What they call it if it is a job: its kind and its name.
    pub fn job(&self) -> Option<String> {
        match &self.spec {
            ListenerSpec::Interval { name, .. } => Some(format!("interval {name}")),
            ListenerSpec::Main { name } => Some(format!("main {name}")),
            _ => None,
        }
    }

    /// Applies what the script says of a socket that an earlier generation has opened: the backlog, who may
    /// connect, whether silent connections wait in the kernel.
    ///
    /// # Errors
    /// A sentence that names the address.
    pub fn adjust(&self) -> Result<(), String> {
        let Some(Port { socket, origin: Origin::Own(file) }) = self.port.as_deref() else {
            return Ok(());
        };
        let adjusted = match &self.spec {
            ListenerSpec::Tcp { deferred, backlog, .. } => {
                let _ = defer_accept(socket.as_fd(), *deferred);
                SockRef::from(socket).listen(*backlog)
            }
            ListenerSpec::Local { access, backlog, .. } => SockRef::from(socket)
                .listen(*backlog)
                .and_then(|()| file.as_ref().map_or(Ok(()), |file| access.apply(file.path()))),
            _ => Ok(()),
        };
        adjusted.map_err(|error| {
            let (reason, place) = (error_text::reason(&error), place(&self.spec));
            format!("Could not change the open socket to what the script says: {reason}{place}")
        })
    }

    /// The next generation has the socket, and its file.
    pub fn give_away(&self) {
        if let Some(Port { origin: Origin::Own(Some(file)), .. }) = self.port.as_deref() {
            file.give_away();
        }
    }

    /// Stops new connections; waiting ones can still be accepted. Returns false for listeners that
    /// are not a port of this server: a service manager's socket continues to collect connections.
    pub fn refuse(&self) -> bool {
        let Some(Port { socket, origin: Origin::Own(_) }) = self.port.as_deref() else {
            return false;
        };
        if matches!(self.spec, ListenerSpec::Tcp { .. }) {
            let _ = listen::begin_no_handshake(socket);
        } else {
            // Connections waiting at a local socket survive its shutdown.
            self.unlink();
            self.close_port();
        }
        true
    }

    /// Whether the server has opened this port itself.
    pub fn is_own_port(&self) -> bool {
        matches!(self.port.as_deref(), Some(Port { origin: Origin::Own(_), .. }))
    }

    /// Closes the port in all processes. A service manager's socket stays open.
    pub fn close_port(&self) {
        if let Some(socket) = self.socket().filter(|_| self.is_own_port()) {
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        }
    }

    /// The TCP port that the socket has.
    pub fn port_number(&self) -> Option<u16> {
        Some(SockRef::from(self.socket()?).local_addr().ok()?.as_socket()?.port())
    }

    /// What it is, for the log.
    pub fn description(&self) -> String {
        let is_chosen = matches!(&self.spec, ListenerSpec::Tcp { port, .. } if port == "0");
        let text = self.spec.description(self.port_number().filter(|_| is_chosen));
        match (&self.spec, self.port.as_deref()) {
            (ListenerSpec::Inherited { .. }, Some(_)) => text,
            (ListenerSpec::Inherited { .. }, None) => {
                format!("{text} (a service manager must pass the socket)")
            }
            (_, Some(Port { origin: Origin::Inherited, .. })) => format!("{text} (inherited)"),
            _ => text,
        }
    }

    /// Removes the socket file, unless another one has replaced it.
    pub fn unlink(&self) {
        if let Some(Port { origin: Origin::Own(Some(file)), .. }) = self.port.as_deref() {
            file.remove();
        }
    }
}

impl Port {
    fn open(spec: &ListenerSpec, inheritance: &Inheritance) -> io::Result<Option<Self>> {
        let (socket, origin) = match spec {
            ListenerSpec::Tcp { host, port, deferred, backlog, .. } => {
                let (socket, origin) = match inheritance.claim_tcp(host, port) {
                    // The previous generation still serves: `adjust` comes later.
                    Some(Claimed { socket, is_own: true }) => {
                        return Ok(Some(Port { socket, origin: Origin::Own(None) }));
                    }
                    Some(claimed) => (claimed.socket, Origin::Inherited),
                    None => (listen::tcp(host, port, *backlog)?, Origin::Own(None)),
                };
                wait_for_clients(&socket, *deferred);
                (socket, origin)
            }
            ListenerSpec::Local { path, access, backlog, .. } => {
                match inheritance.claim_local(path) {
                    Some(Claimed { socket, is_own: true }) => {
                        let path = Path::new(path);
                        let has_file = !address::is_abstract(path);
                        // Somebody may have removed the file.
                        let file = has_file.then(|| OwnFile::of_predecessor(path).ok()).flatten();
                        (socket, Origin::Own(file))
                    }
                    Some(claimed) => (claimed.socket, Origin::Inherited),
                    None => {
                        let path = Path::new(path);
                        let socket = listen::local_if_free(path, access, *backlog)?;
                        let has_file = !address::is_abstract(path);
                        (socket, Origin::Own(has_file.then(|| OwnFile::at(path)).transpose()?))
                    }
                }
            }
            ListenerSpec::Inherited { name, deferred, .. } => {
                let socket = inheritance.claim(name.as_deref())?;
                wait_for_clients(&socket, *deferred);
                (socket, Origin::Inherited)
            }
            ListenerSpec::Interval { .. } | ListenerSpec::Main { .. } => return Ok(None),
        };
        Ok(Some(Port { socket, origin }))
    }
}

/// What its clients are shown if they speak TLS: reads the files.
fn tls_of(spec: &ListenerSpec) -> io::Result<Option<Rc<TlsServer>>> {
    match spec {
        ListenerSpec::Tcp { tls: Some(options), .. } => {
            TlsServer::new((**options).clone()).map(Some)
        }
        _ => Ok(None),
    }
}

fn failed(index: usize, spec: &ListenerSpec, error: &io::Error) -> Fault {
    let reason = error_text::reason(error);
    Fault::misuse(format!("Could not initialize listener #{index}: {reason}{}", place(spec)))
}

fn place(spec: &ListenerSpec) -> String {
    spec.address().map(|address| format!(" ({address})")).unwrap_or_default()
}

/// Leaves connections to the kernel until their clients have sent something. This is an
/// optimization, so errors (on local sockets, for example) are ignored.
fn wait_for_clients(socket: &OwnedFd, deferred: bool) {
    if deferred {
        let _ = defer_accept(socket.as_fd(), true);
    }
}
