//! A point in time as people read it (pure).

use crate::sys::os::calendar::LocalTime;

/// The names of the months in the common log format, in every locale.
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// A point in time, in the local time zone. The texts of a second are made once.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    rfc3339: [u8; 29],
    common: [u8; 26],
}

impl Moment {
    /// The beginning of that second.
    pub fn new(local: LocalTime) -> Self {
        let mut moment = Moment {
            rfc3339: *b"0000-00-00T00:00:00.000+00:00",
            common: *b"00/Jan/0000:00:00:00 +0000",
        };
        let year = digits::<4>(local.year.into());
        let month = local.month.clamp(1, 12);
        let minutes = u64::from(local.offset.unsigned_abs());
        let sign = if local.offset < 0 { b'-' } else { b'+' };
        let [month_digits, day, hour, minute, second] =
            [month, local.day, local.hour, local.minute, local.second]
                .map(|number| digits::<2>(number.into()));
        let [east_hours, east_minutes] = [minutes / 60, minutes % 60].map(digits::<2>);
        let put = |text: &mut [u8], parts: [(usize, &[u8]); 9]| {
            for (at, part) in parts {
                text[at..at + part.len()].copy_from_slice(part);
            }
        };
        put(
            &mut moment.rfc3339,
            [
                (0, &year),
                (5, &month_digits),
                (8, &day),
                (11, &hour),
                (14, &minute),
                (17, &second),
                (23, &[sign]),
                (24, &east_hours),
                (27, &east_minutes),
            ],
        );
        put(
            &mut moment.common,
            [
                (0, &day),
                (3, MONTHS[month as usize - 1]),
                (7, &year),
                (12, &hour),
                (15, &minute),
                (18, &second),
                (21, &[sign]),
                (22, &east_hours),
                (24, &east_minutes),
            ],
        );
        moment
    }

    /// Another time of the same second, 0 to 999.
    pub fn set_millisecond(&mut self, millisecond: u64) {
        self.rfc3339[20..23].copy_from_slice(&digits::<3>(millisecond));
    }

    /// As RFC 3339 has it, with milliseconds.
    pub fn rfc3339(&self) -> &[u8; 29] {
        &self.rfc3339
    }

    /// As the common log format has it.
    pub fn common(&self) -> &[u8; 26] {
        &self.common
    }
}

/// 00 to 99.
static PAIRS: [[u8; 2]; 100] = {
    let (mut pairs, mut number) = ([[0; 2]; 100], 0);
    while number < 100 {
        pairs[number] = [b'0' + number as u8 / 10, b'0' + number as u8 % 10];
        number += 1;
    }
    pairs
};

/// The last `N` digits of a number.
#[inline(always)]
pub(super) fn digits<const N: usize>(number: u64) -> [u8; N] {
    let (mut digits, mut left) = ([b'0'; N], number as u32);
    let (first, pairs) = digits.as_rchunks_mut::<2>();
    for pair in pairs.iter_mut().rev() {
        *pair = PAIRS[(left % 100) as usize];
        left /= 100;
    }
    if let [first] = first {
        *first = b'0' + (left % 10) as u8;
    }
    digits
}
