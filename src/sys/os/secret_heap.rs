//! A heap for secrets: its memory does not appear in core files, where the system knows `MADV_DONTDUMP`, and a block is
//! cleared when it is freed. The library's allocator takes blocks from it as long as [`secretly`] runs.

use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};

/// Its address space. Memory is taken as it is needed, and not given back.
const SIZE: usize = 256 * 1024 * 1024;

/// How much becomes memory at once.
const STEP: usize = 256 * 1024;

/// Blocks are aligned so. Up to `FINE` bytes their sizes are multiples of it, above that powers of two.
const GRAIN: usize = 64;
const FINE: usize = 2048;
const LARGEST: usize = 128 * 1024;
const CLASSES: usize = FINE / GRAIN + (LARGEST / FINE).ilog2() as usize;

/// How often a thread asks for the heap that another one is using. A child that was forked meanwhile would ask forever.
const TRIES: usize = 10_000;

/// An address where no memory can be.
const NOWHERE: usize = 1 << (usize::BITS - 1);

/// Where the heap begins.
static START: AtomicUsize = AtomicUsize::new(NOWHERE);

/// How many calls of [`secretly`] there are.
static CALLS: AtomicU32 = AtomicU32::new(0);

static HEAP: SecretHeap = SecretHeap::new();

struct SecretHeap {
    is_used: AtomicBool,
    blocks: UnsafeCell<Blocks>,
}

// SAFETY: `with` gives the blocks to one caller at a time.
unsafe impl Sync for SecretHeap {}

struct Blocks {
    /// How much has ever been given out, and how much is memory.
    given: usize,
    usable: usize,
    /// Freed blocks by their size, each with the address of the next one in it.
    free: [*mut u8; CLASSES],
}

/// Calls `make`. What it allocates is in this heap, as long as there is room.
pub fn secretly<R>(make: impl FnOnce() -> R) -> R {
    struct Call;
    impl Drop for Call {
        fn drop(&mut self) {
            CALLS.fetch_sub(1, Relaxed);
        }
    }
    static RESERVED: Once = Once::new();
    RESERVED.call_once(reserve);
    CALLS.fetch_add(1, Relaxed);
    let _call = Call;
    make()
}

/// Whether blocks are to be taken from this heap now.
#[inline]
pub fn is_wanted() -> bool {
    CALLS.load(Relaxed) > 0
}

/// Whether a block is one of this heap.
#[inline]
pub fn contains(block: *mut u8) -> bool {
    (block as usize).wrapping_sub(START.load(Relaxed)) < SIZE
}

fn reserve() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping aliases nothing, and the advice concerns that alone.
    unsafe {
        let start = libc::mmap(ptr::null_mut(), SIZE, libc::PROT_NONE, flags, -1, 0);
        if start != libc::MAP_FAILED {
            libc::madvise(start, SIZE, libc::MADV_DONTDUMP);
            START.store(start as usize, Relaxed);
        }
    }
}

/// The class of a block's size, and the size of its blocks.
fn class_of(layout: Layout) -> Option<(usize, usize)> {
    let size = layout.size().max(1);
    match size {
        _ if size > LARGEST || layout.align() > GRAIN => None,
        ..=FINE => Some((size.div_ceil(GRAIN) - 1, size.next_multiple_of(GRAIN))),
        _ => {
            let size = size.next_power_of_two();
            Some((FINE / GRAIN - 1 + (size / FINE).ilog2() as usize, size))
        }
    }
}

/// A block; null if there is none.
#[cold]
pub fn allocate(layout: Layout) -> *mut u8 {
    let Some((class, size)) = class_of(layout) else { return ptr::null_mut() };
    HEAP.with(|blocks| blocks.take(class, size)).unwrap_or(ptr::null_mut())
}

/// Takes a block back. If the heap is in use, nobody gets it again.
///
/// # Safety
/// The block is one of this heap with this layout, and nobody uses it any more.
#[cold]
pub unsafe fn free(block: *mut u8, layout: Layout) {
    // SAFETY: the block has this size.
    unsafe { block.write_bytes(0, layout.size()) };
    if let Some((class, _)) = class_of(layout) {
        HEAP.with(|blocks| blocks.put(class, block));
    }
}

