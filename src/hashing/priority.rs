//! Hashing gives way: it fills every core it gets, while everything else needs little, at once.

/// Weak, but not the weakest: against a thread of the usual class this one still gets a tenth of a
/// core. What keeps the others fast is the yield at the end of each slice; weaker classes (nice 19,
/// SCHED_IDLE) gained nothing beside it, and a thread that is put off for long while it holds a
/// lock of the reply's runtime stalls everybody (refresh p99 at SCHED_IDLE: 100 to 300 ms in five
/// runs of six; at nice 10: 3 to 20 ms).
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
