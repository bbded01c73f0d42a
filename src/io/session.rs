//! What a handler keeps of a connection that has changed its protocol (pure).

use std::any::Any;
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// What a handler keeps of a connection between its calls, for as long as the connection lives.
pub struct Session {
    /// As bytes, which follow the connection into other processes.
    bytes: Rc<[u8]>,
    /// The supervisor knows the bytes.
    is_told: bool,
    /// The name under which another process keeps what is to be sent meanwhile.
    pub away: Option<u64>,
    /// What that process is to be told when it gets the connection, if it is to have it.
    pub held: Option<Vec<u8>>,
    /// The end of a socket pair from which that process's messages come, if it does not get the connection.
    pub relay: Option<OwnedFd>,
    /// How long the handler's next call is waited for at first.
    pub wait: Option<Duration>,
    /// The handler has thrown after the change of protocol: it is to end the connection.
    pub has_failed: bool,
    /// What the handler has made of the bytes in this process.
    pub live: Option<Box<dyn Any>>,
}

impl Session {
    /// One that nobody else knows yet.
    pub fn new(bytes: &[u8], wait: Option<Duration>) -> Self {
        Session { is_told: false, wait, ..Session::received(bytes.into(), None) }
    }

    /// One that has come from another process.
    pub fn received(bytes: Rc<[u8]>, away: Option<u64>) -> Self {
        let (held, relay, wait, live) = Default::default();
        Session { bytes, is_told: true, away, held, relay, wait, has_failed: false, live }
    }

    /// As bytes.
    pub fn bytes(&self) -> &Rc<[u8]> {
        &self.bytes
    }

    /// It is other bytes from now on.
    pub fn set(&mut self, bytes: &[u8]) {
        if *self.bytes != *bytes {
            (self.bytes, self.is_told) = (bytes.into(), false);
        }
    }

    /// Whether the supervisor knows it.
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// It is known from now on.
    pub fn set_told(&mut self) {
        self.is_told = true;
    }
}

impl fmt::Debug for Session {
    /// What a client has sent is not for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} bytes)", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_to_be_told_again() {
        let mut session = Session::new(b"a", None);
        assert!(!session.is_told());
        session.set_told();
        session.set(b"a");
        assert!(session.is_told());
        session.set(b"b");
        assert!(!session.is_told());
        assert_eq!(&**session.bytes(), b"b");
        assert!(Session::received(session.bytes().clone(), None).is_told());
    }
}
