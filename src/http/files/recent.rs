//! Files that were opened lately. One look at the path tells whether it still leads to the same version, which costs
//! a fraction of opening and closing the file.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::hash::Hasher;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::fstatat;
use rustc_hash::FxHasher;

use super::opened::{FileVersion, OpenedFile, READ_AT_ONCE};
use crate::sys::os::monotonic::MonotonicTime;

/// For how long a file counts as one that may be opened by its path: folders on the way may become links.
const LATELY: Duration = Duration::from_secs(1);

/// How many files may be opened between two times at which the same one is, for that to be kept.
const BETWEEN: usize = 256;

/// The files that a folder keeps open: those that were opened twice lately. Of a large folder, most are asked for once
/// in a while, and would only take the places of others.
#[derive(Debug)]
pub struct RecentFiles {
    /// At most so many.
    most: usize,
    files: RefCell<VecDeque<Recent>>,
    /// The hashes of files that were opened, by their last bits.
    opened: [Cell<u64>; BETWEEN],
}

#[derive(Debug)]
struct Recent {
    /// Of path and variant: tells most others apart at once.
    hash: u64,
    path: Vec<u8>,
    variant: String,
    file: OpenedFile,
    since: MonotonicTime,
}

fn hash(path: &[u8], variant: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(path);
    hasher.write(variant.as_bytes());
    hasher.finish()
}

impl Recent {
    fn is(&self, hash: u64, path: &[u8], variant: &str) -> bool {
        self.hash == hash && self.path == path && self.variant == variant
    }
}

impl RecentFiles {
    /// Keeps up to `most` files open.
    pub fn new(most: usize) -> Self {
        let opened = [const { Cell::new(0) }; BETWEEN];
        RecentFiles { most, files: RefCell::default(), opened }
    }

    /// The file that was opened by this path below the folder lately, if the path still leads to it, and it is as it was.
    pub fn find(&self, folder: &Path, path: &[u8], variant: &str) -> Option<OpenedFile> {
        let files = self.files.borrow();
        let hash = hash(path, variant);
        let known = files.iter().find(|known| known.is(hash, path, variant))?;
        if MonotonicTime::now() >= known.since + LATELY {
            return None;
        }
        // The version of a link is not that of its file, so that one is opened again.
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        let path = [folder.as_os_str().as_bytes(), b"/", path].concat();
        let stat = fstatat(AT_FDCWD, OsStr::from_bytes(&path), flags).ok()?;
        (FileVersion::of(&stat) == known.file.version).then(|| known.file.clone())
    }

    /// Keeps a file that was just opened, and not long before, unless it is a large one, whose position is not shared.
    pub fn keep(&self, path: &[u8], variant: &str, file: &OpenedFile) {
        if file.size > READ_AT_ONCE || self.most == 0 {
            return;
        }
        let hash = hash(path, variant);
        if self.opened[hash as usize % BETWEEN].replace(hash) != hash {
            return;
        }
        let new = Recent {
            hash,
            path: path.to_vec(),
            variant: variant.to_owned(),
            file: file.clone(),
            since: MonotonicTime::now(),
        };
        let mut files = self.files.borrow_mut();
        if let Some(known) = files.iter_mut().find(|known| known.is(hash, path, variant)) {
            *known = new;
            return;
        }
        if files.len() >= self.most {
            files.pop_front();
        }
        files.push_back(new);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::http::files::opened::FileKind;

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("recent-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("sub")).unwrap();
            Folder(path)
        }

        fn open(&self, name: &str, content: &str) -> OpenedFile {
            fs::write(self.0.join(name), content).unwrap();
            match FileKind::of(File::open(self.0.join(name)).unwrap().into(), "").unwrap() {
                FileKind::File(file) => file,
                other => panic!("{other:?}"),
            }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_known_until_anything_of_it_changes() {
        let folder = Folder::new("changes");
        let changes: [&dyn Fn(&std::path::Path); 6] = [
            &|path| File::options().append(true).open(path).unwrap().write_all(b"x").unwrap(),
            &|path| fs::remove_file(path).unwrap(),
            &|path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
            &|path| {
                fs::write(path.with_extension("new"), "other").unwrap();
                fs::rename(path.with_extension("new"), path).unwrap();
            },
            &|path| {
                fs::rename(path, path.with_extension("old")).unwrap();
                symlink(path.with_extension("old"), path).unwrap();
            },
            &|path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let (recent, name) = (RecentFiles::new(4), format!("sub/{index}.txt"));
            for is_known in [false, true] {
                recent.keep(name.as_bytes(), "", &folder.open(&name, "hello"));
                assert_eq!(recent.find(&folder.0, name.as_bytes(), "").is_some(), is_known);
            }
            assert!(recent.find(&folder.0, name.as_bytes(), "-gzip").is_none());
            // A file system may have a coarse clock.
            std::thread::sleep(Duration::from_millis(20));
            change(&folder.0.join(&name));
            assert!(recent.find(&folder.0, name.as_bytes(), "").is_none(), "{index}");
        }
    }

    #[test]
    fn only_some_small_files_are_kept_open() {
        let folder = Folder::new("some");
        let recent = RecentFiles::new(2);
        for name in ["a", "b", "c", "a", "b", "a", "c"] {
            recent.keep(name.as_bytes(), "", &folder.open(name, name));
        }
        let is_known = |name: &str| recent.find(&folder.0, name.as_bytes(), "").is_some();
        assert!(!is_known("a") && is_known("b") && is_known("c"));
        let none = RecentFiles::new(0);
        for _ in 0..2 {
            recent.keep(b"d", "", &folder.open("d", &"x".repeat(READ_AT_ONCE as usize + 1)));
            none.keep(b"a", "", &folder.open("a", "a"));
        }
        assert!(!is_known("d") && is_known("b"));
        assert!(none.find(&folder.0, b"a", "").is_none());
    }
}
