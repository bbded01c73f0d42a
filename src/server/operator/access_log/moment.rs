//! A point in time as people read it (pure).

use crate::sys::os::calendar::LocalTime;

/// The names of the months in the common log format, in every locale.
const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// A point in time, in the local time zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The second.
    pub local: LocalTime,
    /// 0 to 999,999.
    pub microsecond: u32,
}

impl Moment {
    /// As RFC 3339 has it, with milliseconds.
    pub fn write(&self, line: &mut Vec<u8>) {
        push_digits::<4>(line, self.local.year.into());
        for (mark, number) in [
            (b'-', self.local.month),
            (b'-', self.local.day),
            (b'T', self.local.hour),
            (b':', self.local.minute),
            (b':', self.local.second),
        ] {
            line.push(mark);
            push_digits::<2>(line, number.into());
        }
        line.push(b'.');
        push_digits::<3>(line, u64::from(self.microsecond) / 1000);
        self.write_offset(line, b":");
    }

    /// As the common log format has it.
    pub fn write_common(&self, line: &mut Vec<u8>) {
        push_digits::<2>(line, self.local.day.into());
        line.push(b'/');
        line.extend_from_slice(MONTHS[self.local.month.clamp(1, 12) as usize - 1]);
        line.push(b'/');
        push_digits::<4>(line, self.local.year.into());
        for number in [self.local.hour, self.local.minute, self.local.second] {
            line.push(b':');
            push_digits::<2>(line, number.into());
        }
        line.push(b' ');
        self.write_offset(line, b"");
    }

    fn write_offset(&self, line: &mut Vec<u8>, between: &[u8]) {
        line.push(if self.local.offset < 0 { b'-' } else { b'+' });
        let minutes = self.local.offset.unsigned_abs();
        push_digits::<2>(line, (minutes / 60).into());
        line.extend_from_slice(between);
        push_digits::<2>(line, (minutes % 60).into());
    }
}

/// The last `N` digits of a number.
pub(super) fn push_digits<const N: usize>(line: &mut Vec<u8>, number: u64) {
    let (mut digits, mut left) = ([0; N], number);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    line.extend_from_slice(&digits);
}
