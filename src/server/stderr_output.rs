//! Standard error as the log writes to it: it may be a pipe that nobody empties, or whose other end
//! is gone, and neither must stop the supervisor.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::pipe;

/// How long a line waits for a pipe that is full.
const PATIENCE: Duration = Duration::from_millis(100);

/// Standard error, and how many lines it did not take.
#[derive(Debug, Default)]
pub struct StderrOutput {
    lost: u64,
}

impl StderrOutput {
    /// Writes a line. If that would block for long it is dropped, and so are further ones at once,
    /// until there is room again; then their number is told.
    pub fn line(&mut self, line: &str) {
        if self.lost > 0 && is_writable(Duration::ZERO) {
            let note = format!("({} lines of the log were lost here)\n", self.lost);
            self.lost = 0;
            write(&note, PATIENCE);
        }
        let patience = if self.lost > 0 { Duration::ZERO } else { PATIENCE };
        if !write(line, patience) {
            self.lost += 1;
        }
    }
}

/// True if all was written, or cannot ever be.
fn write(text: &str, patience: Duration) -> bool {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        if !is_writable(patience) {
            return false;
        }
        match pipe::write(std::io::stderr().as_fd(), &[IoSlice::new(rest)]) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            // Closed, full disk: this line is lost and nothing else.
            Err(_) => return true,
        }
    }
    true
}

fn is_writable(patience: Duration) -> bool {
    let stderr = std::io::stderr();
    let mut waited = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    poll(&mut waited, timeout).is_ok_and(|count| count > 0)
}
