//! Random bytes for ids: of a generator that the kernel seeds, since a system call for each few ids costs more.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};

use super::fork_detection;

/// How many bytes to generate at once: what the generator computes in one go.
const BATCH: usize = 256;

struct Batch {
    /// The process that has seeded the generator: a child must not use what its parent will use, too.
    owner: u64,
    generator: Option<ChaCha8Rng>,
    used: usize,
    bytes: [u8; BATCH],
}

thread_local! {
    static REST: RefCell<Batch> =
        const { RefCell::new(Batch { owner: 0, generator: None, used: BATCH, bytes: [0; BATCH] }) };
}

/// So many random bytes, at most 256.
#[inline]
pub fn bytes<const N: usize>() -> [u8; N] {
    const { assert!(N <= BATCH) };
    REST.with(|rest| {
        // A signal handler may have come in between.
        let Ok(mut batch) = rest.try_borrow_mut() else { return fetched() };
        let owner = fork_detection::generation();
        if batch.owner != owner {
            batch.fill(owner);
        }
        loop {
            let used = batch.used;
            if let Some(bytes) = batch.bytes.get(used..).and_then(<[u8]>::first_chunk::<N>) {
                let bytes = *bytes;
                batch.used = used + N;
                return bytes;
            }
            batch.fill(owner);
        }
    })
}

impl Batch {
    #[cold]
    fn fill(&mut self, owner: u64) {
        if self.owner != owner {
            (self.owner, self.generator) = (owner, None);
        }
        let generator = self.generator.get_or_insert_with(|| {
            let mut seed = [0; 32];
            fetch(&mut seed);
            ChaCha8Rng::from_seed(seed)
        });
        generator.fill_bytes(&mut self.bytes);
        self.used = 0;
    }
}

#[cold]
fn fetched<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    fetch(&mut out);
    out
}

#[cold]
fn fetch(out: &mut [u8]) {
    if getrandom::fill(out).is_err() {
        // A sandbox that has none: better an id that could be guessed than none.
        let state = RandomState::new();
        for (index, piece) in out.chunks_mut(8).enumerate() {
            let seed =
                (index, std::process::id(), super::monotonic::MonotonicTime::now().nanoseconds());
            piece.copy_from_slice(&state.hash_one(seed).to_le_bytes()[..piece.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use nix::sys::wait::waitpid;

    use super::*;
    use crate::sys::os::process::{Fork, fork};

    #[test]
    fn bytes_differ() {
        let all: HashSet<[u8; 24]> = (0..1000).map(|_| bytes()).collect();
        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn a_child_does_not_repeat_those_of_its_parent() {
        let _: [u8; 8] = bytes();
        let (from, to) = nix::unistd::pipe().unwrap();
        match fork() {
            Ok(Fork::Child) => {
                let _ = nix::unistd::write(&to, &bytes::<16>());
                // SAFETY: nothing of the parent's is to be finished here.
                unsafe { libc::_exit(0) };
            }
            Ok(Fork::Parent(pid)) => {
                let mut childs = [0; 16];
                assert_eq!(nix::unistd::read(&from, &mut childs), Ok(16));
                assert_ne!(childs, bytes::<16>());
                waitpid(pid, None).unwrap();
            }
            Err(errno) => panic!("{errno}"),
        }
    }
}
