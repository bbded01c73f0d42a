//! Sixteen bytes at once: which of them are of a kind.
//!
//! `memchr` is faster for long texts. It costs about fifty instructions before it has looked at a byte, and finds
//! single bytes, not kinds of them.

use std::ops::{BitAnd, BitOr, Not};

#[cfg(not(target_arch = "x86_64"))]
use portable as vector;
#[cfg(target_arch = "x86_64")]
use sse2 as vector;

/// The number of bytes in a block.
pub const SIZE: usize = 16;

/// Sixteen bytes.
#[derive(Clone, Copy)]
pub struct Bytes16(vector::Bytes);

/// A set of places in a block.
#[derive(Clone, Copy)]
pub struct Matches(vector::Bytes);

impl Bytes16 {
    /// The bytes.
    #[inline(always)]
    pub fn new(bytes: &[u8; SIZE]) -> Bytes16 {
        Bytes16(vector::load(bytes))
    }

    /// Up to fifteen bytes, and zeros after them.
    #[inline(always)]
    pub fn padded(text: &[u8]) -> Bytes16 {
        // Numbers of a fixed size, which may overlap, cost less than a copy of any size, and than its way by memory.
        let size = text.len();
        let (low, high) = if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk())
        {
            let last = u64::from_le_bytes(*last);
            (u64::from_le_bytes(*first), last.unbounded_shr(8 * (SIZE - size) as u32))
        } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
            let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
            (u64::from(first) | u64::from(last) << (8 * (size - 4)), 0)
        } else if let ([first, ..], Some(middle), [.., last]) = (text, text.get(size / 2), text) {
            let middle = u64::from(*middle) << (8 * (size / 2));
            (u64::from(*first) | middle | u64::from(*last) << (8 * (size - 1)), 0)
        } else {
            (0, 0)
        };
        Bytes16::new(&(u128::from(high) << 64 | u128::from(low)).to_le_bytes())
    }

    /// Where `byte` stands.
    #[inline(always)]
    pub fn is(self, byte: u8) -> Matches {
        Matches(vector::equal(self.0, vector::each(byte)))
    }

    /// Where a byte is not greater than `byte`.
    #[inline(always)]
    pub fn is_at_most(self, byte: u8) -> Matches {
        Matches(vector::equal(vector::smaller(self.0, vector::each(byte)), self.0))
    }

    /// Where a byte is from `first` to `last`.
    #[inline(always)]
    pub fn is_from_to(self, first: u8, last: u8) -> Matches {
        Bytes16(vector::difference(self.0, vector::each(first))).is_at_most(last - first)
    }

    /// The block with the bits of `byte` set in each byte.
    #[inline(always)]
    pub fn with_bits(self, byte: u8) -> Bytes16 {
        Bytes16(vector::or(self.0, vector::each(byte)))
    }
}

/// Bytes in lower-case hexadecimal digits.
#[inline]
pub fn hex_digits(bytes: &[u8; SIZE]) -> [u8; 2 * SIZE] {
    vector::hex_digits(vector::load(bytes))
}

impl Matches {
    /// The lowest place.
    #[inline(always)]
    pub fn first(self) -> Option<usize> {
        let bits = vector::bits(self.0);
        (bits != 0).then(|| bits.trailing_zeros() as usize)
    }

    /// The number of places.
    #[inline(always)]
    pub fn count(self) -> usize {
        vector::bits(self.0).count_ones() as usize
    }
}

impl BitOr for Matches {
    type Output = Matches;

    #[inline(always)]
    fn bitor(self, other: Matches) -> Matches {
        Matches(vector::or(self.0, other.0))
    }
}

impl BitAnd for Matches {
    type Output = Matches;

    #[inline(always)]
    fn bitand(self, other: Matches) -> Matches {
        Matches(vector::and(self.0, other.0))
    }
}

impl Not for Matches {
    type Output = Matches;

    #[inline(always)]
    fn not(self) -> Matches {
        Matches(vector::equal(self.0, vector::each(0)))
    }
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::*;

    pub type Bytes = __m128i;

