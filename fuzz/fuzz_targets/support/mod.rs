//! What the targets share.

/// The input cut in several ways: whole, byte by byte, and at places that depend on its content.
pub fn splits(input: &[u8]) -> [Vec<&[u8]>; 3] {
    let sum = input.iter().fold(7u32, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let mut pieces = Vec::new();
    let mut rest = input;
    let mut state = sum;
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, tail) = rest.split_at((state >> 24) as usize % (rest.len() + 1));
        pieces.push(piece);
        rest = tail;
    }
    [vec![input], input.chunks(1).collect(), pieces]
}
