//! Whether a text that comes in pieces is UTF-8 (RFC 6455 8.1).

/// The longest beginning of a character that can be incomplete.
const LONGEST: usize = 3;

/// A text, as far as it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextCheck {
    /// The beginning of a character whose rest is to come.
    begun: [u8; LONGEST],
    length: usize,
}

impl TextCheck {
    /// The next piece of the text. False: it is not UTF-8, whatever comes.
    pub fn push(&mut self, piece: &[u8]) -> bool {
        let mut rest = piece;
        while self.length > 0 {
            let Some((byte, tail)) = rest.split_first() else { return true };
            let mut character = [0; LONGEST + 1];
            character[..self.length].copy_from_slice(&self.begun[..self.length]);
            character[self.length] = *byte;
            let begun = &character[..=self.length];
            rest = tail;
            match std::str::from_utf8(begun) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_some() => return false,
                // Four bytes are complete, or wrong.
                Err(_) => {
                    self.length = begun.len().min(LONGEST);
                    self.begun.copy_from_slice(&character[..LONGEST]);
                }
            }
        }
        match std::str::from_utf8(rest) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                let begun = rest.get(error.valid_up_to()..).unwrap_or_default();
                self.length = begun.len().min(LONGEST);
                self.begun[..self.length].copy_from_slice(&begun[..self.length]);
                true
            }
        }
    }

    /// Whether the text may end here.
    pub fn is_complete(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pieces: &[&[u8]]) -> bool {
        let mut check = TextCheck::default();
        pieces.iter().all(|piece| check.push(piece)) && check.is_complete()
    }

    #[test]
    fn what_cannot_become_a_text_is_known_at_once() {
        for (bytes, wrong_at) in [
            (&b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited"[..], 7),
            (b"\xf4\x90\x80\x80", 2),
            (b"\xc0\xaf", 1),
            (b"\xf8\x88\x80\x80\x80", 1),
            (b"a\x80", 2),
        ] {
            let mut check = TextCheck::default();
            let wrong = bytes.iter().position(|byte| !check.push(&[*byte]));
            assert_eq!(wrong.map(|at| at + 1), Some(wrong_at).map(|at| at.max(1)), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_are_a_text_if_the_whole_is(
            text in prop_oneof![
                any::<String>().prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..40),
                prop::collection::vec(prop::sample::select(&b"a\xc3\xa4\xe2\x82\xac\xf0\x9f\x8c\x99\xed\xf4"[..]), 0..12),
            ],
            at in any::<prop::sample::Index>(),
        ) {
            let whole = std::str::from_utf8(&text).is_ok();
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(check(&bytes), whole);
            let (one, other) = text.split_at(at.index(text.len() + 1));
            prop_assert_eq!(check(&[one, other]), whole);
        }
    }
}
