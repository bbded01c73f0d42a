//! What files are like, to be compared with what they were like before.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Tells a file from what was there before: device, inode, size, and when it was modified.
type Print = (u64, u64, u64, (i64, i64));

/// Files by their paths; `None`: there is none.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Option<Print>>);

impl Snapshot {
    /// Adds what is at a path now.
    pub fn add(&mut self, path: &Path) {
        let print = std::fs::metadata(path).ok().map(|metadata| print(&metadata));
        self.0.insert(path.to_owned(), print);
    }

    /// Adds all files in a folder and in the folders in it. `enter` is called for each folder before it is read.
    pub fn add_folder(&mut self, folder: &Path, enter: &mut dyn FnMut(&Path)) {
        self.descend(folder, enter, &mut HashSet::new());
    }

    fn descend(
        &mut self,
        folder: &Path,
        enter: &mut dyn FnMut(&Path),
        entered: &mut HashSet<(u64, u64)>,
    ) {
        let Ok(metadata) = std::fs::metadata(folder) else { return };
        // A symbolic link may lead back.
        if !metadata.is_dir() || !entered.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        enter(folder);
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten().filter(|entry| counts(&entry.file_name())) {
            let path = entry.path();
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.descend(&path, enter, entered),
                Ok(metadata) => drop(self.0.insert(path, Some(print(&metadata)))),
                Err(_) => {}
            }
        }
    }

    /// The paths at which there is something else now.
    pub fn changes(&self, now: &Snapshot) -> Vec<PathBuf> {
        let differs = |path: &&PathBuf| self.get(path) != now.get(path);
        let gone = self.0.keys().filter(|path| !now.0.contains_key(*path));
        now.0.keys().chain(gone).filter(differs).cloned().collect()
    }

    /// Whether something that was there is not there now.
    pub fn has_lost(&self, now: &Snapshot) -> bool {
        self.0.keys().any(|path| self.get(path).is_some() && now.get(path).is_none())
    }

    fn get(&self, path: &Path) -> Option<Print> {
        self.0.get(path).copied().flatten()
    }
}

fn print(metadata: &Metadata) -> Print {
    let time = (metadata.mtime(), metadata.mtime_nsec());
    (metadata.dev(), metadata.ino(), metadata.size(), time)
}

/// Whether a file in a folder is of interest: hidden files, and those that editors leave behind, are not.
pub fn counts(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let passing = name.starts_with(b".") || name.starts_with(b"#") || name.ends_with(b"~");
    // With that name, Vim tries whether it can create a file.
    !passing && name != b"4913"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_told_and_what_editors_leave_behind_is_not() {
        let folder = std::env::temp_dir().join(format!("moonbridge-shot-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("views/.git")).unwrap();
        std::os::unix::fs::symlink("..", folder.join("views/up")).unwrap();
        let file = |name: &str| folder.join(name);
        let write = |name: &str, text: &str| std::fs::write(file(name), text).unwrap();
        write("app.lua", "1");
        write("views/a", "1");
        let snap = || {
            let mut snapshot = Snapshot::default();
            snapshot.add_folder(&file("views"), &mut |_| {});
            snapshot.add(&file("app.lua"));
            snapshot.add(&file("missing.lua"));
            snapshot
        };
        let before = snap();
        for name in ["views/.a.swp", "views/a~", "views/4913", "views/.git/index", "other.lua"] {
            write(name, "1");
        }
        write("views/.git/x", "1");
        let up = file("views/up/other.lua");
        assert_eq!(before.changes(&snap()), [up]);
        assert!(!before.has_lost(&snap()));
        let before = snap();
        write("app.lua", "22");
        write("missing.lua", "1");
        std::fs::remove_file(file("views/a")).unwrap();
        let paths = before.changes(&snap());
        for name in ["app.lua", "missing.lua", "views/a"] {
            assert!(paths.contains(&file(name)), "{name} {paths:?}");
        }
        assert!(before.has_lost(&snap()));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
