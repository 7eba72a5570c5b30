//! Pauses of the hashing threads, so that hashing does not use up a CPU limit.
//!
//! When a group of processes uses up its limit, the kernel stops all of its threads for the rest of
//! the period, also those that serve. So the hashing threads pause before that, one by one, whenever
//! the [`CpuBudget`] is spent. All of them share it.

use super::config::HashConfig;
use super::cpu_budget::CpuBudget;
use crate::clock::Clock;
use crate::cpu_limit::{CpuLimit, thread_cpu_time};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

pub(super) struct Pacer {
    clock: Clock,
    limit: CpuLimit,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    budget: CpuBudget,
    /// Whether threads no longer pause.
    ended: bool,
}

/// The CPU time of a thread up to its last report.
pub(super) struct ThreadMeter(Duration);

impl ThreadMeter {
    /// Starts at the present CPU time of the calling thread.
    pub(super) fn start() -> Self {
        Self(thread_cpu_time())
    }

    fn used_since_last(&mut self) -> Duration {
        let now = thread_cpu_time();
        now.saturating_sub(std::mem::replace(&mut self.0, now))
    }
}

impl Pacer {
    /// `None`: there is no limit, or nothing is reserved.
    pub(super) fn new(config: &HashConfig, clock: &Clock) -> Option<Self> {
        let cpu = config.cpu.as_ref().filter(|cpu| cpu.reserve_percent > 0)?;
        let limit = cpu.limit.clone();
        let (cores, hashing) = (limit.cores(), cpu.cores());
        tracing::info!(cores, hashing, "hashing is paced by the CPU limit of the container");
        let budget = CpuBudget::new(cores, cpu.reserve(), limit.period(), clock.now());
        let state = Mutex::new(State { budget, ended: false });
        Some(Self { clock: clock.clone(), limit, state, wake: Condvar::new() })
    }

    /// Reports what the calling thread has used, and pauses while the budget is spent.
    ///
    /// Returns how long it paused.
    pub(super) fn pause(&self, meter: &mut ThreadMeter) -> Duration {
        let begun = self.clock.now();
        let Ok(mut state) = self.state.lock() else { return Duration::ZERO };
        state.budget.spend(begun, meter.used_since_last());
        loop {
            let now = self.clock.now();
            state.budget.spend(now, Duration::ZERO);
            if state.budget.reading_is_due(now) {
                state.budget.read(now, self.limit.used());
            }
            let wait = state.budget.wait();
            if state.ended || wait.is_zero() {
                return now.saturating_duration_since(begun);
            }
            let Ok((woken, _)) = self.wake.wait_timeout(state, wait) else { return Duration::ZERO };
            state = woken;
        }
    }

    /// Reports what the calling thread has used, without a pause.
    pub(super) fn report(&self, meter: &mut ThreadMeter) {
        if let Ok(mut state) = self.state.lock() {
            state.budget.spend(self.clock.now(), meter.used_since_last());
        }
    }

    /// Ends all pauses, the present ones and later ones.
    pub(super) fn end(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.ended = true;
        }
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SOON;
    use crate::hashing::config::CpuShare;
    use std::sync::mpsc::channel;

    fn limited(reserve_percent: u32) -> HashConfig {
        HashConfig {
            cpu: Some(CpuShare { limit: CpuLimit::of(1.0), reserve_percent }),
            ..super::super::tests::config(4, 1, 1)
        }
    }

    #[test]
    fn the_end_wakes_threads_that_pause() {
        // On this clock no time passes, so a spent budget stays spent.
        let pacer = Pacer::new(&limited(10), &Clock::manual()).unwrap();
        pacer.state.lock().unwrap().budget.spend(pacer.clock.now(), Duration::from_secs(60));
        let (sender, ended) = channel();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (pacer, sender) = (&pacer, sender.clone());
                scope.spawn(move || {
                    pacer.pause(&mut ThreadMeter::start());
                    sender.send(()).unwrap();
                });
            }
            assert!(ended.recv_timeout(Duration::from_millis(20)).is_err(), "they pause");
            pacer.end();
            assert!(ended.recv_timeout(SOON).is_ok() && ended.recv_timeout(SOON).is_ok());
        });
        assert_eq!(pacer.pause(&mut ThreadMeter::start()), Duration::ZERO, "nor does a later one");
    }

    #[test]
    fn without_a_limit_or_a_reserve_there_is_no_pacer() {
        let clock = Clock::manual();
        assert!(Pacer::new(&limited(0), &clock).is_none());
        assert!(Pacer::new(&HashConfig { cpu: None, ..limited(10) }, &clock).is_none());
    }
}
