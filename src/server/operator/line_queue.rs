//! Log lines that the output does not accept yet (pure).
//!
//! Lines that do not fit are dropped and counted. As soon as there is room, the queue writes the
//! count in their place.

use std::collections::VecDeque;
use std::io;

use crate::server::log_text;

/// The maximum size of the queue, in bytes.
const LIMIT: usize = 256 * 1024;

/// A queue of lines for an output.
#[derive(Debug, Default)]
pub struct LineQueue {
    entries: VecDeque<QueuedLine>,
    /// The total size of all entries, in bytes.
    size: usize,
    /// How many bytes of the first entry have been written.
    sent: usize,
    lost: u64,
    /// How many lines have been lost since the beginning.
    lost_ever: u64,
    /// The output preserves message boundaries, so lines need no line end.
    records: bool,
    /// The last line was written only partially.
    torn: bool,
    /// The last write failed: retry only for new lines.
    failed: bool,
}

#[derive(Debug)]
struct QueuedLine {
    text: Vec<u8>,
    /// How many lines it represents, for the count of lost lines.
    lines: u64,
    /// It tells of lost lines.
    is_note: bool,
    /// It begins by terminating a partially written line.
    mends: bool,
}

impl LineQueue {
    /// A queue for an output of records, such as the system log.
    pub fn of_records() -> Self {
        LineQueue { records: true, ..LineQueue::default() }
    }

    /// How many lines have been lost since the beginning.
    pub fn lost_ever(&self) -> u64 {
        self.lost_ever
    }

    /// The output has been replaced, so there is no partially written line in it.
    pub fn redirected(&mut self) {
        self.torn = false;
    }

    /// Adds a line and writes as much as possible. `note` formats the count of lost lines; `write`
    /// writes the beginning of a line and returns its length, without blocking. Returns whether
    /// lines are waiting.
    pub fn push(
        &mut self,
        line: Vec<u8>,
        note: impl Fn(u64) -> Vec<u8>,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> bool {
        self.flush(&mut write);
        // With a slow output, resume only when half of the queue is free.
        let resumes = self.lost == 0 || self.size <= LIMIT / 2;
        if resumes && self.size + line.len() <= LIMIT {
            self.tell(note);
            self.add(line, 1, false);
            self.flush(&mut write);
        } else {
            self.lost += 1;
            self.lost_ever += 1;
        }
        !self.entries.is_empty()
    }

    /// Writes as much as possible. Returns whether lines are waiting.
    pub fn retry(
        &mut self,
        note: impl Fn(u64) -> Vec<u8>,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> bool {
        self.flush(&mut write);
        if self.lost > 0 && self.entries.is_empty() && !self.failed {
            self.tell(note);
            self.flush(&mut write);
        }
        !self.entries.is_empty()
    }

    fn tell(&mut self, note: impl Fn(u64) -> Vec<u8>) {
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.add(note(lost), lost, true);
        }
    }

    fn add(&mut self, mut text: Vec<u8>, lines: u64, is_note: bool) {
        let mends = std::mem::take(&mut self.torn);
        if mends {
            text.insert(0, b'\n');
        }
        self.size += text.len();
        self.entries.push_back(QueuedLine { text, lines, is_note, mends });
    }

    fn flush(&mut self, write: &mut impl FnMut(&[u8]) -> io::Result<usize>) {
        while let Some(first) = self.entries.front() {
            let rest = first.text.get(self.sent..).unwrap_or_default();
            if rest.is_empty() {
                self.size -= first.text.len();
                self.sent = 0;
                self.entries.pop_front();
                continue;
            }
            match write(rest) {
                Ok(count) => {
                    self.sent += count;
                    self.failed = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The output is closed or the disk full: waiting does not help.
                Err(_) => {
                    self.failed = true;
                    self.torn = if self.sent > 0 { !self.records } else { first.mends };
                    let lines = self.entries.iter().filter(|entry| !entry.is_note);
                    self.lost_ever += lines.count() as u64;
                    self.lost += self.entries.drain(..).map(|entry| entry.lines).sum::<u64>();
                    (self.size, self.sent) = (0, 0);
                }
            }
        }
    }
}

/// The log line in place of lost lines.
pub fn lost_lines(count: u64) -> String {
    let (lines, were) = (log_text::counted(count, "line"), log_text::were(count));
    format!("({lines} of the log {were} lost here)")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that takes `room` bytes, then blocks, or fails.
    struct LimitedOutput {
        text: Vec<u8>,
        room: usize,
        error: io::ErrorKind,
    }

    impl LimitedOutput {
        fn new(room: usize, error: io::ErrorKind) -> Self {
            LimitedOutput { text: Vec::new(), room, error }
        }

        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(self.error.into());
            }
            self.room -= count;
            self.text.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
    }

    fn note(lost: u64) -> Vec<u8> {
        format!("<{lost}>\n").into_bytes()
    }

    #[test]
    fn lines_wait_for_an_output_that_blocks() {
        let mut output = LimitedOutput::new(3, io::ErrorKind::WouldBlock);
        let mut queue = LineQueue::default();
        for line in ["ab\n", "cd\n", "ef\n"] {
            queue.push(line.into(), note, |bytes| output.write(bytes));
        }
        assert_eq!(output.text, b"ab\n");
        output.room = 2;
        assert!(queue.retry(note, |bytes| output.write(bytes)));
        output.room = 100;
        assert!(!queue.retry(note, |bytes| output.write(bytes)));
        assert_eq!(output.text, b"ab\ncd\nef\n");
    }

    #[test]
    fn lines_beyond_the_limit_are_counted_where_they_are_missing() {
        let mut output = LimitedOutput::new(0, io::ErrorKind::WouldBlock);
        let mut queue = LineQueue::default();
        let line = vec![b'x'; LIMIT / 4];
        for _ in 0..6 {
            queue.push(line.clone(), note, |bytes| output.write(bytes));
        }
        // Too little to go on.
        output.room = LIMIT / 4;
        queue.push(b"y\n".to_vec(), note, |bytes| output.write(bytes));
        output.room = LIMIT * 2;
        queue.push(b"z\n".to_vec(), note, |bytes| output.write(bytes));
        assert_eq!(output.text[LIMIT..], *b"<3>\nz\n");
        assert_eq!(queue.lost_ever(), 3);
    }

    #[test]
    fn the_count_is_told_without_a_further_line() {
        let mut output = LimitedOutput::new(0, io::ErrorKind::WouldBlock);
        let mut queue = LineQueue::default();
        queue.push(vec![b'x'; LIMIT], note, |bytes| output.write(bytes));
        queue.push(b"y\n".to_vec(), note, |bytes| output.write(bytes));
        output.room = LIMIT * 2;
        assert!(!queue.retry(note, |bytes| output.write(bytes)));
        assert_eq!(output.text[LIMIT..], *b"<1>\n");
    }

    #[test]
    fn lines_that_an_output_refuses_are_counted_and_a_torn_one_is_ended() {
        let mut output = LimitedOutput::new(5, io::ErrorKind::StorageFull);
        let mut queue = LineQueue::default();
        for line in ["ab\n", "cd\n", "ef\n"] {
            queue.push(line.into(), note, |bytes| output.write(bytes));
            assert!(!queue.retry(note, |bytes| output.write(bytes)));
        }
        output.room = 100;
        queue.push("gh\n".into(), note, |bytes| output.write(bytes));
        assert_eq!(String::from_utf8(output.text).unwrap(), "ab\ncd\n<2>\ngh\n");
        assert_eq!(queue.lost_ever(), 2);
    }
}
