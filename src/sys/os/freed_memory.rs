//! Freed memory goes back to the kernel after a peak: the C library's allocator would keep it.

use super::fallback_allocator::give_back;

/// What is in use, in any unit, and what was since memory was given back.
pub struct FreedMemory {
    least: usize,
    peak: usize,
}

impl FreedMemory {
    /// Nothing is in use. A fall by fewer than `least` units is not worth the work.
    pub fn new(least: usize) -> Self {
        FreedMemory { least, peak: 0 }
    }

    /// So many units are in use: if they are at most half of the peak, freed memory goes back to the kernel. Whether that
    /// is so.
    #[inline(always)]
    pub fn note(&mut self, held: usize) -> bool {
        let has_fallen = self.has_fallen(held);
        if has_fallen {
            give_back();
        }
        has_fallen
    }

    #[inline(always)]
    fn has_fallen(&mut self, held: usize) -> bool {
        self.peak = self.peak.max(held);
        let fallen = self.peak - held >= self.least && held <= self.peak / 2;
        if fallen {
            self.peak = held;
        }
        fallen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_for_each_peak() {
        let mut memory = FreedMemory::new(100);
        let told = [90, 0, 400, 210, 200, 150, 100, 99, 0].map(|held| memory.has_fallen(held));
        assert_eq!(told, [false, false, false, false, true, false, true, false, true]);
    }
}
