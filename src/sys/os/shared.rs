//! Memory shared by a supervisor and its workers, or by all that have the memfd.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use nix::sys::signal::Signal;
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

use super::blocked_signals::without;

/// A shared mapping of 64-bit words, all zero at first; forked children share it.
pub struct SharedWords {
    at: NonNull<AtomicU64>,
    count: usize,
}

impl SharedWords {
    /// Maps memory for `count` (at least one) words. The kernel allocates each page on first use.
    pub fn new(count: usize) -> Result<Self, Errno> {
        let length = length(count)?;
        // SAFETY: a fresh anonymous mapping aliases nothing.
        let at = unsafe {
            mmap_anonymous(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE,
            )
        }?;
        Ok(SharedWords { at: at.cast(), count })
    }

    /// Maps words that all have who map the same file in memory, which gets its size here if it has none.
    ///
    /// # Errors
    /// What the system reports; `EINVAL` if it is no such file.
    pub fn in_file(file: impl AsFd, count: usize) -> Result<Self, Errno> {
        let length = length(count)?;
        let wanted = i64::try_from(length.get()).map_err(|_| Errno::EFBIG)?;
        match fstat(&file)?.st_size {
            // The size of files may be limited.
            0 => without(&[Signal::SIGXFSZ], || Ok(ftruncate(&file, wanted)?))
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EFBIG)))?,
            size if size == wanted => {}
            _ => return Err(Errno::EINVAL),
        }
        // SAFETY: a fresh mapping aliases nothing. Others that map the file use atomics as well, and nobody
        // makes it shorter.
        let at = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &file,
                0,
            )
        }?;
        Ok(SharedWords { at: at.cast(), count })
    }

    /// The words do not appear in core files, where the system knows `MADV_DONTDUMP`.
    pub fn keep_from_dumps(&self) {
        let length = size_of::<AtomicU64>() * self.count;
        // SAFETY: the mapping is ours; the call changes nothing but whether it is dumped.
        let _ = unsafe { madvise(self.at.cast(), length, MmapAdvise::MADV_DONTDUMP) };
    }
}

fn length(count: usize) -> Result<NonZeroUsize, Errno> {
    let bytes = size_of::<AtomicU64>().checked_mul(count).ok_or(Errno::ENOMEM)?;
    NonZeroUsize::new(bytes).ok_or(Errno::EINVAL)
}

// SAFETY: the words are atomics in memory that belongs to the value.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping lives as long as `self`, is page-aligned, was zeroed by the kernel,
        // and holds atomics alone, so writes by other processes are no data race.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and is used by nobody else here.
        let _ = unsafe { munmap(self.at.cast(), size_of::<AtomicU64>() * self.count) };
    }
}
