//! In development, files that change are a reason to reload.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Instant;

use crate::server::development::watcher::Watcher;
use crate::server::operator::log::Log;
use crate::sys::os::error_text;

/// The files of the application, if they are watched.
pub struct Watching(Option<Watcher>);

impl Watching {
    /// Files are watched, or not.
    pub fn new(watcher: Option<Watcher>) -> Self {
        Watching(watcher)
    }

    /// Files may have changed.
    pub fn hear(&mut self) {
        if let Some(watcher) = &mut self.0 {
            watcher.hear(Instant::now());
        }
    }

    /// A worker has loaded one more file.
    pub fn add(&mut self, path: Vec<u8>) {
        if let Some(watcher) = &mut self.0 {
            watcher.add(OsString::from_vec(path).into());
        }
    }

    /// What has changed so far does not count: files are loaded as they are now.
    pub fn forget(&mut self) {
        if let Some(watcher) = &mut self.0 {
            watcher.forget();
        }
    }

    /// Whether files have changed. Tells the log which.
    pub fn has_changed(&mut self, log: &mut Log, now: Instant) -> bool {
        let Some(watcher) = &mut self.0 else { return false };
        if let Some(errno) = watcher.take_trouble() {
            let reason = error_text::describe(errno as i32);
            log.notice(&format!("Not all files can be watched: {reason}"));
        }
        let changes = watcher.changes(now);
        let Some(first) = changes.first() else { return false };
        let more = match changes.len() - 1 {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        log.notice(&format!("Changed: {}{more}", first.display()));
        true
    }

    /// When to look again.
    pub fn due(&self) -> Option<Instant> {
        self.0.as_ref()?.due()
    }
}
