//! The process that writes the access log. It runs no Lua; that its output blocks, or its disk is full, is of
//! no concern to anybody else.

use super::format::LineFormat;
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
        let mut clock = WallClock::default();
        let queue = self.reader.queue.clone();
        loop {
            let command = self.reader.wait();
            if command == Command::Reopen
                && let Err(error) = self.output.reopen()
            {
                queue.complain(0, error.raw_os_error().unwrap_or(libc::EIO));
            }
            clock.set();
            let Writer { reader, format, output } = &mut self;
            reader.read(|opening, closing| {
                write_line(format, output, &queue, (opening, closing), &mut clock);
            });
            flush(output, &queue);
            if command == Command::End {
                reader.finish(|opening, closing| {
                    write_line(format, output, &queue, (opening, closing), &mut clock);
                });
                flush(output, &queue);
                process::exit_now(0)
            }
        }
    }
}

fn write_line(
    format: &LineFormat,
    output: &mut AccessLogOutput,
    queue: &AccessQueue,
    record: (&Opening<'_>, &Closing<'_>),
    clock: &mut WallClock,
) {
    let at = clock.at(record.0.begun);
    if output.line(|line| format.write(record, at, line)) >= BATCH {
        flush(output, queue);
    }
}

fn flush(output: &mut AccessLogOutput, queue: &AccessQueue) {
    if let Err((lines, errno)) = output.flush() {
        queue.complain(lines, errno as i32);
    }
}
