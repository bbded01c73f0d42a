//! Which bytes of what is to be sent become the next records.

use std::borrow::Cow;
use std::io::IoSlice;

use super::record;

/// How much is sealed before it is sent: as much of a response as waits for its end, so that it leaves with one call.
const SEAL_SIZE: usize = 5 * record::MAX_PLAINTEXT;

/// The next bytes after the first `sent` ones of the parts: a piece of one part, or several parts that fit
/// into a record together. `None` if there are none.
pub fn next_piece<'a>(parts: &'a [IoSlice<'_>], mut sent: usize) -> Option<Cow<'a, [u8]>> {
    let mut rest = parts.iter().filter_map(|part| {
        let skipped = sent.min(part.len());
        sent -= skipped;
        part.get(skipped..).filter(|part| !part.is_empty())
    });
    let first = rest.next()?;
    let mut joined = Vec::new();
    if first.len() < record::MAX_PLAINTEXT {
        for part in rest {
            if joined.is_empty() {
                joined.extend_from_slice(first);
            }
            let room = record::MAX_PLAINTEXT - joined.len();
            joined.extend_from_slice(part.get(..room).unwrap_or(part));
            if joined.len() == record::MAX_PLAINTEXT {
                break;
            }
        }
    }
    Some(match joined.is_empty() {
        true => Cow::Borrowed(first.get(..SEAL_SIZE).unwrap_or(first)),
        false => Cow::Owned(joined),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_parts_share_a_record_and_large_ones_are_not_copied() {
        let large = vec![b'x'; SEAL_SIZE + 1];
        let parts = [&b""[..], b"head", b"", &large[..], b"tail"].map(IoSlice::new);
        let total = 4 + large.len() + 4;
        let mut sizes = Vec::new();
        let mut sent = 0;
        while let Some(piece) = next_piece(&parts, sent) {
            sizes.push((piece.len(), matches!(piece, Cow::Owned(_))));
            sent += piece.len();
        }
        assert_eq!(sent, total);
        let after = total - record::MAX_PLAINTEXT - 4;
        assert_eq!(sizes, [(record::MAX_PLAINTEXT, true), (after, false), (4, false)]);
        assert_eq!(next_piece(&[], 0), None);
    }

    #[test]
    fn the_pieces_are_the_parts_in_order() {
        let parts: Vec<Vec<u8>> =
            (0..40u8).map(|n| vec![n; usize::from(n) * 997 % 20_000]).collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut pieces = Vec::new();
        while let Some(piece) = next_piece(&slices, pieces.len()) {
            assert!((1..=SEAL_SIZE).contains(&piece.len()));
            pieces.extend_from_slice(&piece);
        }
        assert_eq!(pieces, parts.concat());
    }
}
