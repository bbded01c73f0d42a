//! A worker's standard error: a pipe that the supervisor reads line by line.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{dup2_stderr, pipe2};

/// The maximum length of a line, in bytes.
pub const MAX_LINE: usize = 1024;

/// How much to read before other workers get their turn.
const READ_AT_ONCE: usize = 16 * 1024;

/// The pipe: initially both ends, later in the supervisor only the reader.
pub struct StderrLines {
    reader: std::fs::File,
    writer: Option<OwnedFd>,
    partial: Vec<u8>,
    /// The rest of an overlong line is being skipped.
    truncating: bool,
    total: u64,
}

impl StderrLines {
    /// Makes the pipe.
    pub fn new() -> Result<Self, Errno> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(StderrLines {
            reader: reader.into(),
            writer: Some(writer),
            partial: Vec::new(),
            truncating: false,
            total: 0,
        })
    }

    /// In the new worker: redirects standard error to the pipe.
    pub fn become_stderr(self) {
        if let Some(writer) = &self.writer {
            let _ = dup2_stderr(writer);
        }
    }

    /// The writing end, for a process that is to have it as its standard error.
    ///
    /// # Errors
    /// It was taken before.
    pub fn take_writer(&mut self) -> io::Result<OwnedFd> {
        self.writer.take().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// In the supervisor: closes the writing end.
    pub fn keep_reader(&mut self) {
        self.writer = None;
    }

    /// The end to wait for.
    pub fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Reads available input and passes on each complete line; returns true at the end of the
    /// stream.
    pub fn read(&mut self, mut line: impl FnMut(&[u8], bool)) -> bool {
        let mut buffer = [0u8; READ_AT_ONCE];
        match self.reader.read(&mut buffer) {
            Ok(0) => true,
            Ok(length) => {
                self.total += length as u64;
                self.split(&buffer[..length], &mut line);
                false
            }
            Err(error) => {
                !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
            }
        }
    }

    /// Bytes read so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Passes on an incomplete last line.
    pub fn flush(&mut self, mut line: impl FnMut(&[u8], bool)) {
        if !self.partial.is_empty() {
            line(&std::mem::take(&mut self.partial), false);
        }
        self.truncating = false;
    }

    fn split(&mut self, mut bytes: &[u8], line: &mut impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let (end, next) = match memchr::memchr(b'\n', bytes) {
                Some(at) => (at, at + 1),
                None => (bytes.len(), bytes.len()),
            };
            if !self.truncating {
                let room = MAX_LINE - self.partial.len();
                self.partial.extend_from_slice(&bytes[..end.min(room)]);
                if end > room {
                    line(&std::mem::take(&mut self.partial), true);
                    self.truncating = true;
                }
            }
            if next > end {
                if !self.truncating {
                    line(&std::mem::take(&mut self.partial), false);
                }
                self.truncating = false;
            }
            bytes = &bytes[next..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut reader = StderrLines::new().unwrap();
        let mut seen = Vec::new();
        for chunk in chunks {
            reader.split(chunk, &mut |line, cut| seen.push((line.to_vec(), cut)));
        }
        reader.flush(|line, cut| seen.push((line.to_vec(), cut)));
        seen
    }

    #[test]
    fn lines_are_put_together_and_a_last_line_without_newline_counts() {
        let expected = vec![(b"ab".to_vec(), false), (b"".to_vec(), false), (b"c".to_vec(), false)];
        assert_eq!(lines(&[b"a", b"b\n\nc"]), expected);
    }

    #[test]
    fn a_line_over_the_limit_is_cut_once_and_its_rest_is_skipped() {
        let long = vec![b'x'; MAX_LINE + 1];
        let seen = lines(&[&long, &long, b"\nnext\n"]);
        assert_eq!(seen, vec![(vec![b'x'; MAX_LINE], true), (b"next".to_vec(), false)]);
        let exact = vec![b'y'; MAX_LINE];
        assert_eq!(lines(&[&exact, b"\n"]), vec![(exact, false)]);
    }
}
