//! Values that must not appear in a core file: the keys of connections.

use std::fmt;
use std::hint::black_box;
use std::ops::{Deref, DerefMut};

use super::secret_heap::secretly;

/// A value in memory that is not written to core files, and cleared when the value is dropped.
pub struct Secret<T>(Box<T>);

impl<T> Secret<T> {
    /// Moves the value there.
    pub fn new(value: T) -> Self {
        Secret(secretly(|| Box::new(value)))
    }
}

impl<T> Deref for Secret<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Secret<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How much of the stack may have traces of secrets. That of a thread may be as small as 128 KiB.
const TRACES: usize = 32 * 1024;

/// Clears what calls that are over have left on the stack. For their caller.
#[inline(never)]
pub fn clear_stack() {
    black_box(&mut [0u8; TRACES]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::os::secret_heap::contains;

    #[test]
    fn secrets_are_in_memory_of_their_own_and_not_shown() {
        let secret = Secret::new([7u8; 100]);
        assert!(contains((&raw const *secret).cast_mut().cast()));
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
