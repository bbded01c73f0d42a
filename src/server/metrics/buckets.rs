//! Bounds of histograms: log-linear, four in each power of ten (pure).

/// The steps in a power of ten.
const STEPS: [u64; 4] = [100, 250, 500, 750];

/// Bounds for whole numbers, found without a search: a table says where the bounds of each power of two begin.
#[derive(Debug)]
pub struct LogLinear<const N: usize> {
    bounds: [u64; N],
    /// For each number of significant bits, the first bound that may be great enough.
    begins: [u8; 65],
}

impl<const N: usize> LogLinear<N> {
    /// N bounds from `least`, which is divisible by the steps: 100, 1000 …
    pub const fn from(least: u64) -> Self {
        let (mut bounds, mut begins) = ([0; N], [0; 65]);
        let (mut index, mut scale) = (0, least / STEPS[0]);
        while index < N {
            bounds[index] = STEPS[index % 4] * scale;
            if index % 4 == 3 {
                scale *= 10;
            }
            index += 1;
        }
        let mut bits = 1;
        while bits <= 64 {
            // The least number with that many bits.
            let least = 1 << (bits - 1);
            let mut begin = 0;
            while begin < N && bounds[begin] < least {
                begin += 1;
            }
            begins[bits] = begin as u8;
            bits += 1;
        }
        LogLinear { bounds, begins }
    }

    /// The bucket of a value: that of the first bound which is not smaller; the last one, at `N`, has no bound.
    #[inline]
    pub fn bucket(&self, value: u64) -> usize {
        let bits = 64 - value.leading_zeros() as usize;
        let mut index = usize::from(self.begins[bits]);
        while index < N && self.bounds[index] < value {
            index += 1;
        }
        index
    }

    /// The bounds, where so many of the unit are 1.
    pub fn scaled(&self, unit: f64) -> Vec<f64> {
        self.bounds.iter().map(|bound| *bound as f64 / unit).collect()
    }
}

/// The bounds of an application's histogram unless it says otherwise, for times in seconds: from 100 µs to 75 s.
pub fn default_bounds() -> Vec<f64> {
    let nanoseconds: LogLinear<24> = LogLinear::from(100_000);
    nanoseconds.scaled(1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: LogLinear<8> = LogLinear::from(100);

    #[test]
    fn bounds_are_log_linear() {
        assert_eq!(BOUNDS.bounds, [100, 250, 500, 750, 1000, 2500, 5000, 7500]);
        assert_eq!(BOUNDS.scaled(1e3)[..3], [0.1, 0.25, 0.5]);
        let bounds = default_bounds();
        assert_eq!((bounds[0], bounds[23]), (0.0001, 75.0));
    }

    #[test]
    fn a_value_belongs_to_the_first_bound_that_is_not_smaller() {
        for value in (0..9000).chain([1 << 40, u64::MAX]) {
            let expected = BOUNDS.bounds.iter().take_while(|bound| **bound < value).count();
            assert_eq!(BOUNDS.bucket(value), expected, "{value}");
        }
    }
}
