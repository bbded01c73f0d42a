//! Values that must not appear in a core file: the keys of connections.
//!
//! They live in pages of their own, which the system does not dump where it knows `MADV_DONTDUMP`. Their
//! memory is cleared when they are dropped, and used again; it is never given back.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

/// The size of a block: that of the largest value, in whole cache lines.
const BLOCK: usize = 1408;

/// How much memory is asked for at once.
const CHUNK: NonZeroUsize = NonZeroUsize::new(16 * 4096).unwrap();

/// A block that no value has.
struct Free(NonNull<u8>);

// SAFETY: the block is memory that this value owns.
unsafe impl Send for Free {}

static FREE: Mutex<Vec<Free>> = Mutex::new(Vec::new());

/// A value in such memory.
pub struct Secret<T>(NonNull<T>);

impl<T> Secret<T> {
    /// Moves the value there.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(value: T) -> Result<Self, Errno> {
        const { assert!(size_of::<T>() <= BLOCK && align_of::<T>() <= 64) };
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free.is_empty() {
            add_chunk(&mut free)?;
        }
        let Free(block) = free.pop().ok_or(Errno::ENOMEM)?;
        let place = block.cast::<T>();
        // SAFETY: the block is large enough, aligned, and nobody else's.
        unsafe { place.write(value) };
        Ok(Secret(place))
    }
}

fn add_chunk(free: &mut Vec<Free>) -> Result<(), Errno> {
    let blocks = CHUNK.get() / BLOCK;
    free.try_reserve(blocks).map_err(|_| Errno::ENOMEM)?;
    // SAFETY: a fresh anonymous mapping aliases nothing.
    let chunk = unsafe {
        mmap_anonymous(
            None,
            CHUNK,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_PRIVATE,
        )
    }?
    .cast::<u8>();
    // SAFETY: the pages are ours; the call changes nothing but whether they are dumped.
    let _ = unsafe { madvise(chunk.cast(), CHUNK.get(), MmapAdvise::MADV_DONTDUMP) };
    // SAFETY: all blocks lie within the chunk.
    free.extend((0..blocks).map(|index| Free(unsafe { chunk.add(index * BLOCK) })));
    Ok(())
}

impl<T> Deref for Secret<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the block has the value, and is this value's alone.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for Secret<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Secret<T> {
    fn drop(&mut self) {
        // SAFETY: the block has the value, which nobody uses any more; afterwards it is bytes.
        unsafe {
            self.0.drop_in_place();
            for offset in 0..size_of::<T>() {
                self.0.cast::<u8>().add(offset).write_volatile(0);
            }
        }
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(Free(self.0.cast()));
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_cleared_and_their_memory_is_used_again() {
        let secrets: Vec<_> = (0..200u8).map(|n| Secret::new([n; 1000]).unwrap()).collect();
        for (n, secret) in secrets.iter().enumerate() {
            assert_eq!(**secret, [n as u8; 1000]);
        }
        let places: Vec<_> = secrets.iter().map(|secret| secret.0.cast::<u8>()).collect();
        drop(secrets);
        let free = FREE.lock().unwrap();
        // Other tests, which run beside this one, may have some of them by now.
        let ours = |block: &&Free| places.contains(&block.0);
        let mut count = 0;
        for Free(block) in free.iter().filter(ours) {
            // SAFETY: the block belongs to the list, which is locked.
            let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), 1000) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            count += 1;
        }
        assert!(count > 0);
    }

    #[test]
    fn secrets_are_not_dumped() {
        let secret = Secret::new([1u8; 32]).unwrap();
        let address = &raw const *secret as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_here = false;
        for line in maps.lines() {
            if let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-'))
                && let (Ok(from), Ok(to)) =
                    (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                is_here = (from..to).contains(&address);
            } else if is_here && let Some(flags) = line.strip_prefix("VmFlags:") {
                assert!(flags.split_whitespace().any(|flag| flag == "dd"), "{flags}");
                return;
            }
        }
        panic!("the memory is not listed");
    }
}
