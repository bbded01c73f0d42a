//! The value of the Date field (RFC 9110 6.6.1), formatted once a second.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// Length of a date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
const LENGTH: usize = 29;

struct Cache {
    second: u64,
    text: [u8; LENGTH],
}

thread_local! {
    static CACHE: RefCell<Cache> = const { RefCell::new(Cache { second: u64::MAX, text: [0; LENGTH] }) };
}

/// Calls `use_it` with the date of now; `None` if the clock is set before 1970.
pub fn with_now<R>(use_it: impl FnOnce(Option<&[u8]>) -> R) -> R {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return use_it(None) };
    CACHE.with_borrow_mut(|cache| {
        if cache.second != now.as_secs() {
            *cache = Cache { second: now.as_secs(), text: format(now.as_secs()) };
        }
        use_it(Some(&cache.text))
    })
}

/// The IMF-fixdate (RFC 9110 5.6.7) of a time in seconds since 1970.
fn format(seconds: u64) -> [u8; LENGTH] {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = seconds / 86_400;
    let (year, month, day) = civil(days);
    let text = format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        DAYS.get((days % 7) as usize).copied().unwrap_or_default(),
        MONTHS.get(month as usize).copied().unwrap_or_default(),
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    );
    let mut date = [b' '; LENGTH];
    for (to, from) in date.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    date
}

/// Year, month (from 0) and day of month of a day counted from 1970-01-01 (Gregorian calendar).
fn civil(days: u64) -> (u64, u64, u64) {
    // Years that begin in March put the leap day last; 146097 days are 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: u64) -> String {
        String::from_utf8(format(seconds).to_vec()).unwrap()
    }

    #[test]
    fn dates_have_the_fixed_format_of_rfc_9110() {
        assert_eq!(text(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(text(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(text(4_107_542_399), "Sun, 28 Feb 2100 23:59:59 GMT");
        assert_eq!(text(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
    }
}
