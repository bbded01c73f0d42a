//! Files to remove when the process calls `exit(3)`: a script may call `os.exit`, which does not
//! close the Lua state.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

/// A pid file or socket file of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFile {
    path: PathBuf,
    /// Device and inode. An open file or bound socket keeps its inode, so it is not reused.
    identity: (u64, u64),
}

/// The files, and the process that has to remove each (not its forked children).
static FILES: Mutex<Vec<(OwnFile, u32)>> = Mutex::new(Vec::new());
static REGISTERED: Once = Once::new();

extern "C" fn remove_all() {
    if let Ok(mut files) = FILES.try_lock() {
        for (file, pid) in files.drain(..) {
            if pid == std::process::id() {
                file.remove_if_same();
            }
        }
    }
}

/// Stands for the process of files that another generation of the server has to remove.
const PREDECESSORS: u32 = 0;

impl OwnFile {
    /// The file that is now at `path`. It will be removed when this process calls `exit(3)`.
    ///
    /// # Errors
    /// What `lstat(2)` reports.
    pub fn at(path: &Path) -> io::Result<Self> {
        Self::of(path, std::process::id())
    }

    /// The file that is now at `path`, which another generation of this server has made. It is this
    /// process's after [`OwnFile::take_over`].
    ///
    /// # Errors
    /// What `lstat(2)` reports.
    pub fn of_predecessor(path: &Path) -> io::Result<Self> {
        Self::of(path, PREDECESSORS)
    }

    /// The files of the predecessor are this process's from now on.
    pub fn take_over() {
        if let Ok(mut files) = FILES.lock() {
            let theirs = files.iter_mut().filter(|(_, pid)| *pid == PREDECESSORS);
            theirs.for_each(|(_, pid)| *pid = std::process::id());
        }
    }

    /// Another generation of this server has the file from now on.
    pub fn give_away(&self) {
        if let Ok(mut files) = FILES.lock() {
            files.retain(|(file, _)| file != self);
        }
    }

    /// Its path, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn of(path: &Path, pid: u32) -> io::Result<Self> {
        REGISTERED.call_once(|| {
            // SAFETY: the handler is an ordinary function and the library stays mapped (build.rs).
            let _ = unsafe { libc::atexit(remove_all) };
        });
        // Absolute, in case the script changes its working directory.
        let path = std::path::absolute(path)?;
        let metadata = std::fs::symlink_metadata(&path)?;
        let file = OwnFile { path, identity: (metadata.dev(), metadata.ino()) };
        if let Ok(mut files) = FILES.lock() {
            files.push((file.clone(), pid));
        }
        Ok(file)
    }

    /// Removes the file now, unless another file has replaced it, or another process has to do that.
    pub fn remove(&self) {
        let Ok(mut files) = FILES.lock() else { return };
        let mine = |(file, pid): &(OwnFile, u32)| file == self && *pid == std::process::id();
        let Some(index) = files.iter().position(mine) else { return };
        files.remove(index);
        self.remove_if_same();
    }

    fn remove_if_same(&self) {
        let same = |there: std::fs::Metadata| (there.dev(), there.ino()) == self.identity;
        if std::fs::symlink_metadata(&self.path).is_ok_and(same) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn another_servers_file_stays() {
        let path = std::env::temp_dir().join(format!("moonbridge-{}-own", std::process::id()));
        let _first = UnixListener::bind(&path).unwrap();
        let own = OwnFile::at(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        own.remove();
        assert!(path.exists());
        let inherited = OwnFile::of_predecessor(&path).unwrap();
        inherited.remove();
        assert!(path.exists(), "the generation that serves has it");
        OwnFile::take_over();
        inherited.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_was_given_away_stays() {
        let path = std::env::temp_dir().join(format!("moonbridge-{}-given", std::process::id()));
        let _socket = UnixListener::bind(&path).unwrap();
        let own = OwnFile::at(&path).unwrap();
        own.give_away();
        own.remove();
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
    }
}
