//! How long this process computes before others have their turn.

/// The shortest slice that the kernel gives, in nanoseconds.
const SHORTEST: u64 = 100_000;

/// Asks for the shortest time slices. A process that seldom has much to do gets a processor sooner then, when it wakes
/// up among others that compute (Linux 6.12 and later; others ignore it). Nothing changes if the process has a
/// scheduling policy of its own, or the kernel refuses.
pub fn shorten() {
    // SAFETY: the calls take no pointers.
    let (policy, nice) =
        unsafe { (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0)) };
    if policy != libc::SCHED_OTHER {
        return;
    }
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: SHORTEST,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: `attributes` is valid during the call, and as long as it says.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_slice_changes() {
        // The attributes are those of a thread.
        std::thread::spawn(|| {
            let read = || {
                // SAFETY: all-zero is valid, and the kernel writes no more than the given size.
                unsafe {
                    let mut read: libc::sched_attr = std::mem::zeroed();
                    let size = size_of::<libc::sched_attr>();
                    assert_eq!(
                        libc::syscall(libc::SYS_sched_getattr, 0, &raw mut read, size, 0),
                        0
                    );
                    read
                }
            };
            let before = read();
            shorten();
            let after = read();
            assert_eq!(
                (after.sched_policy, after.sched_nice, after.sched_flags),
                (before.sched_policy, before.sched_nice, before.sched_flags)
            );
            assert!(after.sched_runtime <= before.sched_runtime);
        })
        .join()
        .unwrap();
    }
}
