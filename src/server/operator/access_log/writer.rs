//! The process that writes the access log. It runs no Lua; that its output blocks, or its disk is full, is of
//! no concern to anybody else.

use std::cell::RefCell;
use std::rc::Rc;

use super::format::{LineFormat, LineWriter};
use super::output::AccessLogOutput;
use super::reader::{Command, RecordReader, RecordSink};
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

/// Makes lines of records, and writes them.
struct Lines<'a> {
    output: AccessLogOutput,
    writer: LineWriter<'a>,
    clock: WallClock,
    queue: Rc<AccessQueue>,
    /// How many bytes and lines are not written.
    unwritten: (usize, usize),
}

impl Writer<'_> {
    /// Writes until nobody can have anything to write.
    pub fn run(self) -> ! {
        let Writer { mut reader, format, output } = self;
        let [commands, wake] = reader.descriptors();
        process::close_all_but(&[commands, wake, output.descriptor()]);
        let lines = RefCell::new(Lines {
            output,
            writer: LineWriter::new(format),
            clock: WallClock::new(),
            queue: reader.queue.clone(),
            unwritten: (0, 0),
        });
        loop {
            let command = reader.wait();
            lines.borrow_mut().begin(command);
            reader.read(&lines);
            let mut lines = lines.borrow_mut();
            if command == Command::End {
                reader.finish(&mut *lines);
            }
            lines.flush();
            reader.hold(0);
            if command == Command::End {
                process::exit_now(0)
            }
        }
    }
}

impl Lines<'_> {
    fn begin(&mut self, command: Command) {
        if command == Command::Reopen
            && let Err(error) = self.output.reopen()
        {
            self.queue.complain(0, error.raw_os_error().unwrap_or(libc::EIO));
        }
        self.clock.set();
    }

    fn flush(&mut self) {
        if let Err((lines, errno)) = self.output.flush() {
            self.queue.complain(lines, errno as i32);
        }
        self.unwritten = (0, 0);
    }
}

impl RecordSink for Lines<'_> {
    fn complete(&mut self, opening: &Opening<'_>, closing: &Closing<'_>) {
        let Lines { output, writer, clock, unwritten, .. } = self;
        let at = clock.at(opening.begun);
        let bytes = output.line(|line| writer.write((opening, closing), at, line));
        *unwritten = (bytes, unwritten.1 + 1);
    }

    fn release(&mut self) -> usize {
        if self.unwritten.0 >= BATCH {
            self.flush();
        }
        self.unwritten.1
    }
}