    /// Safe functions, as every processor of this architecture has these instructions.
    macro_rules! functions {
        ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty = $value:expr;)*) => {
            $(
                #[inline(always)]
                pub fn $name($($argument: $kind),*) -> $result {
                    // SAFETY: SSE2 is a part of x86-64; the address is that of 16 bytes; all bytes are values.
                    unsafe { $value }
                }
            )*
        };
    }

    functions! {
        load(bytes: &[u8; super::SIZE]) -> Bytes = _mm_loadu_si128(bytes.as_ptr().cast());
        each(byte: u8) -> Bytes = _mm_set1_epi8(byte as i8);
        equal(a: Bytes, b: Bytes) -> Bytes = _mm_cmpeq_epi8(a, b);
        smaller(a: Bytes, b: Bytes) -> Bytes = _mm_min_epu8(a, b);
        difference(a: Bytes, b: Bytes) -> Bytes = _mm_sub_epi8(a, b);
        or(a: Bytes, b: Bytes) -> Bytes = _mm_or_si128(a, b);
        and(a: Bytes, b: Bytes) -> Bytes = _mm_and_si128(a, b);
        bits(places: Bytes) -> u32 = _mm_movemask_epi8(places) as u32;
        greater(a: Bytes, b: Bytes) -> Bytes = _mm_cmpgt_epi8(a, b);
        sum(a: Bytes, b: Bytes) -> Bytes = _mm_add_epi8(a, b);
        upper_halves(a: Bytes) -> Bytes = and(_mm_srli_epi16::<4>(a), each(15));
        first_pairs(a: Bytes, b: Bytes) -> Bytes = _mm_unpacklo_epi8(a, b);
        last_pairs(a: Bytes, b: Bytes) -> Bytes = _mm_unpackhi_epi8(a, b);
        both(a: Bytes, b: Bytes) -> [u8; 32] = std::mem::transmute::<[Bytes; 2], _>([a, b]);
    }

    #[inline(always)]
    pub fn hex_digits(bytes: Bytes) -> [u8; 32] {
        let digits = |halves| {
            let letters = and(greater(halves, each(9)), each(b'a' - b'0' - 10));
            sum(sum(halves, each(b'0')), letters)
        };
        let (upper, lower) = (digits(upper_halves(bytes)), digits(and(bytes, each(15))));
        both(first_pairs(upper, lower), last_pairs(upper, lower))
    }
}

/// The same for any processor.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
mod portable {
    use std::array::from_fn;

    pub type Bytes = [u8; super::SIZE];

    pub fn load(bytes: &Bytes) -> Bytes {
        *bytes
    }

    pub fn each(byte: u8) -> Bytes {
        [byte; super::SIZE]
    }

    pub fn equal(a: Bytes, b: Bytes) -> Bytes {
        from_fn(|at| if a[at] == b[at] { 0xff } else { 0 })
    }

    pub fn smaller(a: Bytes, b: Bytes) -> Bytes {
        from_fn(|at| a[at].min(b[at]))
    }

    pub fn difference(a: Bytes, b: Bytes) -> Bytes {
        from_fn(|at| a[at].wrapping_sub(b[at]))
    }

    pub fn or(a: Bytes, b: Bytes) -> Bytes {
        from_fn(|at| a[at] | b[at])
    }

    pub fn and(a: Bytes, b: Bytes) -> Bytes {
        from_fn(|at| a[at] & b[at])
    }

    pub fn bits(places: Bytes) -> u32 {
        places.iter().rev().fold(0, |bits, place| bits << 1 | u32::from(place >> 7))
    }

    pub fn hex_digits(bytes: Bytes) -> [u8; 32] {
        let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
        from_fn(|at| digit(if at % 2 == 0 { bytes[at / 2] >> 4 } else { bytes[at / 2] & 15 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_byte_is_found_where_it_is_of_the_kind() {
        for byte in 0..=255u8 {
            let mut bytes = [b'm'; SIZE];
            bytes[11] = byte;
            let block = Bytes16::new(&bytes);
            let found = |found: bool| found.then_some(11);
            assert_eq!(block.is(b'5').first(), found(byte == b'5'));
            assert_eq!((!block.is(b'm')).first(), found(byte != b'm'));
            assert_eq!(block.is_at_most(b'b').first(), found(byte <= b'b'));
            assert_eq!(block.is_from_to(b'w', 0xfe).first(), found((b'w'..=0xfe).contains(&byte)));
            assert_eq!(block.with_bits(0x20).is(b'e').first(), found(b"Ee".contains(&byte)));
            let both = block.is(b'1') | block.is(b'2');
            assert_eq!(both.first(), found(b"12".contains(&byte)));
            assert_eq!((both & !block.is(b'2')).first(), found(byte == b'1'));
            assert_eq!(block.is(b'm').count(), if byte == b'm' { SIZE } else { SIZE - 1 });
        }
    }

    proptest! {
        /// What is used here, and what is used elsewhere.
        #[test]
        fn both_ways_answer_the_same(a: [u8; SIZE], b: [u8; SIZE]) {
            macro_rules! same {
                ($($name:ident)*) => {$(
                    let here = vector::$name(vector::load(&a), vector::load(&b));
                    let elsewhere = portable::$name(portable::load(&a), portable::load(&b));
                    let equal = vector::bits(vector::equal(here, vector::load(&elsewhere)));
                    prop_assert_eq!(equal, 0xffff, "{}", stringify!($name));
                )*};
            }
            same!(equal smaller difference or and);
            prop_assert_eq!(vector::bits(vector::load(&a)), portable::bits(a));
            prop_assert_eq!(hex_digits(&a), portable::hex_digits(a));
            let text: String = a.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(hex_digits(&a), text.as_bytes());
        }

        #[test]
        fn a_short_text_is_padded_with_zeros(text in proptest::collection::vec(1..=255u8, 0..SIZE)) {
            let block = Bytes16::padded(&text);
            prop_assert_eq!(block.is(0).first(), Some(text.len()));
            for (place, byte) in text.iter().enumerate() {
                let first = text.iter().position(|other| other == byte);
                prop_assert!(block.is(*byte).first() == first && first <= Some(place));
            }
        }
    }
}
