//! Opens files below a folder, and nothing outside of it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::Mode;

/// Where symbolic links may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// There may be none.
    None,
    /// To what is below the folder. Absolute ones are outside.
    Inside,
    /// Anywhere.
    Anywhere,
}

/// As many symbolic links as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// How often the kernel is asked again while somebody renames what is on the way.
const ATTEMPTS: usize = 16;

/// Whether the kernel has `openat2`: not before Linux 5.6, and some sandboxes forbid it.
static IS_MISSING: AtomicBool = AtomicBool::new(false);

/// Opens a file or folder for reading, by a relative path from a folder on. It does not wait for the other end of a pipe.
///
/// # Errors
/// `EXDEV` if the path leaves the folder, `ELOOP` for a link where there may be none, and what the system reports.
pub fn open(folder: BorrowedFd<'_>, path: &[u8], links: Links) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let resolve = match links {
        Links::None => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
        Links::Inside => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        Links::Anywhere => {
            return Ok(openat(folder, OsStr::from_bytes(path), flags, Mode::empty())?);
        }
    };
    let mut attempts = ATTEMPTS;
    while !IS_MISSING.load(Ordering::Relaxed) {
        let how = OpenHow::new().flags(flags).resolve(resolve);
        match openat2(folder, OsStr::from_bytes(path), how) {
            // "..", where something was renamed meanwhile.
            Err(Errno::EAGAIN) if attempts > 0 => attempts -= 1,
            Err(Errno::EINTR) => {}
            Err(Errno::ENOSYS | Errno::EPERM) => IS_MISSING.store(true, Ordering::Relaxed),
            outcome => return Ok(outcome?),
        }
    }
    walk(folder, path, links, flags)
}

/// The same, step by step.
fn walk(folder: BorrowedFd<'_>, path: &[u8], links: Links, flags: OFlag) -> io::Result<OwnedFd> {
    if path.first() == Some(&b'/') {
        return Err(Errno::EXDEV.into());
    }
    let mut rest: VecDeque<Vec<u8>> = names(path).collect();
    // The folders between the given one and where the walk is.
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut followed = 0;
    while let Some(name) = rest.pop_front() {
        let here = way.last().map_or(folder, AsFd::as_fd);
        if name == b".." {
            way.pop().ok_or(Errno::EXDEV)?;
            continue;
        }
        let name = OsStr::from_bytes(&name);
        match readlinkat(here, name) {
            Ok(_) if links == Links::None || followed == MOST_LINKS => {
                return Err(Errno::ELOOP.into());
            }
            Ok(target) if target.as_bytes().first() == Some(&b'/') => {
                return Err(Errno::EXDEV.into());
            }
            Ok(target) => {
                followed += 1;
                for name in names(target.as_bytes()).collect::<Vec<_>>().into_iter().rev() {
                    rest.push_front(name);
                }
                continue;
            }
            // Not a link.
            Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
        if rest.is_empty() {
            return Ok(openat(here, name, flags | OFlag::O_NOFOLLOW, Mode::empty())?);
        }
        let next = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        way.push(openat(here, name, next, Mode::empty())?);
    }
    let here = way.last().map_or(folder, AsFd::as_fd);
    Ok(openat(here, ".", flags, Mode::empty())?)
}

fn names(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let is_step = |name: &&[u8]| !name.is_empty() && *name != b".";
    path.split(|byte| *byte == b'/').filter(is_step).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("beneath-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("inner/deep")).unwrap();
            fs::write(path.join("secret"), "secret").unwrap();
            fs::write(path.join("inner/file"), "file").unwrap();
            fs::write(path.join("inner/deep/other"), "other").unwrap();
            symlink("deep/other", path.join("inner/to-other")).unwrap();
            symlink("../file", path.join("inner/deep/back")).unwrap();
            symlink("../secret", path.join("inner/out")).unwrap();
            symlink(path.join("inner/file"), path.join("inner/absolute")).unwrap();
            symlink("loop", path.join("inner/loop")).unwrap();
            symlink("deep", path.join("inner/folder")).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    type Open = fn(BorrowedFd<'_>, &[u8], Links) -> io::Result<OwnedFd>;

    fn by_steps(folder: BorrowedFd<'_>, path: &[u8], links: Links) -> io::Result<OwnedFd> {
        walk(folder, path, links, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
    }

    #[test]
    fn nothing_outside_is_opened_by_either_way() {
        let folder = Folder::new("ways");
        let root = File::open(folder.0.join("inner")).unwrap();
        for open in [open as Open, by_steps] {
            let content = |path: &str, links| {
                open(root.as_fd(), path.as_bytes(), links).map(|file| {
                    let mut text = String::new();
                    File::from(file).read_to_string(&mut text).map(|_| text).unwrap_or_default()
                })
            };
            let failure = |path, links| content(path, links).unwrap_err().raw_os_error().unwrap();
            for links in [Links::None, Links::Inside] {
                assert_eq!(content("file", links).unwrap(), "file");
                assert_eq!(content("deep//./other", links).unwrap(), "other");
                assert_eq!(content("deep/../file", links).unwrap(), "file");
                assert_eq!(failure("../secret", links), libc::EXDEV);
                assert_eq!(failure("deep/../../secret", links), libc::EXDEV);
                assert_eq!(failure("/etc/passwd", links), libc::EXDEV);
                assert_eq!(failure("missing", links), libc::ENOENT);
                assert_eq!(failure("file/x", links), libc::ENOTDIR);
                assert_eq!(failure("loop", links), libc::ELOOP);
                assert!(open(root.as_fd(), b".", links).is_ok());
            }
            assert_eq!(content("to-other", Links::Inside).unwrap(), "other");
            assert_eq!(content("deep/back", Links::Inside).unwrap(), "file");
            assert_eq!(content("folder/other", Links::Inside).unwrap(), "other");
            for path in ["to-other", "folder/other", "out"] {
                assert_eq!(failure(path, Links::None), libc::ELOOP);
            }
            assert_eq!(failure("out", Links::Inside), libc::EXDEV);
            assert_eq!(failure("absolute", Links::Inside), libc::EXDEV);
        }
        let anywhere = |path: &str| open(root.as_fd(), path.as_bytes(), Links::Anywhere).is_ok();
        assert!(anywhere("out") && anywhere("absolute"));
    }
}
