//! Pairs of texts as runs of the same name, for a table of lists.
//!
//! Equal names that are apart are not brought together here: the Lua table that is made of them does
//! that.

use super::flood::{Flood, Guard};
use super::pairs::Texts;

/// How many runs there are.
///
/// # Errors
/// Names or values are made to collide in Lua's hash.
pub fn admit(pairs: &(impl Texts + ?Sized)) -> Result<usize, Flood> {
    let mut guard = Guard::default();
    let mut count = 0;
    for (name, values) in runs(pairs) {
        count += 1;
        guard.key(name)?;
        for value in values {
            guard.value(value)?;
        }
    }
    Ok(count)
}

/// The name of each run, different from that of the run before, and its values.
pub fn runs<T: Texts + ?Sized>(
    pairs: &T,
) -> impl Iterator<Item = (&[u8], impl ExactSizeIterator<Item = &[u8]>)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let first = next;
        let name = (first < pairs.count()).then(|| pairs.name(first))?;
        next += 1;
        while next < pairs.count() && pairs.name(next) == name {
            next += 1;
        }
        Some((name, (first..next).map(|pair| pairs.value(pair))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pair<'a> = (&'a [u8], &'a [u8]);

    #[test]
    fn equal_names_side_by_side_are_one_run() {
        let pairs: [Pair; 6] =
            [(b"b", b"1"), (b"a", b"2"), (b"a", b""), (b"", b"4"), (b"", b"5"), (b"b", b"6")];
        let found: Vec<(&[u8], Vec<&[u8]>)> =
            runs(&pairs[..]).map(|(name, values)| (name, values.collect())).collect();
        let expected: [(&[u8], Vec<&[u8]>); 4] = [
            (b"b", vec![b"1"]),
            (b"a", vec![b"2", b""]),
            (b"", vec![b"4", b"5"]),
            (b"b", vec![b"6"]),
        ];
        assert_eq!(found, expected);
        assert_eq!((admit(&pairs[..]), admit(&pairs[..0])), (Ok(4), Ok(0)));
    }

    #[test]
    fn texts_that_collide_are_refused() {
        let texts: Vec<String> = (0..9999)
            .map(|number| {
                let digits: Vec<char> = format!("{number:04}").chars().collect();
                format!("{:024}{}x{}x{}x{}x", 0, digits[0], digits[1], digits[2], digits[3])
            })
            .collect();
        let names: Vec<Pair> = texts.iter().map(|text| (text.as_bytes(), &b""[..])).collect();
        let values: Vec<Pair> = texts.iter().map(|text| (&b""[..], text.as_bytes())).collect();
        assert_eq!(admit(&names[..]), Err(Flood));
        assert_eq!(admit(&values[..]), Err(Flood));
    }
}
