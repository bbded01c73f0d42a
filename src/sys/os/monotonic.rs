//! The monotonic clock, which all processes share, as one number: it is asked for each request.

/// The time, in nanoseconds.
#[inline]
pub fn nanoseconds() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call stores the time in `now`. It does not fail with this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let before = nanoseconds();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(nanoseconds() >= before + 2_000_000);
    }
}
