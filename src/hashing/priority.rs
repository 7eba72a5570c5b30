//! Hashing gives way: it fills every core it gets, while everything else needs little, at once.

/// Weak, but not the weakest: against a thread of the usual class this one still gets a tenth of a
/// core. What keeps the others fast is the yield at the end of each slice; weaker classes (nice 19,
/// SCHED_IDLE) gained nothing that could be measured beside it, and get next to nothing of a core
/// that somebody else wants: a starved thread may hold a lock of the runtime that it answers to.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Puts this thread behind others. Needs no privilege.
///
/// # Errors
/// When the operating system refuses; the thread then stays as it is.
pub(super) fn lower() -> std::io::Result<()> {
    // On Linux, and there alone, a thread's id names that thread and not its process.
    #[cfg(target_os = "linux")]
    rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE)?;
    Ok(())
}
