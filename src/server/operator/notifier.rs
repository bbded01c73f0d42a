//! Notifies a service manager of readiness and shutdown, and feeds its watchdog (sd_notify(3),
//! sd_watchdog_enabled(3)).

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::sys::os::environment;
use crate::sys::os::monotonic::MonotonicTime;

/// The connection to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    ready: bool,
    stopping: bool,
    watchdog: Option<Watchdog>,
}

#[derive(Debug)]
struct Watchdog {
    /// The interval: half of the watchdog's.
    every: Duration,
    next: Instant,
}

impl Notifier {
    /// Creates a notifier from the environment variables.
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

    /// Whether readiness has not been reported yet.
    pub fn awaits_readiness(&self) -> bool {
        self.manager.is_some() && !self.ready && !self.stopping
    }

    /// Reports that the server is ready.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            let pid = std::process::id();
            self.tell(&format!("READY=1\nMAINPID={pid}\nSTATUS=Serving"));
        }
    }

    /// Reports that the server is shutting down.
    pub fn stopping(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.tell("STOPPING=1\nSTATUS=Shutting down");
        }
    }

    /// Reports that a reload has begun.
    pub fn reloading(&mut self) {
        if self.ready && !self.stopping {
            let microseconds = MonotonicTime::now().nanoseconds() / 1000;
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=Reloading"));
        }
    }

    /// Reports that a reload has ended. The server is ready in any case.
    pub fn reloaded(&mut self, status: &str) {
        if !self.stopping {
            self.ready = true;
            let status = status.lines().next().unwrap_or_default();
            self.tell(&format!("READY=1\nMAINPID={}\nSTATUS={status}", std::process::id()));
        }
    }

    /// Whether it is time to feed the watchdog.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let Some(watchdog) = self.watchdog.as_mut().filter(|it| it.next <= now) else {
            return false;
        };
        watchdog.next = now + watchdog.every;
        true
    }

    /// When it will be.
    pub fn next(&self) -> Option<Instant> {
        self.watchdog.as_ref().map(|watchdog| watchdog.next)
    }

    /// Feeds the watchdog.
    pub fn feed(&self) {
        self.tell("WATCHDOG=1");
    }

    /// Sends a message; errors are ignored.
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
    // A manager that does not read must not block the supervisor.
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}
