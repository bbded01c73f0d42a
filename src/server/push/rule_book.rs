//! The rules of all streams, each kept once: the streams of a handler have the same.

use std::collections::HashMap;
use std::rc::{Rc, Weak};

use crate::server::ipc::held_state::Rules;

/// After how many new rules those are forgotten that nobody has any more.
const TIDY: usize = 64;

/// Rules by their encoding.
#[derive(Default)]
pub struct RuleBook {
    known: HashMap<Box<[u8]>, Weak<Rules>>,
    added: usize,
}

impl RuleBook {
    /// The rules with that encoding.
    pub fn share(&mut self, encoded: &[u8], rules: Rules) -> Rc<Rules> {
        if let Some(known) = self.known.get(encoded).and_then(Weak::upgrade) {
            return known;
        }
        self.added += 1;
        if self.added >= TIDY.max(self.known.len() / 2) {
            self.known.retain(|_, rules| rules.strong_count() > 0);
            self.added = 0;
        }
        let rules = Rc::new(rules);
        self.known.insert(encoded.into(), Rc::downgrade(&rules));
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rules_are_kept_once_and_forgotten_with_their_last_stream() {
        let mut book = RuleBook::default();
        let one = book.share(b"one", Rules::default());
        assert!(Rc::ptr_eq(&one, &book.share(b"one", Rules::default())));
        for number in 0..1000u32 {
            book.share(&number.to_le_bytes(), Rules::default());
        }
        assert!(book.known.len() < 200);
        assert!(Rc::ptr_eq(&one, &book.share(b"one", Rules::default())));
    }
}
