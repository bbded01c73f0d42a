//! What the process of the log reads: the queues of all workers, and commands of the supervisor.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::assembler::Assembler;
use crate::server::ipc::access_queue::AccessQueue;
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

/// The reader.
pub struct RecordReader {
    /// What workers tell.
    pub queue: Rc<AccessQueue>,
    commands: OwnedFd,
    assembler: Assembler,
    entry: Vec<u8>,
}

impl RecordReader {
    /// `commands`: from the supervisor, and closed when it and all workers are gone.
    pub fn new(queue: Rc<AccessQueue>, commands: OwnedFd) -> Self {
        RecordReader { queue, commands, assembler: Assembler::default(), entry: Vec::new() }
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

    /// Reads what is there; calls `complete` with each record that is complete.
    pub fn read(&mut self, mut complete: impl FnMut(&Opening<'_>, &Closing<'_>)) {
        let RecordReader { queue, assembler, entry, .. } = self;
        for number in 0..queue.len() {
            queue.drain(number, entry, |entry| {
                assembler.take(number as u64, entry, &mut complete);
            });
        }
    }

    /// Nothing more will come: completes what waits.
    pub fn finish(&mut self, complete: impl FnMut(&Opening<'_>, &Closing<'_>)) {
        self.assembler.finish(complete);
    }
}
