//! Where the events come from that the supervisor waits for.

/// Where an event of the supervisor's epoll set comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSource {
    /// Signals, all from one descriptor.
    Signals,
    /// The control channel of a worker, by process id.
    Control(i32),
    /// The standard error of a worker, by process id.
    Stderr(i32),
    /// The previous generation hands over.
    Predecessor,
    /// The next generation takes more of what is handed over.
    Successor,
    /// The link to the first process.
    First,
    /// The link to a later generation, by the process id of its supervisor.
    Generation(i32),
    /// The standard error of a generation that is being started.
    CandidateStderr,
    /// The standard error of the process of the access log.
    AccessLogStderr,
    /// In development: files may have changed.
    Files,
    /// Somebody has something for the push process, which does not run.
    PushLine,
    /// The push process has something.
    Push,
    /// A connection in the lobby.
    Connection(u64),
}

const SIGNALS: u64 = 0;
const CONTROL: u64 = 1 << 32;
const STDERR: u64 = 2 << 32;
const GENERATION: u64 = 3 << 32;
const PREDECESSOR: u64 = 4 << 32;
const SUCCESSOR: u64 = 5 << 32;
const FIRST: u64 = 6 << 32;
const CANDIDATE_STDERR: u64 = 7 << 32;
const FILES: u64 = 8 << 32;
const ACCESS_LOG_STDERR: u64 = 9 << 32;
const PUSH_LINE: u64 = 11 << 32;
const PUSH: u64 = 10 << 32;
/// Events of the lobby: the rest of the token is the number of its key.
pub const CONNECTION: u64 = 1 << 63;

impl EventSource {
    /// What the event carries.
    pub fn token(self) -> u64 {
        match self {
            EventSource::Signals => SIGNALS,
            EventSource::Control(pid) => CONTROL | u64::from(pid.unsigned_abs()),
            EventSource::Stderr(pid) => STDERR | u64::from(pid.unsigned_abs()),
            EventSource::Generation(pid) => GENERATION | u64::from(pid.unsigned_abs()),
            EventSource::Predecessor => PREDECESSOR,
            EventSource::Successor => SUCCESSOR,
            EventSource::First => FIRST,
            EventSource::CandidateStderr => CANDIDATE_STDERR,
            EventSource::Files => FILES,
            EventSource::AccessLogStderr => ACCESS_LOG_STDERR,
            EventSource::PushLine => PUSH_LINE,
            EventSource::Push => PUSH,
            EventSource::Connection(number) => CONNECTION | number,
        }
    }

    /// What the event with that token means.
    pub fn of(token: u64) -> Self {
        if token & CONNECTION != 0 {
            return EventSource::Connection(token & !CONNECTION);
        }
        let pid = (token & 0xffff_ffff) as i32;
        match token & !0xffff_ffff {
            CONTROL => EventSource::Control(pid),
            STDERR => EventSource::Stderr(pid),
            GENERATION => EventSource::Generation(pid),
            PREDECESSOR => EventSource::Predecessor,
            SUCCESSOR => EventSource::Successor,
            FIRST => EventSource::First,
            CANDIDATE_STDERR => EventSource::CandidateStderr,
            FILES => EventSource::Files,
            ACCESS_LOG_STDERR => EventSource::AccessLogStderr,
            PUSH_LINE => EventSource::PushLine,
            PUSH => EventSource::Push,
            _ => EventSource::Signals,
        }
    }
}
