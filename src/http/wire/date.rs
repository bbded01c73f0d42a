//! The value of the Date field (RFC 9110 6.6.1), formatted once a second.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// The last second that the format can represent: the end of the year 9999.
const LAST: u64 = 253_402_300_799;

struct Cache {
    second: u64,
    text: String,
}

thread_local! {
    static CACHE: RefCell<Cache> = const { RefCell::new(Cache { second: u64::MAX, text: String::new() }) };
}

/// Calls `use_it` with the current date; `None` if the clock is set before 1970.
pub fn with_now<R>(use_it: impl FnOnce(Option<&[u8]>) -> R) -> R {
    // The time of the kernel's last tick is cheap, and accurate enough for seconds.
    let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map(|now| u64::try_from(now.tv_sec()));
    let Ok(Ok(second)) = now else { return use_it(None) };
    CACHE.with_borrow_mut(|cache| {
        if cache.second != second {
            *cache = Cache { second, text: format(second) };
        }
        use_it(Some(cache.text.as_bytes()))
    })
}

/// The IMF-fixdate (RFC 9110 5.6.7) of a time in seconds since 1970.
fn format(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_the_fixed_format_of_rfc_9110() {
        assert_eq!(format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(format(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(format(4_107_542_399), "Sun, 28 Feb 2100 23:59:59 GMT");
        assert_eq!(format(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
    }
}
