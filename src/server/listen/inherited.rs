//! Listening sockets that this process has not opened: passed by a service manager (sd_listen_fds(3)), or by
//! the previous generation of this server at a reload.
//!
//! Those of a service manager belong to it: the server neither shuts down nor unlinks them, so that clients
//! find an open port while it restarts.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use socket2::{SockAddr, SockRef, Type};

use super::proxies::Proxies;
use super::spec::ListenerSpec;
use crate::io::address;
use crate::io::listen::{Access, BACKLOG};
use crate::server::ipc::generation::PassedSocket;
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
    /// What the previous generation says of it.
    passed: Option<(usize, PassedSocket)>,
}

/// A listening socket of the previous generation.
pub struct PredecessorSocket {
    /// Its position among those that were passed.
    pub index: usize,
    /// What the previous generation says of it.
    pub passed: PassedSocket,
    /// The socket.
    pub socket: OwnedFd,
}

/// A listening socket that was claimed.
pub struct Claimed {
    /// The socket.
    pub socket: OwnedFd,
    /// Whether the server has opened it itself, in an earlier generation.
    pub is_own: bool,
}

/// The inherited sockets that no listener has claimed yet.
#[derive(Default)]
pub struct Inheritance {
    sockets: RefCell<Option<Vec<Inherited>>>,
    /// The sockets of the previous generation that were claimed since that was last asked: their positions,
    /// and the number of workers of their pool.
    claimed: RefCell<Vec<(usize, u64)>>,
}

impl Inheritance {
    /// The sockets that the previous generation has passed.
    pub fn of_generation(sockets: Vec<PredecessorSocket>) -> Self {
        let inherited =
            sockets.into_iter().filter_map(|PredecessorSocket { index, passed, socket }| {
                let name = String::from_utf8_lossy(&passed.key);
                let name = name.strip_prefix("inherit ").unwrap_or(NAMELESS).to_owned();
                let address = SockRef::from(&socket).local_addr().ok()?;
                Some(Inherited { name, socket, address, passed: Some((index, passed)) })
            });
        let sockets = RefCell::new(Some(inherited.collect()));
        Inheritance { sockets, claimed: RefCell::default() }
    }

    /// The sockets of the previous generation that were claimed since the last call: their positions, and
    /// the number of workers of their pool.
    pub fn take_claimed(&self) -> Vec<(usize, u64)> {
        self.claimed.take()
    }

    /// Claims the first unclaimed socket with that name, or the first one of all.
    ///
    /// # Errors
    /// A sentence that says which name is missing.
    pub fn claim(&self, name: Option<&str>) -> io::Result<OwnedFd> {
        let wanted =
            |socket: &Inherited| !socket.is_own() && name.is_none_or(|name| socket.name == name);
        self.take(wanted).map(|claimed| claimed.socket).ok_or_else(|| {
            io::Error::other(match name {
                Some(name) => format!("No inherited socket has the name \"{name}\""),
                None => "No inherited socket is left".to_owned(),
            })
        })
    }

    /// Claims the socket that listens where `listen{...}` would open a TCP port.
    pub fn claim_tcp(&self, host: &str, port: &str) -> Option<Claimed> {
        if self.is_empty() {
            return None;
        }
        let key = tcp_key(host, port);
        if let Some(claimed) = self.take(|socket| socket.has_key(&key)) {
            return Some(claimed);
        }
        let addresses = resolve::tcp(host, port, true).ok()?;
        self.take(|socket| {
            socket.address.as_socket().is_some_and(|address| addresses.contains(&address))
        })
    }

    /// Claims the socket that listens at this path.
    pub fn claim_local(&self, path: &OsStr) -> Option<Claimed> {
        let path = Path::new(path);
        if address::is_abstract(path) {
            let name = path.as_os_str().as_bytes().get(1..);
            return self.take(|socket| socket.address.as_abstract_namespace() == name);
        }
        let path = std::path::absolute(path).ok()?;
        let key = local_key(&path);
        self.take(|socket| {
            socket.has_key(&key) || socket.address.as_pathname().is_some_and(|there| there == path)
        })
    }

