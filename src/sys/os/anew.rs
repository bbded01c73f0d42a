//! Executing the running program anew in another process: the same interpreter with the same arguments, in
//! the same working directory by its path, where another directory may be by then.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{AccessFlags, Pid, access, getppid};

use super::error_text;
use super::process::set_parent_death_signal;

/// How this program was started.
struct Program {
    arguments: Vec<OsString>,
    folder: PathBuf,
}

static PROGRAM: OnceLock<Option<Program>> = OnceLock::new();

/// Notes how this program was started. Call it before the script can change that; only the first call
/// counts.
pub fn record() {
    PROGRAM.get_or_init(|| {
        let line = std::fs::read("/proc/self/cmdline").ok()?;
        let line = line.strip_suffix(b"\0").unwrap_or(&line);
        let arguments = line.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).into());
        Some(Program { arguments: arguments.collect(), folder: folder()? })
    });
}

/// The path of the working directory as a shell has reached it, perhaps through symbolic links.
fn folder() -> Option<PathBuf> {
    let real = std::env::current_dir().ok()?;
    let same = |shown: &Path| {
        let (shown, real) = (std::fs::metadata(shown).ok()?, std::fs::metadata(&real).ok()?);
        Some((shown.dev(), shown.ino()) == (real.dev(), real.ino()))
    };
    let shown = std::env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(shown.filter(|path| same(path) == Some(true)).unwrap_or(real))
}

/// The interpreter: the file that is at its path now, or else the one that runs.
fn interpreter() -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    let Ok(path) = std::fs::read_link(&running) else { return running };
    let bytes = path.as_os_str().as_bytes();
    let path = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    let path = PathBuf::from(OsStr::from_bytes(path));
    if path.exists() { path } else { running }
}

/// What the new process gets that differs from this one.
pub struct Changes<'a> {
    /// Descriptors that stay open, under their numbers.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// Its standard error.
    pub stderr: OwnedFd,
    /// One more environment variable.
    pub variable: (&'a str, &'a str),
    /// Its signal mask.
    pub mask: SigSet,
    /// Its limits of descriptors; `None`: those of this process.
    pub limit: Option<(rlim_t, rlim_t)>,
}

/// Executes this program anew. The new process leads a process group of its own, and is killed when this
/// process dies.
///
/// # Errors
/// What the system reports.
pub fn execute(changes: Changes<'_>) -> io::Result<Pid> {
    let Some(Some(program)) = PROGRAM.get() else {
        return Err(io::Error::other("/proc does not tell how this program was started"));
    };
    let mut words = program.arguments.iter();
    let Changes { descriptors, stderr, variable: (name, value), mask, limit } = changes;
    let inherited: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = nix::unistd::getpid();
    let mut command = Command::new(interpreter());
    command
        .arg0(words.next().map_or(OsStr::new("lua"), OsString::as_os_str))
        .args(words)
        .current_dir(&program.folder)
        .env(name, value)
        .env("PWD", &program.folder)
        .stderr(Stdio::from(stderr))
        .process_group(0);
    let prepare = move || {
        set_parent_death_signal(Signal::SIGKILL)?;
        if getppid() != parent {
            return Err(io::Error::other("the parent has ended"));
        }
        for number in &inherited {
            // SAFETY: `fcntl` takes numbers; the descriptors are open in this copy of the process.
            unsafe { libc::fcntl(*number, libc::F_SETFD, 0) };
        }
        if let Some((soft, hard)) = limit {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        Ok(())
    };
    // SAFETY: between fork and exec it only makes system calls, and allocates nothing unless it fails: the
    // process has one thread.
    unsafe { command.pre_exec(prepare) };
    let child =
        command.spawn().map_err(|error| match access(&program.folder, AccessFlags::X_OK) {
            Ok(()) => error,
            Err(errno) => {
                let (folder, reason) =
                    (program.folder.display(), error_text::describe(errno as i32));
                io::Error::other(format!("working directory \"{folder}\": {reason}"))
            }
        })?;
    Ok(Pid::from_raw(child.id() as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_and_the_working_directory_are_known() {
        assert!(interpreter().is_absolute());
        let (shown, real) = (folder().unwrap(), std::env::current_dir().unwrap());
        assert_eq!(std::fs::canonicalize(shown).unwrap(), std::fs::canonicalize(real).unwrap());
    }
}
