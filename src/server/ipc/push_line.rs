//! The way to the push process, from any process of the server: one socket pair, made before the first fork.
//!
//! Messages are atomic, so all may send on the same end. They wait in the kernel until the process reads them,
//! also while none runs.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;

use super::channel::Channel;
use super::push_message::{Publication, ToPush};

/// How many bytes of messages the kernel is asked to take: what may be published, however short the messages are, and more.
/// If this process may not have so much, less can be published at once.
const BUFFER: usize = 64 * 1024 * 1024;

/// How long a message may wait for room, in milliseconds.
const ROOM_WITHIN: u16 = 100;

/// Both ends in the first process; in others the one for sending.
pub struct PushLine {
    sender: Channel,
    receiver: Option<Channel>,
    /// The last publication found no room in time.
    is_full: Cell<bool>,
}

thread_local! {
    static LINE: RefCell<Option<Rc<PushLine>>> = const { RefCell::new(None) };
}

impl PushLine {
    /// A new one.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> Result<Self, Errno> {
        let (sender, receiver) = Channel::pair()?;
        sender.enlarge(BUFFER);
        Ok(PushLine { sender, receiver: Some(receiver), is_full: Cell::default() })
    }

    /// The one of the first process, in a later generation.
    pub fn of(sender: OwnedFd) -> Self {
        PushLine { sender: Channel::from(sender), receiver: None, is_full: Cell::default() }
    }

    /// This process and those that it forks send on this line.
    pub fn set(line: Option<Rc<PushLine>>) {
        LINE.set(line);
    }

    /// This process, which was forked, only sends.
    pub fn close_receiver() {
        LINE.with_borrow_mut(|line| {
            if let Some(line) = line.as_mut().and_then(Rc::get_mut) {
                line.receiver = None;
            }
        });
    }

    /// The line of this process, in a server.
    pub fn current() -> Option<Rc<PushLine>> {
        LINE.with_borrow(Option::clone)
    }

    /// The end where messages arrive.
    pub fn receiver(&self) -> Option<&Channel> {
        self.receiver.as_ref()
    }

    /// The end for sending, for the next generation.
    pub fn sender(&self) -> BorrowedFd<'_> {
        self.sender.as_fd()
    }

    /// Sends a message with duplicates of the descriptors. If there is no room it waits, but not for long.
    ///
    /// # Errors
    /// What the kernel reports; `EAGAIN` if the process's queue is full.
    pub fn send(&self, message: &ToPush, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        match self.sender.send(message, descriptors) {
            Err(Errno::EAGAIN) => {
                self.sender.wait_for_room(ROOM_WITHIN);
                self.sender.send(message, descriptors)
            }
            outcome => outcome,
        }
    }

    /// Publishes a message. Who publishes again and again without room has waited once for it.
    ///
    /// # Errors
    /// As for [`PushLine::send`].
    pub fn publish(
        &self,
        message: Publication,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Errno> {
        let message = ToPush::Publish(message);
        let outcome = match self.is_full.get() {
            true => self.sender.send(&message, descriptors),
            false => self.send(&message, descriptors),
        };
        self.is_full.set(outcome == Err(Errno::EAGAIN));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::Inbox;
    use super::*;

    #[test]
    fn publishing_waits_for_room_once() {
        let (sender, receiver) = Channel::pair().unwrap();
        let line = PushLine { sender, receiver: Some(receiver), is_full: Cell::default() };
        let publish = || line.publish(Publication::default(), &[]);
        while publish().is_ok() {}
        assert!(line.is_full.get(), "the next one does not wait");
        let (receiver, mut inbox) = (line.receiver().unwrap(), Inbox::default());
        receiver.receive::<ToPush>(&mut inbox).unwrap();
        assert_eq!((publish(), line.is_full.get()), (Ok(()), false));
    }
}
