//! The error that ended a connection in both directions, as a write has learned it (pure): the system tells it
//! only once, and lets reads see an orderly end afterwards.

use std::io;

use super::input::Fill;

/// The errno, if there was such an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loss(Option<i32>);

impl Loss {
    /// A write has failed with this error.
    pub fn note(&mut self, errno: Option<i32>) {
        self.0 = errno.filter(|errno| ends_both(*errno)).or(self.0);
    }

    /// What a read finds.
    pub fn correct(self, found: io::Result<Fill>) -> io::Result<Fill> {
        match (found, self.0) {
            (Ok(Fill::Eof), Some(errno)) => Err(io::Error::from_raw_os_error(errno)),
            (found, _) => found,
        }
    }
}

/// Whether a failed write tells the end of the whole connection: not if only the peer has stopped
/// reading, or memory is short.
fn ends_both(errno: i32) -> bool {
    !matches!(errno, libc::EPIPE | libc::ENOBUFS | libc::ENOMEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_reports_the_error_of_a_write_instead_of_the_end() {
        let mut loss = Loss::default();
        loss.note(Some(libc::EPIPE));
        assert!(matches!(loss.correct(Ok(Fill::Eof)), Ok(Fill::Eof)));
        loss.note(Some(libc::ECONNRESET));
        loss.note(Some(libc::EPIPE));
        assert!(matches!(loss.correct(Ok(Fill::Block)), Ok(Fill::Block)));
        let error = loss.correct(Ok(Fill::Eof)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    }
}
