//! Notices that files change: those that the application has loaded, and all in given folders.
//!
//! The kernel tells of directory entries (inotify(7)), not of files: an editor may write another file and rename
//! it. What it tells is only a reason to look. Whether something has changed is decided by comparing, when
//! nothing has happened for a moment.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::snapshot::{Snapshot, counts};
use super::trail;

/// How long nothing must have changed: an editor saves several files within this time.
const QUIET: Duration = Duration::from_millis(100);

/// The longest time from the first event on.
const LONGEST: Duration = Duration::from_secs(1);

/// Watches files.
#[derive(Debug)]
pub struct Watcher {
    inotify: Inotify,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    /// The watched directories by their paths, until what is at these may be something else.
    watches: HashMap<PathBuf, WatchDescriptor>,
    /// The entries of interest,
    names: HashSet<(WatchDescriptor, OsString)>,
    /// and the directories of which all are.
    whole: HashSet<WatchDescriptor>,
    /// What was there last.
    snapshot: Snapshot,
    /// Since when something happens, and when to look at it.
    pending: Option<(Instant, Instant)>,
    /// Why not everything is watched, until that was told.
    trouble: Option<Errno>,
}

impl Watcher {
    /// Watches these folders, and what is in them. The paths are absolute.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn new(folders: Vec<PathBuf>) -> io::Result<Self> {
        let mut watcher = Watcher {
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
            files: Vec::new(),
            folders,
            watches: HashMap::new(),
            names: HashSet::new(),
            whole: HashSet::new(),
            snapshot: Snapshot::default(),
            pending: None,
            trouble: None,
        };
        watcher.snapshot = watcher.take_snapshot();
        Ok(watcher)
    }

    /// Watches one more file, by its absolute path; it need not exist. The caller has not read it yet.
    pub fn add(&mut self, path: PathBuf) {
        if !self.files.contains(&path) {
            self.watch_way(&path);
            self.snapshot.add(&path);
            self.files.push(path);
        }
    }

    /// Takes what the kernel tells.
    pub fn hear(&mut self, now: Instant) {
        while let Ok(events) = self.inotify.read_events() {
            if events.iter().any(|event| self.concerns(event)) {
                let (since, _) = self.pending.unwrap_or((now, now));
                self.pending = Some((since, (now + QUIET).min(since + LONGEST)));
            }
        }
    }

    fn concerns(&self, event: &InotifyEvent) -> bool {
        let lost = AddWatchFlags::IN_Q_OVERFLOW | AddWatchFlags::IN_IGNORED;
        let Some(name) = &event.name else { return event.mask.intersects(lost) };
        self.whole.contains(&event.wd) && counts(name)
            || self.names.contains(&(event.wd, name.clone()))
    }

    /// When to ask for [`Watcher::changes`].
    pub fn due(&self) -> Option<Instant> {
        self.pending.map(|(_, due)| due)
    }

    /// What has changed, if it is time to look.
    pub fn changes(&mut self, now: Instant) -> Vec<PathBuf> {
        let Some((since, _)) = self.pending.take_if(|(_, due)| *due <= now) else {
            return Vec::new();
        };
        let found = self.take_snapshot();
        // A program that replaces a file may have removed it before.
        if self.snapshot.has_lost(&found) && now < since + LONGEST {
            self.pending = Some((since, now + QUIET));
            return Vec::new();
        }
        let changes = self.snapshot.changes(&found);
        self.snapshot = found;
        changes
    }

    /// What has happened until now is of no interest.
    pub fn forget(&mut self) {
        self.hear(Instant::now());
        self.pending = None;
        self.snapshot = self.take_snapshot();
    }

    /// Why not everything is watched; told once.
    pub fn take_trouble(&mut self) -> Option<Errno> {
        self.trouble.take()
    }

    /// What is there now. Watches what may have come into being.
    fn take_snapshot(&mut self) -> Snapshot {
        self.watches.clear();
        let mut snapshot = Snapshot::default();
        for path in self.files.clone() {
            self.watch_way(&path);
            snapshot.add(&path);
        }
        for folder in self.folders.clone() {
            self.watch_way(&folder);
            snapshot.add_folder(&folder, &mut |folder| {
                let watch = self.watch(folder);
                self.whole.extend(watch);
            });
        }
        snapshot
    }

    fn watch_way(&mut self, path: &Path) {
        for (folder, name) in trail::entries(path) {
            if let Some(watch) = self.watch(&folder) {
                self.names.insert((watch, name));
            }
        }
    }

    fn watch(&mut self, folder: &Path) -> Option<WatchDescriptor> {
        if let Some(watch) = self.watches.get(folder) {
            return Some(*watch);
        }
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ONLYDIR;
        match self.inotify.add_watch(folder, events) {
            Ok(watch) => {
                self.watches.insert(folder.to_owned(), watch);
                Some(watch)
            }
            // It may be gone again, or be a folder of which this user only knows what is in it.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => None,
            Err(errno) => {
                self.trouble = Some(errno);
                None
            }
        }
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        folder: PathBuf,
        watcher: Watcher,
    }

    impl Case {
        fn new(name: &str, folders: &[&str], files: &[&str]) -> Case {
            let folder =
                std::env::temp_dir().join(format!("mb-watch-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("app.lua"), "1").unwrap();
            let folders = folders.iter().map(|name| folder.join(name)).collect();
            let mut watcher = Watcher::new(folders).unwrap();
            files.iter().for_each(|name| watcher.add(folder.join(name)));
            Case { folder, watcher }
        }

        /// What has changed when there was time enough, by names in the folder.
        fn changes(&mut self) -> Vec<String> {
            let now = Instant::now();
            self.watcher.hear(now);
            let changes = self.watcher.changes(now + 2 * LONGEST);
            let name =
                |path: &PathBuf| path.strip_prefix(&self.folder).unwrap().display().to_string();
            changes.iter().map(name).collect()
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.folder.join(name), text).unwrap();
        }
    }

    impl Drop for Case {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_written_or_replaced_has_changed() {
        let mut case = Case::new("file", &[], &["app.lua", "later/a.lua"]);
        case.write("other.lua", "1");
        assert_eq!((case.changes().len(), case.watcher.due()), (0, None));
        case.write("app.lua", "22");
        assert_eq!(case.changes(), ["app.lua"]);
        case.write("new", "333");
        std::fs::rename(case.folder.join("new"), case.folder.join("app.lua")).unwrap();
        assert_eq!(case.changes(), ["app.lua"]);
        std::fs::create_dir(case.folder.join("later")).unwrap();
        assert!(case.changes().is_empty());
        case.write("later/a.lua", "1");
        assert_eq!(case.changes(), ["later/a.lua"]);
    }

    #[test]
    fn a_symbolic_link_that_leads_elsewhere_is_a_change() {
        let mut case = Case::new("link", &[], &["current/a.lua"]);
        for release in ["1", "2"] {
            std::fs::create_dir(case.folder.join(release)).unwrap();
            case.write(&format!("{release}/a.lua"), release);
            std::os::unix::fs::symlink(release, case.folder.join("new")).unwrap();
            std::fs::rename(case.folder.join("new"), case.folder.join("current")).unwrap();
            assert_eq!(case.changes(), ["current/a.lua"]);
        }
    }

    #[test]
    fn folders_are_watched_with_what_is_created_in_them() {
        let mut case = Case::new("folder", &["views"], &[]);
        std::fs::create_dir(case.folder.join("views")).unwrap();
        assert!(case.changes().is_empty());
        std::fs::create_dir_all(case.folder.join("views/a/b")).unwrap();
        case.write("views/a/b/page", "1");
        assert_eq!(case.changes(), ["views/a/b/page"]);
        case.write("views/a/b/page", "22");
        assert_eq!(case.changes(), ["views/a/b/page"]);
        case.write("views/a/.page.swp", "1");
        assert_eq!((case.changes().len(), case.watcher.due()), (0, None));
        std::fs::remove_dir_all(case.folder.join("views/a")).unwrap();
        assert_eq!(case.changes(), ["views/a/b/page"]);
    }

    #[test]
    fn a_burst_is_one_change_and_a_removed_file_is_waited_for() {
        let mut case = Case::new("burst", &[], &["app.lua"]);
        let start = Instant::now();
        for step in 0..5 {
            case.write("app.lua", &"x".repeat(step + 5));
            case.watcher.hear(start + step as u32 * QUIET / 2);
        }
        assert_eq!(case.watcher.due(), Some(start + 3 * QUIET));
        assert!(case.watcher.changes(start + 2 * QUIET).is_empty());
        std::fs::remove_file(case.folder.join("app.lua")).unwrap();
        assert!(case.watcher.changes(start + 3 * QUIET).is_empty());
        case.write("app.lua", "new");
        assert_eq!(case.watcher.due(), Some(start + 4 * QUIET));
        assert_eq!(case.watcher.changes(start + 4 * QUIET).len(), 1);
    }
}
