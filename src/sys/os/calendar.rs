//! Wall-clock time as text, in the local time zone.

use std::ffi::CStr;

/// The current local time as `YYYY-MM-DD HH:MM:SS ZONE`.
pub fn local_timestamp() -> String {
    local(|_| c"%Y-%m-%d %H:%M:%S %Z")
}

/// The current local time in the format of the system log (RFC 3164, 4.1.2): `Mmm dd hh:mm:ss`.
pub fn syslog_timestamp() -> String {
    // The names of months are English in every locale.
    const FORMATS: [&CStr; 12] = [
        c"Jan %e %H:%M:%S",
        c"Feb %e %H:%M:%S",
        c"Mar %e %H:%M:%S",
        c"Apr %e %H:%M:%S",
        c"May %e %H:%M:%S",
        c"Jun %e %H:%M:%S",
        c"Jul %e %H:%M:%S",
        c"Aug %e %H:%M:%S",
        c"Sep %e %H:%M:%S",
        c"Oct %e %H:%M:%S",
        c"Nov %e %H:%M:%S",
        c"Dec %e %H:%M:%S",
    ];
    local(|now| FORMATS[now.tm_mon.clamp(0, 11) as usize])
}

fn local(format: impl FnOnce(&libc::tm) -> &'static CStr) -> String {
    let mut buffer = [0u8; 64];
    // SAFETY: `localtime_r` fills the zeroed structure it is given; `strftime` writes at most
    // `buffer.len()` bytes, the terminating zero included, and returns 0 if they do not suffice.
    let length = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&now, &mut parts).is_null() {
            return String::new();
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format(&parts).as_ptr(), &parts)
    };
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}
