//! What the supervisor does in development about files that change: the script is run anew.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Instant;

use super::Supervisor;
use crate::sys::os::error_text;

impl Supervisor {
    /// Files may have changed.
    pub(super) fn hear_of_files(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            watcher.hear(Instant::now());
        }
    }

    /// A worker has loaded one more file.
    pub(super) fn watch_also(&mut self, path: Vec<u8>) {
        if let Some(watcher) = &mut self.watcher {
            watcher.add(OsString::from_vec(path).into());
        }
    }

    /// Asks for a reload if files have changed. Gives when to look again.
    pub(super) fn advance_watching(&mut self, now: Instant) -> Option<Instant> {
        if self.replaced {
            // Its successor has a watcher of its own.
            self.watcher = None;
        }
        let serves = self.shutdown.serves() && !self.is_candidate();
        let watcher = self.watcher.as_mut().filter(|_| serves)?;
        if let Some(errno) = watcher.take_trouble() {
            let reason = error_text::describe(errno as i32);
            self.log.notice(&format!("Not all files can be watched: {reason}"));
        }
        let changes = watcher.changes(now);
        let due = watcher.due();
        let Some(first) = changes.first() else { return due };
        let more = match changes.len() - 1 {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        self.log.notice(&format!("Changed: {}{more}", first.display()));
        self.ask_for_reload(None);
        due
    }
}
