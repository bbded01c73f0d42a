//! Whether a processor of this machine has nothing to do (proc(5), `/proc/stat`).

use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// For how long is looked before there is an answer. The kernel counts in hundredths of a second.
const WINDOW: Duration = Duration::from_millis(100);

/// An answer, or a look, that is older than this is worth nothing.
const STALE: Duration = Duration::from_secs(1);

/// The kernel's unit, in seconds (USER_HZ is 100 on all architectures that Rust's std supports).
const TICK: f64 = 0.01;

/// The machine's processors. Looks for idle ones from time to time.
#[derive(Debug)]
pub struct Processors {
    /// How many this process may use.
    count: usize,
    /// When was looked, and what all processors together had been idle by then, in ticks.
    look: Option<(Instant, u64)>,
    /// The last answer, and when it was found.
    answer: Option<(Instant, bool)>,
}

impl Default for Processors {
    fn default() -> Self {
        let count = available_parallelism().map_or(1, NonZero::get);
        Processors { count, look: None, answer: None }
    }
}

impl Processors {
    /// How many this process may use.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether at least half a processor was idle of late; true where the system does not tell.
    /// `None` as long as that is not known: ask again soon.
    pub fn any_idle(&mut self, now: Instant) -> Option<bool> {
        if let Some((at, answer)) = self.answer
            && now.saturating_duration_since(at) < WINDOW
        {
            return Some(answer);
        }
        self.judge(now, read())
    }

    fn judge(&mut self, now: Instant, idle: Option<u64>) -> Option<bool> {
        let Some(idle) = idle else { return Some(true) };
        let (since, before) = *self.look.get_or_insert((now, idle));
        let passed = now.saturating_duration_since(since);
        if passed < WINDOW {
            return None;
        }
        self.look = Some((now, idle));
        if passed > STALE {
            return None;
        }
        let answer = idle.saturating_sub(before) as f64 * TICK >= passed.as_secs_f64() / 2.0;
        self.answer = Some((now, answer));
        Some(answer)
    }
}

/// The ticks that all processors together have been idle.
fn read() -> Option<u64> {
    // The first line is what is asked for; on large machines many more follow.
    let mut text = [0; 256];
    let length = File::open("/proc/stat").and_then(|mut file| file.read(&mut text)).ok()?;
    idle_ticks(text.get(..length)?)
}

/// The fourth and fifth number of the first line: idle, and idle while a disk is waited for.
fn idle_ticks(text: &[u8]) -> Option<u64> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    let numbers = std::str::from_utf8(line).ok()?.strip_prefix("cpu ")?;
    let mut numbers = numbers.split_ascii_whitespace().skip(3).map(str::parse::<u64>);
    Some(numbers.next()?.ok()? + numbers.next().and_then(Result::ok).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_the_fourth_and_fifth_number() {
        let text = b"cpu  1170494 55091 502879 1240422 4301 0 90725 1715 0 0\ncpu0 1 2 3 4 5";
        assert_eq!(idle_ticks(text), Some(1_244_723));
        assert_eq!(idle_ticks(b"cpu  1 2 3 4\n"), Some(4));
        for text in [&b""[..], b"cpu  1 2 3", b"cpu0 1 2 3 4 5", b"cpu  1 2 3 x 5"] {
            assert_eq!(idle_ticks(text), None);
        }
    }

    #[test]
    fn half_a_processor_that_is_idle_for_a_while_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut processors = Processors::default();
        assert_eq!(processors.judge(at(0), Some(1000)), None);
        assert_eq!(processors.judge(at(20), Some(1002)), None);
        assert_eq!(processors.judge(at(100), Some(1005)), Some(true));
        assert_eq!(processors.judge(at(200), Some(1009)), Some(false));
        // What was long ago says nothing about now.
        assert_eq!(processors.judge(at(9000), Some(1900)), None);
        assert_eq!(processors.judge(at(9100), Some(1900)), Some(false));
    }

    #[test]
    fn where_the_system_does_not_tell_processors_count_as_idle() {
        assert_eq!(Processors::default().judge(Instant::now(), None), Some(true));
    }

    #[test]
    fn this_system_tells() {
        assert!(read().is_some());
    }
}
