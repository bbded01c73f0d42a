//! The system log: lines as syslog(3) sends them (RFC 3164), over a socket that never blocks.
//!
//! `syslog(3)` would wait for a daemon that does not read.

use std::io;

use socket2::{Domain, SockAddr, Socket, Type};

use super::line_queue::{LineQueue, lost_lines};
use crate::sys::os::calendar::syslog_timestamp;

/// The socket of the log daemon.
const PATH: &str = "/dev/log";

/// A connection to the system log.
pub struct Syslog {
    ident: String,
    facility: libc::c_int,
    daemon: Option<Daemon>,
    queue: LineQueue,
}

/// A connection to the daemon.
struct Daemon {
    socket: Socket,
    /// A stream does not preserve message boundaries: there, the terminating zero byte of each
    /// record is sent, too.
    is_stream: bool,
}

impl Syslog {
    /// The system log under a program name and with a facility (a `LOG_*` constant).
    pub fn new(ident: &str, facility: libc::c_int) -> Self {
        let ident = ident.replace('\0', "");
        Syslog { ident, facility, daemon: None, queue: LineQueue::of_records() }
    }

    /// Sends one line with priority "notice". Returns whether lines are waiting.
    pub fn line(&mut self, line: &str) -> bool {
        let Syslog { ident, facility, daemon, queue } = self;
        let record = |text: &str| record(ident, *facility, text);
        let note = |lost| record(&lost_lines(lost));
        queue.push(record(&line.replace('\0', "\u{fffd}")), note, |bytes| send(daemon, bytes))
    }

    /// How many lines have been lost since the beginning.
    pub fn lost(&self) -> u64 {
        self.queue.lost_ever()
    }

    /// Retries waiting lines. Returns whether any are left.
    pub fn retry(&mut self) -> bool {
        let Syslog { ident, facility, daemon, queue } = self;
        let note = |lost| record(ident, *facility, &lost_lines(lost));
        queue.retry(note, |bytes| send(daemon, bytes))
    }
}

fn record(ident: &str, facility: libc::c_int, text: &str) -> Vec<u8> {
    let (time, pid) = (syslog_timestamp(), std::process::id());
    format!("<{}>{time} {ident}[{pid}]: {text}\0", facility | libc::LOG_NOTICE).into_bytes()
}

/// Sends a record; reconnects if the daemon has been restarted.
fn send(daemon: &mut Option<Daemon>, record: &[u8]) -> io::Result<usize> {
    if let Some(connected) = daemon {
        match connected.send(record) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => *daemon = None,
            outcome => return outcome,
        }
    }
    daemon.insert(Daemon::connect()?).send(record)
}

impl Daemon {
    fn connect() -> io::Result<Self> {
        let address = SockAddr::unix(PATH)?;
        let connect = |kind| {
            let socket = Socket::new(Domain::UNIX, kind, None)?;
            socket.set_nonblocking(true)?;
            socket.connect(&address)?;
            Ok(Daemon { socket, is_stream: kind == Type::STREAM })
        };
        match connect(Type::DGRAM) {
            Err::<_, io::Error>(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
                connect(Type::STREAM)
            }
            outcome => outcome,
        }
    }

    fn send(&self, record: &[u8]) -> io::Result<usize> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        match record.strip_suffix(b"\0") {
            Some(text) if !self.is_stream => {
                self.socket.send_with_flags(text, flags).map(|_| record.len())
            }
            _ => self.socket.send_with_flags(record, flags),
        }
    }
}
