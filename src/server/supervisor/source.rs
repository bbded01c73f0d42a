//! Where the events come from that the supervisor waits for.

/// Where an event of the supervisor's epoll set comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Signals, all from one descriptor.
    Signals,
    /// The control channel of a worker, by process id.
    Control(i32),
    /// The standard error of a worker, by process id.
    Stderr(i32),
    /// A connection in the lobby.
    Guest(u64),
}

const SIGNALS: u64 = 0;
const CONTROL: u64 = 1 << 32;
const STDERR: u64 = 2 << 32;
/// Events of the lobby: the rest of the token names the guest.
pub const GUEST: u64 = 1 << 63;

impl Source {
    /// What the event carries.
    pub fn token(self) -> u64 {
        match self {
            Source::Signals => SIGNALS,
            Source::Control(pid) => CONTROL | u64::from(pid.unsigned_abs()),
            Source::Stderr(pid) => STDERR | u64::from(pid.unsigned_abs()),
            Source::Guest(number) => GUEST | number,
        }
    }

    /// What the event with that token means.
    pub fn of(token: u64) -> Self {
        if token & GUEST != 0 {
            return Source::Guest(token & !GUEST);
        }
        let pid = (token & 0xffff_ffff) as i32;
        match token & !0xffff_ffff {
            CONTROL => Source::Control(pid),
            STDERR => Source::Stderr(pid),
            _ => Source::Signals,
        }
    }
}
