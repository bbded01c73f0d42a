//! The state of another process, as the kernel tells everybody.

use std::fs;

/// The state as a letter (proc_pid_stat(5)); none if the kernel does not tell.
pub fn letter(pid: i32) -> Option<u8> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may contain anything.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    text.get(end + 2).copied()
}

/// Whether a signal has stopped the process.
pub fn is_stopped(pid: i32) -> bool {
    letter(pid) == Some(b'T')
}
