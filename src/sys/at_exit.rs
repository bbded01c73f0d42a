//! A file that goes away when the process ends by `exit(3)`: a script may call `os.exit`, which
//! leaves the Lua state as it is.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

/// The file, and the process that is to remove it (its forked children are not).
static FILE: Mutex<Option<(PathBuf, u32)>> = Mutex::new(None);
static REGISTERED: Once = Once::new();

extern "C" fn remove() {
    if let Ok(mut file) = FILE.try_lock()
        && let Some((path, pid)) = file.take()
        && pid == std::process::id()
    {
        let _ = std::fs::remove_file(path);
    }
}

/// Removes the file at `path` when this process ends by `exit(3)`.
pub fn remember(path: &Path) {
    REGISTERED.call_once(|| {
        // SAFETY: the handler is an ordinary function and the library stays mapped (build.rs).
        let _ = unsafe { libc::atexit(remove) };
    });
    if let Ok(mut file) = FILE.lock() {
        *file = Some((path.to_owned(), std::process::id()));
    }
}

/// The file is left alone: it is gone already.
pub fn forget() {
    if let Ok(mut file) = FILE.lock() {
        *file = None;
    }
}
