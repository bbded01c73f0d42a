//! What would keep a listener from being opened, found without opening it: for `moonbridge --check`.
//!
//! That a port is in use by another process does not count: it may be the server that is to be replaced.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::inherited::{Claimed, Inheritance};
use super::spec::ListenerSpec;
use crate::io::{address, listen};

/// The listeners of a script that were checked.
#[derive(Default)]
pub struct DryRun {
    taken: RefCell<Vec<Place>>,
    /// Whether a service manager has passed sockets to this process.
    is_activated: OnceCell<bool>,
}

/// Where a listener would listen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp(SocketAddr),
    /// A path or, with an `@` in front, an abstract name.
    Local(PathBuf),
}

impl DryRun {
    /// Checks one more listener. Returns the socket that a service manager has passed for it.
    ///
    /// # Errors
    /// What opening it would report.
    pub fn check(
        &self,
        spec: &ListenerSpec,
        inheritance: &Inheritance,
    ) -> io::Result<Option<OwnedFd>> {
        let is_activated = *self.is_activated.get_or_init(|| !inheritance.is_empty());
        let claimed = match spec {
            ListenerSpec::Tcp { host, port, .. } => inheritance.claim_tcp(host, port),
            ListenerSpec::Local { path, .. } => inheritance.claim_local(path),
            // A script that is checked by hand gets no such sockets.
            ListenerSpec::Inherited { name, .. } if is_activated => {
                return inheritance.claim(name.as_deref()).map(Some);
            }
            _ => return Ok(None),
        };
        if let Some(Claimed { socket, .. }) = claimed {
            return Ok(Some(socket));
        }
        match spec {
            ListenerSpec::Tcp { host, port, .. } => listen::at_first(host, port, |address| {
                listen::is_here(address)?;
                self.take(Place::Tcp(address))
            })?,
            ListenerSpec::Local { path, .. } => self.take(local(Path::new(path))?)?,
            _ => {}
        }
        Ok(None)
    }

    /// # Errors
    /// "Address already in use" by another listener of the script.
    fn take(&self, place: Place) -> io::Result<()> {
        let mut taken = self.taken.borrow_mut();
        if taken.iter().any(|other| other.excludes(&place)) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        taken.push(place);
        Ok(())
    }
}

impl Place {
    fn excludes(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Tcp(one), Place::Tcp(two)) => {
                let covers = |all: IpAddr, ip: IpAddr| {
                    // "::" is opened for IPv4, too.
                    all == ip || all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4())
                };
                let overlap = covers(one.ip(), two.ip()) || covers(two.ip(), one.ip());
                one.port() == two.port() && one.port() != 0 && overlap
            }
            (one, two) => one == two,
        }
    }
}

/// The path of a local socket without links and relative parts.
fn local(path: &Path) -> io::Result<Place> {
    if address::is_abstract(path) {
        return Ok(Place::Local(path.to_owned()));
    }
    let path = std::path::absolute(path)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
    };
    // The dot makes it an error if this is a file.
    let path = folder.join(".").canonicalize()?.join(name);
    let is_other = |file: std::fs::Metadata| !file.file_type().is_socket();
    if path.symlink_metadata().is_ok_and(is_other) {
        return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
    }
    Ok(Place::Local(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_exclude_each_other_as_the_kernel_says() {
        for (one, two, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("127.0.0.1:80", "[::]:80", true),
            ("0.0.0.0:80", "[::]:80", true),
            ("[::1]:80", "[::]:80", true),
            ("[::1]:80", "0.0.0.0:80", false),
            ("[::1]:80", "127.0.0.1:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let place = |text: &str| Place::Tcp(text.parse().unwrap());
            assert_eq!(place(one).excludes(&place(two)), expected, "{one} {two}");
            assert_eq!(place(two).excludes(&place(one)), expected, "{two} {one}");
        }
    }

    #[test]
    fn one_socket_file_has_one_place_however_it_is_named() {
        let folder = std::env::temp_dir();
        let place = |rest: &str| local(&folder.join(rest)).unwrap();
        assert_eq!(place("moonbridge-no-such.sock"), place("./moonbridge-no-such.sock"));
        let missing = local(&folder.join("moonbridge-no-such/a.sock")).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
        let used = local(&std::env::current_exe().unwrap()).unwrap_err();
        assert_eq!(used.raw_os_error(), Some(libc::EADDRINUSE));
        let file = local(&std::env::current_exe().unwrap().join("a.sock")).unwrap_err();
        assert_eq!(file.raw_os_error(), Some(libc::ENOTDIR));
    }
}
