//! The process that writes the access log. It runs no Lua; that its output blocks, or its disk is full, is of
//! no concern to anybody else.

use super::format::{LineFormat, LineWriter};
use super::output::AccessLogOutput;
use super::reader::{Command, RecordReader};
use super::wall_clock::WallClock;
use crate::server::ipc::access_queue::AccessQueue;
use crate::server::ipc::request_record::{Closing, Opening};
use crate::sys::os::process;

/// The size of a batch that is written at once: the kernel takes a quarter less time for a byte than with 64 KiB.
const BATCH: usize = 256 * 1024;

/// What the process needs.
pub struct Writer<'a> {
    /// What it writes.
    pub reader: RecordReader,
    /// How a line looks.
    pub format: &'a LineFormat,
    /// Where it goes.
    pub output: AccessLogOutput,
}

impl Writer<'_> {
    /// Writes until nobody can have anything to write.
    pub fn run(mut self) -> ! {
        let [commands, wake] = self.reader.descriptors();
        process::close_all_but(&[commands, wake, self.output.descriptor()]);
        let (mut clock, mut lines) = (WallClock::default(), LineWriter::new(self.format));
        let queue = self.reader.queue.clone();
        loop {
            let command = self.reader.wait();
            if command == Command::Reopen
                && let Err(error) = self.output.reopen()
            {
                queue.complain(0, error.raw_os_error().unwrap_or(libc::EIO));
            }
            clock.set();
            let Writer { reader, output, .. } = &mut self;
            let mut write = |opening: &Opening<'_>, closing: &Closing<'_>| {
                let at = clock.at(opening.begun);
                if output.line(|line| lines.write((opening, closing), at, line)) >= BATCH {
                    flush(output, &queue);
                }
            };
            reader.read(&mut write);
            if command == Command::End {
                reader.finish(write);
            }
            flush(output, &queue);
            if command == Command::End {
                process::exit_now(0)
            }
        }
    }
}

fn flush(output: &mut AccessLogOutput, queue: &AccessQueue) {
    if let Err((lines, errno)) = output.flush() {
        queue.complain(lines, errno as i32);
    }
}
