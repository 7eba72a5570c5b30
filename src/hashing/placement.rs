//! Keeps the hashing threads on different cores.
//!
//! The kernel moves a waiting thread to another core when that core becomes idle, but not if the core
//! has seldom been idle for long. Under a flood of refused logins each core is idle for many short
//! moments. Two hashing threads then stay on one core for seconds (seen with Linux 6.18), and almost a
//! third of the machine is idle. So a worker that shares its core with another one for some slices
//! moves to another core by itself.
//!
//! The threads are not bound to cores for good. A bound thread would wait for its core while a program
//! of higher priority uses it, even if another core is free.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Slices on a shared core before a worker moves: 5 to 13 ms. Sharing for a moment is usual, for
/// example while another program uses a core.
const SHARED_SLICES_MAX: u32 = 16;
/// Stands for the core of a worker without work.
const NO_CORE: usize = usize::MAX;

/// The core of each busy worker.
pub(super) struct Cores(Vec<AtomicUsize>);

impl Cores {
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| AtomicUsize::new(NO_CORE)).collect())
    }

    /// Records that a worker has no work.
    pub(super) fn leave(&self, worker: usize) {
        self.set(worker, NO_CORE);
    }

    fn set(&self, worker: usize, core: usize) {
        if let Some(known) = self.0.get(worker) {
            known.store(core, Relaxed);
        }
    }

    /// The cores of the busy workers.
    fn taken(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|core| core.load(Relaxed)).filter(|core| *core != NO_CORE)
    }

    /// Whether a worker of a lower index is on that core. So only one of two workers moves.
    fn is_taken(&self, worker: usize, core: usize) -> bool {
        self.0.iter().take(worker).any(|other| other.load(Relaxed) == core)
    }
}

/// How long one worker has shared its core.
#[derive(Default)]
pub(super) struct CoreSharing {
    slices: u32,
}

impl CoreSharing {
    /// Records the core of a slice. Moves the calling thread if it has shared the core for too long.
    pub(super) fn end_slice(&mut self, cores: &Cores, worker: usize) {
        if let Some(core) = current_core()
            && self.is_too_long(cores, worker, core)
        {
            // If the operating system refuses, the thread stays where it is.
            leave_cores(cores.taken()).ok();
        }
    }

    fn is_too_long(&mut self, cores: &Cores, worker: usize, core: usize) -> bool {
        cores.set(worker, core);
        self.slices = if cores.is_taken(worker, core) { self.slices + 1 } else { 0 };
        let is_too_long = self.slices >= SHARED_SLICES_MAX;
        if is_too_long {
            self.slices = 0;
        }
        is_too_long
    }
}

#[cfg(target_os = "linux")]
fn current_core() -> Option<usize> {
    Some(rustix::thread::sched_getcpu())
}

/// Moves the calling thread to a core that is not in `taken`, if it may use one.
///
/// # Errors
/// The operating system refuses.
#[cfg(target_os = "linux")]
fn leave_cores(taken: impl Iterator<Item = usize>) -> std::io::Result<()> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None)?;
    let mut free = allowed;
    taken.filter(|core| *core < CpuSet::MAX_CPU).for_each(|core| free.unset(core));
    if free.count() == 0 {
        return Ok(());
    }
    // The first call moves the thread, the second lets the kernel move it again.
    sched_setaffinity(None, &free)?;
    Ok(sched_setaffinity(None, &allowed)?)
}

#[cfg(not(target_os = "linux"))]
fn current_core() -> Option<usize> {
    None
}

#[cfg(not(target_os = "linux"))]
fn leave_cores(_taken: impl Iterator<Item = usize>) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records slices, and returns how often the worker had to move.
    fn moves(sharing: &mut CoreSharing, cores: &Cores, slices: u32, core: usize) -> usize {
        (0..slices).filter(|_| sharing.is_too_long(cores, 1, core)).count()
    }

    #[test]
    fn the_worker_of_the_higher_index_moves_after_some_slices_on_a_shared_core() {
        let (cores, mut first, mut second) =
            (Cores::new(2), CoreSharing::default(), CoreSharing::default());
        assert!(!first.is_too_long(&cores, 0, 3));
        assert_eq!(moves(&mut second, &cores, SHARED_SLICES_MAX - 1, 3), 0);
        assert_eq!(moves(&mut second, &cores, 1, 5), 0, "on another core");
        assert_eq!(moves(&mut second, &cores, SHARED_SLICES_MAX, 3), 1);
        assert!((0..99).all(|_| !first.is_too_long(&cores, 0, 3)), "the other one stays");
        cores.leave(0);
        assert_eq!(moves(&mut second, &cores, 99, 3), 0, "the other one has no work");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_leaves_its_core_and_may_still_use_every_core() {
        use rustix::thread::sched_getaffinity;
        let allowed = sched_getaffinity(None).unwrap();
        let first = current_core().unwrap();
        let clock = crate::clock::Clock::system();
        let until = clock.now() + crate::SOON;
        while allowed.count() > 1 && current_core() == Some(first) {
            leave_cores([first].into_iter()).unwrap();
            assert!(clock.now() < until, "it stays on core {first}");
        }
        let every = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        leave_cores(every).unwrap();
        assert_eq!(sched_getaffinity(None).unwrap(), allowed);
    }
}
