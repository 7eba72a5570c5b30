//! Measures work the way the server does it: on all hashing threads at once.

use crate::clock::Clock;
use crate::hashing::priority;
use std::time::{Duration, Instant};

/// The time of one window. It contains a few tens of steps.
///
/// Other virtual machines and programs take a core for milliseconds. A shorter window would miss
/// most of that, and the median of the windows would show a free core.
const WINDOW: Duration = Duration::from_millis(8);
/// The most steps of a window. Only a clock that stands still reaches it.
const STEPS_MAX: u32 = 40;

/// Something to measure. Each call is one step of it, and returns the number of rounds done.
pub(super) type Work = Box<dyn FnMut() -> u32>;

/// The time of one round, as measured in all windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoundTime {
    /// In the fastest step of any thread.
    pub(super) least: Duration,
    /// The median of the windows, each averaged over all threads.
    pub(super) median: Duration,
}

impl RoundTime {
    /// Stands for a measurement that failed, which only a panic in a thread can cause.
    pub(super) const UNMEASURED: Self = Self { least: Duration::MAX, median: Duration::MAX };
}

/// What one thread measured in one window: the time of a round.
#[derive(Clone, Copy)]
struct Window {
    /// In the fastest step.
    least: Duration,
    mean: Duration,
}

/// Measures several kinds of work on all threads together, for at most `time`.
///
/// The kinds alternate, so that a slow phase of the machine affects all of them. Each is measured in
/// `windows` windows, in fewer if the time is over, and in at least one.
pub(super) fn measure(
    threads: usize,
    windows: usize,
    time: Duration,
    clock: &Clock,
    kinds: impl Fn() -> Vec<Work> + Sync,
) -> Vec<RoundTime> {
    let end = clock.now() + time;
    let measured: Vec<_> = std::thread::scope(|scope| {
        let spawn = |_| scope.spawn(|| on_one_thread(kinds(), windows, end, clock));
        let running: Vec<_> = (0..threads.max(1)).map(spawn).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let kinds = measured.first().map_or(0, Vec::len);
    (0..kinds).map(|kind| combine(&of_kind(&measured, kind))).collect()
}

/// The windows of each thread, for one kind of work.
fn of_kind(measured: &[Vec<Vec<Window>>], kind: usize) -> Vec<&[Window]> {
    measured.iter().filter_map(|kinds| kinds.get(kind)).map(Vec::as_slice).collect()
}

fn on_one_thread(
    mut kinds: Vec<Work>,
    windows: usize,
    end: Instant,
    clock: &Clock,
) -> Vec<Vec<Window>> {
    // As the hashing threads. If it fails, it fails for them too, and they warn.
    priority::lower().ok();
    let mut measured: Vec<_> = kinds.iter().map(|_| Vec::with_capacity(windows)).collect();
    for number in 0..windows {
        for (work, measured) in kinds.iter_mut().zip(&mut measured) {
            if number == 0 || clock.now() < end {
                measured.push(window(work, clock));
            }
        }
    }
    measured
}

fn window(work: &mut Work, clock: &Clock) -> Window {
    let begun = clock.now();
    let (mut least, mut rounds, mut step_begun) = (Duration::MAX, 0, begun);
    for _ in 0..STEPS_MAX {
        let step_rounds = work().max(1);
        // As a worker after each slice.
        std::thread::yield_now();
        let now = clock.now();
        least = least.min(now.saturating_duration_since(step_begun) / step_rounds);
        rounds += step_rounds;
        step_begun = now;
        if now.saturating_duration_since(begun) >= WINDOW {
            break;
        }
    }
    let nonzero = |time: Duration| time.max(Duration::from_nanos(1));
    let mean = step_begun.saturating_duration_since(begun) / rounds.max(1);
    Window { least: nonzero(least), mean: nonzero(mean) }
}

/// Combines the windows of all threads. Windows of one number ran at about the same time.
fn combine(threads: &[&[Window]]) -> RoundTime {
    let all = threads.iter().flat_map(|windows| windows.iter());
    let least = all.map(|window| window.least).min().unwrap_or(Duration::MAX);
    let complete = threads.iter().map(|windows| windows.len()).min().unwrap_or(0);
    let mut means: Vec<Duration> = (0..complete).map(|number| together(threads, number)).collect();
    means.sort_unstable();
    RoundTime { least, median: means.get(means.len() / 2).copied().unwrap_or(Duration::MAX) }
}

/// The time of a round in one window, so that the threads' rates are averaged.
fn together(threads: &[&[Window]], number: usize) -> Duration {
    let means = threads.iter().filter_map(|windows| windows.get(number)).map(|window| window.mean);
    let (count, rates) =
        means.fold((0.0, 0.0), |(count, sum), mean| (count + 1.0, sum + 1.0 / mean.as_secs_f64()));
    Duration::try_from_secs_f64(count / rates).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(of: &[(u64, u64)]) -> Vec<Window> {
        let micros = Duration::from_micros;
        of.iter()
            .map(|(least, mean)| Window { least: micros(*least), mean: micros(*mean) })
            .collect()
    }

    #[test]
    fn the_least_is_of_any_thread_and_the_median_of_the_windows_of_all() {
        let first = windows(&[(50, 60), (50, 100), (50, 60)]);
        // The fourth window has no counterpart.
        let second = windows(&[(50, 60), (40, 300), (50, 120), (50, 999)]);
        let combined = combine(&[&first, &second]);
        assert_eq!(combined.least, Duration::from_micros(40));
        // 60; 150 (rates of 1/100 and 1/300); 80 (rates of 1/60 and 1/120).
        assert_eq!(combined.median, Duration::from_micros(80));
    }

    // Case C2 of the field list: one thread alone says little about several that share the cores.
    #[test]
    fn all_threads_measure_at_the_same_time() {
        let running = std::sync::Barrier::new(3);
        let kinds = || -> Vec<Work> {
            running.wait();
            vec![Box::new(|| 4), Box::new(|| 8)]
        };
        let measured = measure(3, 2, Duration::from_secs(1), &Clock::system(), kinds);
        assert_eq!(measured.len(), 2);
        assert!(measured.iter().all(|time| time.least <= time.median));
    }

    #[test]
    fn a_clock_that_stands_still_does_not_hang_it() {
        let kinds = || -> Vec<Work> { vec![Box::new(|| 4)] };
        let measured = measure(1, 3, Duration::from_secs(1), &Clock::manual(), kinds);
        let nanosecond = Duration::from_nanos(1);
        assert_eq!(measured, [RoundTime { least: nanosecond, median: nanosecond }]);
    }
}
