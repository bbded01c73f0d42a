//! A reserve of memory for failed allocations.
//!
//! Rust aborts the process when an allocation fails. The supervisor must not end, so this library's
//! allocator falls back on a small arena: enough to notice, free memory, and continue. The host's
//! allocator, and those of its Lua states, are not affected.
//!
//! Secrets are in a heap of their own: see [`secret_heap`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::secret_heap;

/// The size of the arena, in bytes. Unused, it only costs address space.
const SIZE: usize = 4 * 1024 * 1024;

/// The largest block. Code that needs larger ones must allocate fallibly.
const LARGEST: usize = SIZE / 4;

#[repr(align(4096))]
struct Arena {
    memory: UnsafeCell<[u8; SIZE]>,
    /// Blocks in use (upper half) and bytes allocated (lower half), which are all freed with the
    /// last block.
    state: AtomicU64,
    /// An allocation has failed.
    failed: AtomicBool,
}

// SAFETY: the memory is handed out in disjoint pieces, as `state` says, which changes atomically.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena::new();

#[global_allocator]
static ALLOCATOR: Fallback = Fallback;

/// Whether an allocation of this library has failed since the last call.
pub fn take_failure() -> bool {
    ARENA.failed.load(Relaxed) && ARENA.failed.swap(false, Relaxed)
}

impl Arena {
    const fn new() -> Self {
        let (state, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        Arena { memory: UnsafeCell::new([0; SIZE]), state, failed }
    }

    #[cold]
    fn allocate_after_failure(&self, layout: Layout) -> *mut u8 {
        self.failed.store(true, Relaxed);
        if layout.size() > LARGEST || layout.align() > 4096 {
            return ptr::null_mut();
        }
        let mut at = 0;
        let taken = self.state.fetch_update(Acquire, Relaxed, |state| {
            at = (state as u32 as usize).next_multiple_of(layout.align());
            let used = at + layout.size();
            (used <= SIZE).then(|| ((state >> 32) + 1) << 32 | used as u64)
        });
        match taken {
            // SAFETY: the piece lies within the arena.
            Ok(_) => unsafe { self.memory.get().cast::<u8>().add(at) },
            Err(_) => ptr::null_mut(),
        }
    }

    fn contains(&self, block: *mut u8) -> bool {
        (block as usize).wrapping_sub(self.memory.get() as usize) < SIZE
    }

    #[cold]
    fn free(&self) {
        let _ = self.state.fetch_update(Release, Relaxed, |state| match state >> 32 {
            0 | 1 => Some(0),
            _ => Some(state - (1 << 32)),
        });
    }
}

/// The system allocator, with the arena as fallback.
struct Fallback;

// SAFETY: each block is from the system's allocator or a piece of the arena that nobody else has, and
// goes back to where it came from.
unsafe impl GlobalAlloc for Fallback {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if secret_heap::is_wanted() {
            let block = secret_heap::allocate(layout);
            if !block.is_null() {
                return block;
            }
        }
        // SAFETY: as the caller promises.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() { ARENA.allocate_after_failure(layout) } else { block }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = match secret_heap::is_wanted() {
            true => ptr::null_mut(),
            // SAFETY: as the caller promises.
            false => unsafe { System.alloc_zeroed(layout) },
        };
        if !block.is_null() {
            return block;
        }
        // SAFETY: as the caller promises.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the piece has this size; it may have been used before.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if secret_heap::contains(block) {
            // SAFETY: as the caller promises.
            return unsafe { secret_heap::free(block, layout) };
        }
        match ARENA.contains(block) {
            true => ARENA.free(),
            // SAFETY: as the caller promises, and it is the system's.
            false => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let is_secret = secret_heap::contains(block) || secret_heap::is_wanted();
        if !ARENA.contains(block) && !is_secret {
            // SAFETY: as the caller promises, and it is the system's.
            let moved = unsafe { System.realloc(block, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the size is not zero, as the caller promises; both blocks have the bytes copied. A
        // failed reallocation leaves the old block as it is.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

/// Returns freed memory to the kernel.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_the_arena_are_disjoint_and_come_back() {
        static OTHER: Arena = Arena::new();
        let arena = &OTHER;
        let layout = Layout::from_size_align(100_000, 64).unwrap();
        let blocks: Vec<*mut u8> = std::iter::repeat_with(|| arena.allocate_after_failure(layout))
            .take_while(|block| !block.is_null())
            .collect();
        assert_eq!(blocks.len(), SIZE / 100_032);
        assert!(blocks.windows(2).all(|pair| pair[1] as usize >= pair[0] as usize + 100_000));
        assert!(
            blocks
                .iter()
                .all(|block| arena.contains(*block) && (*block as usize).is_multiple_of(64))
        );
        assert!(arena.failed.load(Relaxed));
        blocks.iter().for_each(|_| arena.free());
        assert_eq!(arena.allocate_after_failure(layout), blocks[0]);
        let large = Layout::from_size_align(LARGEST + 1, 1).unwrap();
        assert!(arena.allocate_after_failure(large).is_null());
    }

    #[test]
    fn a_failed_allocation_is_told_once() {
        assert!(Vec::<u8>::new().try_reserve_exact(1 << 46).is_err());
        assert!(take_failure());
        assert!(!take_failure());
    }
}