    /// These count as claimed since the last call, too.
    pub fn give_back_claimed(&self, claimed: impl Iterator<Item = (usize, u64)>) {
        self.claimed.borrow_mut().extend(claimed);
    }

    /// What a script would have to say to claim each of the sockets that are unclaimed.
    pub fn unclaimed(&self) -> Vec<ListenerSpec> {
        let mut sockets = self.sockets.borrow_mut();
        sockets.get_or_insert_with(receive).iter().filter_map(Inherited::spec).collect()
    }

    /// Closes the unclaimed sockets, and returns the names of those that a service manager has passed.
    pub fn close_unclaimed(&self) -> Vec<String> {
        let rest = self.sockets.borrow_mut().replace(Vec::new()).unwrap_or_default();
        rest.into_iter().filter(|socket| !socket.is_own()).map(|socket| socket.name).collect()
    }

    /// Takes over the passed sockets. Claiming a socket does this, too.
    pub fn adopt(&self) {
        self.sockets.borrow_mut().get_or_insert_with(receive);
    }

    /// Whether no unclaimed socket is left.
    pub fn is_empty(&self) -> bool {
        self.sockets.borrow_mut().get_or_insert_with(receive).is_empty()
    }

    fn take(&self, wanted: impl Fn(&Inherited) -> bool) -> Option<Claimed> {
        let mut sockets = self.sockets.borrow_mut();
        let sockets = sockets.get_or_insert_with(receive);
        let index = sockets.iter().position(wanted)?;
        let Inherited { socket, passed, .. } = sockets.remove(index);
        let is_own = passed.as_ref().is_some_and(|(_, passed)| passed.is_own);
        self.claimed.borrow_mut().extend(passed.map(|(index, passed)| (index, passed.workers)));
        Some(Claimed { socket, is_own })
    }
}

impl Inherited {
    fn is_own(&self) -> bool {
        self.passed.as_ref().is_some_and(|(_, passed)| passed.is_own)
    }

    /// What a script would have to say to claim it.
    fn spec(&self) -> Option<ListenerSpec> {
        let (deferred, proxies) = (true, Proxies::Nobody);
        let named = || {
            let (name, proxies) = (Some(self.name.clone()), Proxies::Nobody);
            ListenerSpec::Inherited { name, deferred, proxies }
        };
        let Some((_, passed)) = &self.passed else { return Some(named()) };
        let (proto, place) = passed.key.split_at(passed.key.iter().position(|it| *it == b' ')?);
        let place = place.get(1..).unwrap_or_default();
        Some(match proto {
            b"tcp" => {
                let (host, port) = std::str::from_utf8(place).ok()?.rsplit_once(' ')?;
                let (host, port) = (host.to_owned(), port.to_owned());
                ListenerSpec::Tcp { host, port, deferred, backlog: BACKLOG, proxies, tls: None }
            }
            b"local" => {
                let name = self.address.as_abstract_namespace();
                let path = name.map_or(place.to_vec(), |name| [b"@", name].concat());
                let path = OsString::from_vec(path);
                let access = Access::default();
                ListenerSpec::Local { path, access, backlog: BACKLOG, proxies }
            }
            _ => named(),
        })
    }

    fn has_key(&self, key: &[u8]) -> bool {
        self.passed.as_ref().is_some_and(|(_, passed)| passed.key == key)
    }
}

/// What the generations of a server call a TCP port: as the script does.
pub fn tcp_key(host: &str, port: &str) -> Vec<u8> {
    format!("tcp {host} {port}").into_bytes()
}

/// What they call a local socket, by its absolute path.
pub fn local_key(path: &Path) -> Vec<u8> {
    [b"local ", path.as_os_str().as_bytes()].concat()
}

/// What they call a socket that a listener has claimed by name.
pub fn inherit_key(name: Option<&str>) -> Vec<u8> {
    format!("inherit {}", name.unwrap_or(NAMELESS)).into_bytes()
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
            sockets.push(Inherited { name, socket: descriptor, address, passed: None });
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
