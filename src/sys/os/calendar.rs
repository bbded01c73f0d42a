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

/// A time in the local time zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalTime {
    /// The year.
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 60.
    pub second: u32,
    /// Minutes east of UTC.
    pub offset: i32,
}

/// The local time that many seconds after 1970 began in UTC.
pub fn local_time(seconds: u64) -> LocalTime {
    let seconds = libc::time_t::try_from(seconds).unwrap_or(0);
    // SAFETY: `localtime_r` fills the zeroed structure it is given.
    let parts = unsafe {
        let mut parts: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&seconds, &mut parts).is_null() {
            return LocalTime::default();
        }
        parts
    };
    let number = |part: libc::c_int| part.unsigned_abs();
    LocalTime {
        year: number(parts.tm_year.saturating_add(1900)),
        month: number(parts.tm_mon) + 1,
        day: number(parts.tm_mday),
        hour: number(parts.tm_hour),
        minute: number(parts.tm_min),
        second: number(parts.tm_sec),
        offset: (parts.tm_gmtoff / 60) as i32,
    }
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
