//! What a service manager passes in the environment.

use std::ffi::OsString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes an environment variable: programs that this process starts must not see it.
pub fn take(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    // SAFETY: this library starts no threads and is called while a Lua program starts up, in the
    // only thread.
    unsafe { std::env::remove_var(name) };
    Some(value)
}

/// Takes ownership of a descriptor that this process was started with and that no other code uses.
/// `None` if there is no such descriptor.
pub fn adopt(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: `fcntl` takes numbers. The descriptor is open, and the service manager has opened it
    // for the reader of environment variables that only `take` returns, once.
    unsafe {
        if libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) == -1 {
            return None;
        }
        Some(OwnedFd::from_raw_fd(number))
    }
}
