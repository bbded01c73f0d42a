//! Descriptors inherited from the process that started this one: a daemon must not keep them.

use std::os::fd::RawFd;
use std::sync::OnceLock;

use super::process::close_for_good;

/// A descriptor and its file: its number may be reused for another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    number: RawFd,
    file: (libc::dev_t, libc::ino_t),
}

static LEFT: OnceLock<Vec<Left>> = OnceLock::new();

/// Records which descriptors are open. Call it early; only the first call counts.
pub fn record() {
    LEFT.get_or_init(|| open_numbers().into_iter().filter_map(inspect).collect());
}

/// Closes the recorded descriptors, except those closed or adopted since. Code that still uses such
/// a number finds `/dev/null` there.
pub fn close() {
    let left = LEFT.get().into_iter().flatten();
    close_for_good(
        left.filter(|left| inspect(left.number) == Some(**left)).map(|left| left.number),
    );
}

/// The numbers of all open descriptors, and possibly others.
fn open_numbers() -> Vec<RawFd> {
    let listed = |folder: std::fs::ReadDir| {
        folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    };
    std::fs::read_dir("/proc/self/fd").map_or_else(|_| (3..1024).collect(), listed)
}

/// The file of a descriptor above 2, if it may have been inherited: a close-on-exec descriptor was
/// opened by this process.
fn inspect(number: RawFd) -> Option<Left> {
    // SAFETY: `fcntl` and `fstat` refuse numbers that are no descriptors; all-zero is a valid `stat`.
    unsafe {
        let flags = libc::fcntl(number, libc::F_GETFD);
        let mut file: libc::stat = std::mem::zeroed();
        let is_left = number > 2 && flags != -1 && flags & libc::FD_CLOEXEC == 0;
        (is_left && libc::fstat(number, &mut file) == 0)
            .then_some(Left { number, file: (file.st_dev, file.st_ino) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_this_process_has_opened_was_not_left_to_it() {
        let file = File::open("/proc/self/stat").unwrap();
        let number = file.as_raw_fd();
        assert!(open_numbers().contains(&number));
        assert_eq!(inspect(number), None);
        // SAFETY: the descriptor is open.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
        let left = inspect(number).unwrap();
        assert_eq!(left.number, number);
        drop(file);
        assert_ne!(inspect(number), Some(left));
    }
}
