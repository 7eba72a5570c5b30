//! Hashing gives way: it fills every core it gets, while everything else needs little, at once.

/// Puts this thread below all others.
///
/// On Linux that is SCHED_IDLE rather than a weak nice value: a thread of the usual class that wakes
/// preempts it at once, where it would let a nice 19 thread finish its slice of some milliseconds
/// (EEVDF, since Linux 6.6). It needs no privilege.
///
/// # Errors
/// When the operating system refuses; the thread then stays as it is.
pub(super) fn lower() -> Result<(), thread_priority::Error> {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
        thread_priority::set_thread_priority_and_policy(
            thread_priority::thread_native_id(),
            ThreadPriority::Min,
            ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle),
        )
    }
    #[cfg(not(target_os = "linux"))]
    thread_priority::set_current_thread_priority(thread_priority::ThreadPriority::Min)
}
