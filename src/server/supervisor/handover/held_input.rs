//! Incomplete input of waiting connections: the supervisor holds it and adds to it until the reader can
//! use it. It searches the input for nothing but what the reader awaits.

use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use crate::io::Awaits;
use crate::server::ipc::message::MAX_PAYLOAD;
use crate::sys::os::socket_queues::unread;

/// Memory for held input grows by this, in bytes, at the least.
const STEP: usize = 1024;

/// How much memory all held input takes, and how much it may take, in bytes.
#[derive(Debug)]
pub struct InputBudget {
    limit: usize,
    held: Cell<usize>,
}

impl InputBudget {
    /// A budget of which nothing is used.
    pub fn new(limit: usize) -> Rc<Self> {
        Rc::new(InputBudget { limit, held: Cell::new(0) })
    }

    /// How much is held.
    pub fn held(&self) -> usize {
        self.held.get()
    }

    /// How much may be held.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// Received input, all of it seen by the reader or searched for what the reader awaits.
#[derive(Debug, Default)]
pub struct HeldInput {
    bytes: Vec<u8>,
    awaits: Awaits,
    /// What the memory of `bytes` is counted in.
    budget: Option<Rc<InputBudget>>,
}

impl HeldInput {
    /// Input that its reader has seen and cannot use until what it awaits is there.
    pub fn new(bytes: Vec<u8>, awaits: Awaits, budget: &Rc<InputBudget>) -> Self {
        let input = HeldInput { bytes, awaits, budget: Some(budget.clone()) };
        input.count(input.bytes.capacity(), 0);
        input
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Something came from the client: receives it if it may not be enough yet. True if the
    /// reader is to look again: because what it awaits is there, the client sends no more, or there
    /// is as much as can be held.
    pub fn is_due(&mut self, connection: BorrowedFd<'_>) -> bool {
        let seen = self.bytes.len();
        let room = MAX_PAYLOAD.saturating_sub(seen);
        if seen == 0 || room == 0 || self.awaits == Awaits::More {
            return true;
        }
        let size = unread(connection).clamp(1, room);
        if !self.reserve(size) {
            return true;
        }
        self.bytes.resize(seen + size, 0);
        let outcome = recv(connection.as_raw_fd(), &mut self.bytes[seen..], MsgFlags::MSG_DONTWAIT);
        self.bytes.truncate(seen + outcome.unwrap_or(0));
        match outcome {
            Ok(count) if count > 0 => count == room || self.awaits.is_met(&self.bytes, seen),
            Err(Errno::EAGAIN | Errno::EINTR) => false,
            // The end, or a failure: the reader gets to know.
            Ok(_) | Err(_) => true,
        }
    }

    /// Makes room for that many bytes, and some more if little comes at a time; false if there is no memory.
    fn reserve(&mut self, size: usize) -> bool {
        let before = self.bytes.capacity();
        if before - self.bytes.len() < size && self.bytes.try_reserve_exact(size.max(STEP)).is_err()
        {
            return false;
        }
        self.count(self.bytes.capacity() - before, 0);
        true
    }

    fn count(&self, more: usize, less: usize) {
        if let Some(budget) = &self.budget {
            budget.held.set((budget.held.get() + more).saturating_sub(less));
        }
    }

    /// The bytes and what they lack, for a message.
    pub fn take(&mut self) -> (Vec<u8>, Awaits) {
        self.count(0, self.bytes.capacity());
        (std::mem::take(&mut self.bytes), self.awaits)
    }
}

impl Drop for HeldInput {
    fn drop(&mut self) {
        self.count(0, self.bytes.capacity());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn held(bytes: &[u8], awaits: Awaits) -> HeldInput {
        HeldInput::new(bytes.to_vec(), awaits, &InputBudget::new(1000))
    }

    #[test]
    fn the_memory_of_what_is_held_is_counted() {
        let budget = InputBudget::new(1000);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut one = HeldInput::new(vec![1; 300], Awaits::Bytes(9000), &budget);
        let other = HeldInput::new(vec![1; 200], Awaits::More, &budget);
        assert_eq!(budget.held(), 500);
        theirs.write_all(b"x").unwrap();
        assert!(!one.is_due(ours.as_fd()));
        assert_eq!(budget.held(), 200 + one.bytes.capacity());
        let (bytes, awaits) = one.take();
        assert_eq!((bytes.len(), budget.held()), (301, 200));
        let one = HeldInput::new(bytes, awaits, &budget);
        drop(other);
        assert_eq!(budget.held(), one.bytes.capacity());
        drop(one);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn input_is_due_when_the_reader_can_use_it() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut input = held(b"GET / HTTP/1.1\r\n", Awaits::EmptyLine(1000));
        assert!(!input.is_due(ours.as_fd()), "nothing came");
        for (piece, due) in [("Host: a\r", false), ("\n", false), ("\r\nrest", true)] {
            theirs.write_all(piece.as_bytes()).unwrap();
            assert_eq!(input.is_due(ours.as_fd()), due, "{piece:?}");
        }
        assert_eq!(input.take().0, b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest");
    }

    #[test]
    fn input_is_due_at_the_end_and_when_it_is_too_much_for_a_message() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut input = held(&[b'a'; MAX_PAYLOAD - 20_000], Awaits::Bytes(1 << 40));
        theirs.write_all(&[b'b'; 30_000]).unwrap();
        while !input.is_due(ours.as_fd()) {}
        assert_eq!(input.take().0.len(), MAX_PAYLOAD);
        let mut input = held(b"a", Awaits::EmptyLine(1 << 40));
        drop(theirs);
        while !input.is_due(ours.as_fd()) {}
        assert_eq!(recv(ours.as_raw_fd(), &mut [0; 9], MsgFlags::MSG_DONTWAIT), Ok(0));
    }

    #[test]
    fn input_that_is_not_held_stays_with_the_system() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"x").unwrap();
        assert!(HeldInput::default().is_due(ours.as_fd()));
        assert!(held(b"a", Awaits::More).is_due(ours.as_fd()));
        assert_eq!(recv(ours.as_raw_fd(), &mut [0; 9], MsgFlags::MSG_DONTWAIT), Ok(1));
    }
}
