//! Where the log writes to may be a pipe that nobody empties, or whose other end is gone, or a full
//! disk; none of these must stop the supervisor.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::pipe;

/// How long a line waits for a pipe that is full.
const PATIENCE: Duration = Duration::from_millis(100);

/// How many lines an output did not take.
#[derive(Debug, Default)]
pub struct PatientOutput {
    lost: u64,
}

impl PatientOutput {
    /// Writes a line. If that would block for long it is dropped, and so are further ones at once,
    /// until there is room again; then their number is told.
    pub fn line(&mut self, output: BorrowedFd<'_>, line: &str) {
        if self.lost > 0 && is_writable(output, Duration::ZERO) {
            let note = format!("({} lines of the log were lost here)\n", self.lost);
            self.lost = 0;
            write(output, &note, PATIENCE);
        }
        let patience = if self.lost > 0 { Duration::ZERO } else { PATIENCE };
        if !write(output, line, patience) {
            self.lost += 1;
        }
    }
}

/// True if all was written, or cannot ever be.
fn write(output: BorrowedFd<'_>, text: &str, patience: Duration) -> bool {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        if !is_writable(output, patience) {
            return false;
        }
        match pipe::write(output, &[IoSlice::new(rest)]) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            // Closed, full disk: this line is lost and nothing else.
            Err(_) => return true,
        }
    }
    true
}

fn is_writable(output: BorrowedFd<'_>, patience: Duration) -> bool {
    let mut waited = [PollFd::new(output, PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    poll(&mut waited, timeout).is_ok_and(|count| count > 0)
}
