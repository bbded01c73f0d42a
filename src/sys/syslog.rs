//! The system log.

use std::ffi::{CStr, CString};

/// A connection to the system log; closed when dropped.
pub struct Syslog {
    /// The C library keeps the pointer given to `openlog`, so the name must live as long.
    _ident: CString,
    facility: libc::c_int,
}

impl Syslog {
    /// Opens the system log with a program name and a facility (a `LOG_*` constant).
    pub fn open(ident: CString, facility: libc::c_int) -> Self {
        // SAFETY: `ident` outlives the connection: it is owned by the value that closes it.
        unsafe { libc::openlog(ident.as_ptr(), libc::LOG_PID, facility) };
        Syslog { _ident: ident, facility }
    }

    /// Writes one line with priority "notice".
    pub fn write(&self, line: &CStr) {
        let priority = self.facility | libc::LOG_NOTICE;
        // SAFETY: the format consumes exactly the one string argument.
        unsafe { libc::syslog(priority, c"%s".as_ptr(), line.as_ptr()) };
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        // SAFETY: `closelog` has no preconditions.
        unsafe { libc::closelog() };
    }
}
