//! What the process of the log reads: the queues of all workers, and commands of the supervisor.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::assembler::Assembler;
use crate::server::ipc::access_queue::{AccessQueue, QueueEntry};
use crate::server::ipc::request_record::{Closing, Opening};

/// How long records wait at most, in milliseconds.
const INTERVAL: u16 = 500;

/// On the pipe from the supervisor: the file has been renamed. The end of the pipe is the end of the log.
pub const REOPEN: u8 = b'r';

/// What the supervisor wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing.
    None,
    /// The file is to be opened anew.
    Reopen,
    /// Nobody can have anything more to say.
    End,
}

/// Where records go that are complete.
pub trait RecordSink {
    /// Takes a record.
    fn complete(&mut self, opening: &Opening<'_>, closing: &Closing<'_>);

    /// What was read so far is about to leave shared memory. Returns how many records it has whose lines are not
    /// written.
    fn release(&mut self) -> usize;
}

/// The reader.
pub struct RecordReader {
    /// What workers tell.
    pub queue: Rc<AccessQueue>,
    commands: OwnedFd,
    assembler: Assembler,
    entry: Vec<u8>,
    /// The queue whose turn it is.
    turn: usize,
}

impl RecordReader {
    /// `commands`: from the supervisor, and closed when it and all workers are gone.
    pub fn new(queue: Rc<AccessQueue>, commands: OwnedFd) -> Self {
        let (assembler, entry) = (Assembler::default(), Vec::new());
        RecordReader { queue, commands, assembler, entry, turn: 0 }
    }

    /// Its descriptors.
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.commands.as_raw_fd(), self.queue.wake().as_raw_fd()]
    }

    /// Waits until there may be something to read.
    pub fn wait(&mut self) -> Command {
        let mut waited = [
            PollFd::new(self.queue.wake(), PollFlags::POLLIN),
            PollFd::new(self.commands.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut waited, INTERVAL);
        let commanded = waited[1].any().unwrap_or(false);
        self.queue.woken();
        if !commanded {
            return Command::None;
        }
        let mut command = [0; 16];
        match nix::unistd::read(&self.commands, &mut command) {
            Ok(0) => Command::End,
            Ok(count) if command[..count].contains(&REOPEN) => Command::Reopen,
            Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => Command::None,
            Err(_) => Command::End,
        }
    }

    /// Reads what is there; calls `complete` of `sink` with each record that is complete.
    pub fn read(&mut self, sink: &RefCell<impl RecordSink>) {
        let RecordReader { queue, assembler, entry, .. } = self;
        let assembler = RefCell::new(assembler);
        for number in 0..queue.len() {
            let take = |entry: QueueEntry<'_>| {
                let mut sink = sink.borrow_mut();
                assembler.borrow_mut().take(number as u64, entry, |opening, closing| {
                    sink.complete(opening, closing);
                });
            };
            let release = || queue.hold(assembler.borrow().waiting() + sink.borrow_mut().release());
            queue.drain(number, entry, take, release);
        }
    }

    /// Reads one entry, and calls `complete` of `sink` with each record that is complete with it. False if none is
    /// there.
    pub fn read_one(&mut self, sink: &mut impl RecordSink) -> bool {
        let RecordReader { queue, assembler, entry, turn, .. } = self;
        let count = queue.len();
        for number in (*turn..count).chain(0..*turn) {
            let taken = queue.take_one(number, entry, |entry| {
                assembler
                    .take(number as u64, entry, |opening, closing| sink.complete(opening, closing));
                queue.hold(assembler.waiting() + sink.release());
            });
            if taken {
                *turn = number;
                return true;
            }
        }
        *turn = 0;
        false
    }

    /// The sink has so many records whose lines are not written.
    pub fn hold(&self, records: usize) {
        self.queue.hold(self.assembler.waiting() + records);
    }

    /// Nothing more will come: completes what waits.
    pub fn finish(&mut self, sink: &mut impl RecordSink) {
        self.assembler.finish(|opening, closing| sink.complete(opening, closing));
    }
}
