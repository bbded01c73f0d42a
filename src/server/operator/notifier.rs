//! What a service manager is told: readiness, the end, and that the supervisor is alive
//! (sd_notify(3), sd_watchdog_enabled(3)).

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::sys::os::environment;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    ready: bool,
    stopping: bool,
    watchdog: Option<Watchdog>,
}

#[derive(Debug)]
struct Watchdog {
    /// How often it is fed: twice as often as it demands.
    every: Duration,
    next: Instant,
}

impl Notifier {
    /// Takes over what the environment describes.
    pub fn from_environment(now: Instant) -> Self {
        let names = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
        let [path, interval, pid] = names.map(environment::take);
        let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
        let manager = path.as_deref().and_then(connect);
        let mine = pid.is_none_or(|pid| number(&pid) == Some(u64::from(std::process::id())));
        let watchdog = interval
            .as_deref()
            .and_then(number)
            .filter(|microseconds| mine && *microseconds > 0 && manager.is_some())
            .map(|microseconds| Watchdog {
                every: Duration::from_micros(microseconds) / 2,
                next: now,
            });
        Notifier { manager, watchdog, ..Notifier::default() }
    }

    /// Whether readiness is still to be told.
    pub fn awaits_readiness(&self) -> bool {
        self.manager.is_some() && !self.ready && !self.stopping
    }

    /// The server serves.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            let pid = std::process::id();
            self.tell(&format!("READY=1\nMAINPID={pid}\nSTATUS=Serving"));
        }
    }

    /// The server is about to end.
    pub fn stopping(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.tell("STOPPING=1\nSTATUS=Shutting down");
        }
    }

    /// Feeds the watchdog if it is time; tells when it is time again.
    pub fn feed(&mut self, now: Instant) -> Option<Instant> {
        let watchdog = self.watchdog.as_mut()?;
        let next = if watchdog.next <= now {
            watchdog.next = now + watchdog.every;
            let next = watchdog.next;
            self.tell("WATCHDOG=1");
            next
        } else {
            watchdog.next
        };
        Some(next)
    }

    /// Sends a message; a manager that does not listen is no reason to do anything else.
    fn tell(&self, message: &str) {
        if let Some((socket, address)) = &self.manager {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

/// An unbound socket and the manager's address: a path, or a name of the abstract namespace.
fn connect(path: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(path),
    };
    let socket = UnixDatagram::unbound().ok()?;
    // A manager that does not read must not stop the supervisor.
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}
