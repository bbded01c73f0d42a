//! Detects a fork without a system call: a child must not use what its parent has created.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

/// The last number assigned in this process or its ancestors.
static GIVEN: AtomicU64 = AtomicU64::new(0);

/// A word that the kernel clears in every child, whichever code calls `fork`.
struct Wiped(NonNull<AtomicU64>);

// SAFETY: the word is an atomic, and its mapping is never given back.
unsafe impl Send for Wiped {}
// SAFETY: as above.
unsafe impl Sync for Wiped {}

static WORD: OnceLock<Option<Wiped>> = OnceLock::new();

/// Maps the word; `None` if the kernel cannot clear it (before Linux 4.14).
fn map() -> Option<Wiped> {
    let length = NonZeroUsize::new(size_of::<AtomicU64>())?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a fresh anonymous mapping aliases nothing; the advice concerns that mapping alone,
    // and needs a private one.
    unsafe {
        let at = mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE).ok()?;
        madvise(at, length.get(), MmapAdvise::MADV_WIPEONFORK).ok()?;
        Some(Wiped(at.cast()))
    }
}

/// A number that identifies this process and differs from those of its ancestors.
pub fn generation() -> u64 {
    let Some(word) = WORD.get_or_init(map) else { return u64::from(std::process::id()) };
    // SAFETY: the mapping is page-aligned, holds an atomic, and stays.
    let word = unsafe { word.0.as_ref() };
    let known = word.load(Relaxed);
    if known != 0 {
        return known;
    }
    let new = GIVEN.fetch_add(1, Relaxed) + 1;
    match word.compare_exchange(0, new, Relaxed, Relaxed) {
        Ok(_) => new,
        // Another thread was faster.
        Err(winner) => winner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::os::process::{Fork, fork};
    use nix::sys::wait::{WaitStatus, waitpid};

    #[test]
    fn a_child_has_another_number() {
        let before = generation();
        assert_eq!(generation(), before);
        match fork() {
            Ok(Fork::Child) => {
                let differs = generation() != before && generation() == generation();
                // SAFETY: nothing of the parent's is to be finished here.
                unsafe { libc::_exit(i32::from(!differs)) };
            }
            Ok(Fork::Parent(pid)) => {
                let status = waitpid(pid, None);
                assert!(matches!(status, Ok(WaitStatus::Exited(_, 0))), "{status:?}");
            }
            Err(errno) => panic!("{errno}"),
        }
        assert_eq!(generation(), before);
    }
}
