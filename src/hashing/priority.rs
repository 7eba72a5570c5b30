//! Lower thread priority, because hashing can fill every core and other work must not wait.

/// The nice value of hashing threads: a low priority, but not the lowest.
///
/// Against a thread of normal priority such a thread still gets a tenth of a core. The yield at the
/// end of each slice is what keeps other threads fast. Lower priorities (nice 19, SCHED_IDLE)
/// showed no measurable gain in addition, and get almost no time on a busy core. A starved thread
/// may then hold a lock of the runtime that it answers to.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Lowers the priority of the calling thread. Needs no privilege.
///
/// # Errors
/// The operating system refuses; the priority of the thread stays unchanged.
pub(super) fn lower() -> std::io::Result<()> {
    // Only on Linux does a thread id name the thread and not its process.
    #[cfg(target_os = "linux")]
    rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE)?;
    Ok(())
}
