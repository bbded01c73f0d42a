//! Wall-clock time as text, in the local time zone.

use std::ffi::CStr;

/// The current local time as `YYYY-MM-DD HH:MM:SS ZONE`.
pub fn local_timestamp() -> String {
    let mut buffer = [0u8; 64];
    // SAFETY: `localtime_r` fills the zeroed structure it is given; `strftime` writes at most
    // `buffer.len()` bytes, the terminating zero included, and returns 0 if they do not suffice.
    let length = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&now, &mut parts).is_null() {
            return String::new();
        }
        let format: &CStr = c"%Y-%m-%d %H:%M:%S %Z";
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &parts)
    };
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}
