//! File locks that show whether a server is running.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Locks an open file exclusively, without waiting.
///
/// The lock belongs to the open file: forked processes share it, and it is released when the last
/// of them has closed the file. So a worker may drop its copy.
///
/// # Errors
/// `EWOULDBLOCK` if another process holds the lock, else what `flock(2)` reports.
pub fn lock(file: &File) -> io::Result<()> {
    loop {
        // SAFETY: `flock` takes a descriptor and flags, no memory.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The process that holds the lock of the file at `path`, if this user may see it: the one whose
/// descriptor of that file is locked.
pub fn holder(path: &Path) -> Option<u32> {
    let file = std::fs::metadata(path).ok()?;
    let holds = |process: &Path| -> Option<bool> {
        Some(std::fs::read_dir(process.join("fd")).ok()?.flatten().any(|entry| {
            let info = || std::fs::read_to_string(process.join("fdinfo").join(entry.file_name()));
            std::fs::metadata(entry.path())
                .is_ok_and(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
                && info().is_ok_and(|text| text.lines().any(|line| line.starts_with("lock:")))
        }))
    };
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        holds(&entry.path())?.then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_known_by_its_id() {
        let path = std::env::temp_dir().join(format!("moonbridge-lock-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        assert_eq!(holder(&path), None);
        lock(&file).unwrap();
        assert_eq!(holder(&path), Some(std::process::id()));
        std::fs::remove_file(&path).unwrap();
    }
}