impl SecretHeap {
    const fn new() -> Self {
        let blocks = Blocks { given: 0, usable: 0, free: [ptr::null_mut(); CLASSES] };
        SecretHeap { is_used: AtomicBool::new(false), blocks: UnsafeCell::new(blocks) }
    }

    /// Never waits for long: who cannot have the heap does without.
    fn with<R>(&self, work: impl FnOnce(&mut Blocks) -> R) -> Option<R> {
        for _ in 0..TRIES {
            if !self.is_used.swap(true, Acquire) {
                // SAFETY: everybody else sees that it is used.
                let result = work(unsafe { &mut *self.blocks.get() });
                self.is_used.store(false, Release);
                return Some(result);
            }
            std::hint::spin_loop();
        }
        None
    }
}

impl Blocks {
    fn take(&mut self, class: usize, size: usize) -> *mut u8 {
        let Some(first) = self.free.get_mut(class) else { return ptr::null_mut() };
        if !first.is_null() {
            let block = *first;
            // SAFETY: a free block has room for an address, is aligned, and nobody else uses it.
            *first = unsafe { block.cast::<*mut u8>().replace(ptr::null_mut()) };
            return block;
        }
        let start = START.load(Relaxed);
        if start == NOWHERE || SIZE - self.given < size || !self.reaches(start, self.given + size) {
            return ptr::null_mut();
        }
        let block = start + self.given;
        self.given += size;
        ptr::with_exposed_provenance_mut(block)
    }

    /// Whether that much is memory now.
    fn reaches(&mut self, start: usize, end: usize) -> bool {
        if end > self.usable {
            let more = (end - self.usable).next_multiple_of(STEP);
            let from = ptr::with_exposed_provenance_mut(start + self.usable);
            // SAFETY: this is a part of the heap's own mapping, as both are multiples of the step.
            if unsafe { libc::mprotect(from, more, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
                return false;
            }
            self.usable += more;
        }
        true
    }

    fn put(&mut self, class: usize, block: *mut u8) {
        if let Some(first) = self.free.get_mut(class) {
            // SAFETY: as above.
            unsafe { block.cast::<*mut u8>().write(*first) };
            *first = block;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_classes() {
        let class = |size, align| class_of(Layout::from_size_align(size, align).unwrap());
        assert_eq!(class(1, 1), Some((0, 64)));
        assert_eq!(class(64, 64), Some((0, 64)));
        assert_eq!(class(65, 8), Some((1, 128)));
        assert_eq!(class(2048, 8), Some((31, 2048)));
        assert_eq!(class(2049, 8), Some((32, 4096)));
        assert_eq!(class(LARGEST, 8), Some((CLASSES - 1, LARGEST)));
        assert_eq!(class(LARGEST + 1, 8), None);
        assert_eq!(class(1, 128), None);
    }

    #[test]
    fn blocks_are_disjoint_cleared_and_used_again() {
        let blocks: Vec<_> = (1..200u8).map(|n| secretly(|| vec![n; 3000])).collect();
        for (n, block) in (1..).zip(&blocks) {
            assert!(contains(block.as_ptr().cast_mut()));
            assert!(block.iter().all(|byte| *byte == n));
        }
        let places: Vec<_> = blocks.iter().map(|block| block.as_ptr() as usize).collect();
        drop(blocks);
        let again = secretly(|| Box::new([0u64; 400]));
        assert!(contains((&raw const *again).cast_mut().cast()));
        // Other tests, which run beside this one, may have some of them by now.
        let cleared = places.iter().filter(|place| {
            let block = ptr::with_exposed_provenance::<u8>(**place);
            // SAFETY: the heap's memory is never given back.
            (8..3000).all(|offset| unsafe { block.add(offset).read_volatile() } == 0)
        });
        assert!(cleared.count() > 100);
    }

    #[test]
    fn what_is_allocated_meanwhile_does_not_appear_in_core_files() {
        let secret = secretly(|| vec![7u8; 100]);
        let address = secret.as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_here = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let bound = |text| usize::from_str_radix(text, 16);
            if let Some((Ok(from), Ok(to))) = range.map(|(from, to)| (bound(from), bound(to))) {
                is_here = (from..to).contains(&address);
            } else if is_here && line.starts_with("VmFlags:") {
                assert!(line.split(' ').any(|flag| flag == "dd"), "{line}");
                return;
            }
        }
        panic!("there is no such mapping");
    }
}
