//! The process that writes the access log. It runs no Lua; that its output blocks, or its disk is full, is of
//! no concern to anybody else.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::assembler::Assembler;
use super::format::Format;
use super::moment::Moment;
use super::output::Output;
use crate::server::ipc::access_queue::AccessQueue;
use crate::server::ipc::request_record::{Closing, Opening};
use crate::sys::os::calendar::{self, LocalTime};
use crate::sys::os::monotonic::MonotonicTime;
use crate::sys::os::process;

/// How long lines wait at most, in milliseconds.
const INTERVAL: u16 = 500;

/// A batch of so many bytes is written at once.
const BATCH: usize = 64 * 1024;

/// Microseconds.
const SECOND: u64 = 1_000_000;

/// On the pipe from the supervisor: the file has been renamed. The end of the pipe is the end of the log.
pub const REOPEN: u8 = b'r';

/// What the process needs.
pub struct Writer<'a> {
    /// What workers tell.
    pub queue: &'a AccessQueue,
    /// How a line looks.
    pub format: &'a Format,
    /// Where it goes.
    pub output: Output,
    /// From the supervisor, and closed when it and all workers are gone.
    pub commands: OwnedFd,
}

impl Writer<'_> {
    /// Writes until nobody can have anything to write.
    pub fn run(mut self) -> ! {
        let keep =
            [self.commands.as_raw_fd(), self.output.descriptor(), self.queue.wake().as_raw_fd()];
        process::close_all_but(&keep);
        let mut assembler = Assembler::default();
        let mut calendar = Calendar::default();
        let mut entry = Vec::new();
        loop {
            let ended = self.wait();
            self.write_what_is_there(&mut assembler, &mut calendar, &mut entry);
            if ended {
                break;
            }
        }
        let Writer { format, output, queue, .. } = &mut self;
        assembler.finish(|opening, closing| {
            write_line(format, output, queue, (opening, closing), &mut calendar);
        });
        self.flush();
        process::exit_now(0)
    }

    /// Waits until there may be something to write; whether nothing more will come.
    fn wait(&mut self) -> bool {
        let mut waited = [
            PollFd::new(self.queue.wake(), PollFlags::POLLIN),
            PollFd::new(self.commands.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut waited, INTERVAL);
        let commanded = waited[1].any().unwrap_or(false);
        self.queue.woken();
        if !commanded {
            return false;
        }
        let mut command = [0; 16];
        match nix::unistd::read(&self.commands, &mut command) {
            Ok(0) => true,
            Ok(count) => {
                if command[..count].contains(&REOPEN)
                    && let Err(error) = self.output.reopen()
                {
                    self.queue.complain(0, error.raw_os_error().unwrap_or(libc::EIO));
                }
                false
            }
            Err(Errno::EINTR | Errno::EAGAIN) => false,
            Err(_) => true,
        }
    }

    fn write_what_is_there(
        &mut self,
        assembler: &mut Assembler,
        calendar: &mut Calendar,
        entry: &mut Vec<u8>,
    ) {
        calendar.set();
        for queue in 0..self.queue.len() {
            let Writer { format, output, queue: queues, .. } = self;
            queues.drain(queue, entry, |entry| {
                assembler.take(queue as u64, entry, |opening, closing| {
                    write_line(format, output, queues, (opening, closing), calendar);
                });
            });
        }
        self.flush();
    }

    fn flush(&mut self) {
        flush(&mut self.output, self.queue);
    }
}

fn write_line(
    format: &Format,
    output: &mut Output,
    queue: &AccessQueue,
    record: (&Opening<'_>, &Closing<'_>),
    calendar: &mut Calendar,
) {
    let at = calendar.at(record.0.begun);
    if output.line(|line| format.write(record, at, line)) >= BATCH {
        flush(output, queue);
    }
}

fn flush(output: &mut Output, queue: &AccessQueue) {
    if let Err((lines, errno)) = output.flush() {
        queue.complain(lines, errno as i32);
    }
}

/// From the monotonic clock to the local time. The last second is kept.
struct Calendar {
    /// Microseconds from the start of the monotonic clock to that of the epoch.
    difference: u64,
    /// When the second begins, in microseconds since the epoch; a time that never comes: none is kept.
    second: u64,
    moment: Moment,
}

impl Default for Calendar {
    fn default() -> Self {
        Calendar { difference: 0, second: u64::MAX, moment: Moment::new(LocalTime::default()) }
    }
}

impl Calendar {
    /// Sets it by the system's clock.
    fn set(&mut self) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(0));
        self.difference = now.saturating_sub(MonotonicTime::now().nanoseconds() / 1000);
        self.second = u64::MAX;
    }

    fn at(&mut self, monotonic: u64) -> &Moment {
        let time = monotonic.wrapping_add(self.difference);
        let mut within = time.wrapping_sub(self.second);
        if within >= SECOND {
            within = time % SECOND;
            self.second = time - within;
            self.moment = Moment::new(calendar::local_time(time / SECOND));
        }
        self.moment.set_millisecond(within / 1000);
        &self.moment
    }
}
