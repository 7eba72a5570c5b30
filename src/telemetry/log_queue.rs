//! The bounded queue of log lines, and the thread that writes them to standard error.
//!
//! A logging thread appends its line to a shared buffer, without an allocation for each line, and
//! wakes the writer only if the writer sleeps. The writer takes the whole buffer, writes it with one
//! system call, and then waits a moment, so that lines of a busy server accumulate.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Size of all waiting lines, about 27,000; more are dropped. Unit: bytes.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// Memory of the waiting lines and of those being written: both buffers may have grown to twice the
/// size of their content. Unit: bytes.
pub const BYTES_MAX: u64 = 4 * WAITING_BYTES_MAX as u64;
/// Buffer size that is kept after a burst. Unit: bytes.
const KEPT_BYTES: usize = 256 << 10;
/// Pause of the writer between two writes.
const PAUSE: Duration = Duration::from_millis(2);
/// Time limit for the remaining lines at the end.
const END_DEADLINE: Duration = Duration::from_secs(1);

/// The queue. Cheap to clone.
#[derive(Clone)]
pub(super) struct LogQueue(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// The writer waits for the first line.
    is_idle: bool,
    /// No more lines will come.
    is_ending: bool,
    /// The writer has written everything and is gone.
    has_ended: bool,
}

impl LogQueue {
    /// Starts the thread that writes to `output`.
    ///
    /// If the thread cannot be started, every line counts as dropped.
    pub(super) fn start(output: impl Write + Send + 'static) -> (Self, LogGuard) {
        let queue = Self(Arc::new(Inner {
            state: Mutex::default(),
            changed: Condvar::new(),
            dropped: AtomicU64::new(0),
        }));
        let writer = queue.clone();
        let thread = std::thread::Builder::new().name("staunch-log".into());
        if thread.spawn(move || writer.write_to(output)).is_err() {
            queue.with(|state| (state.is_ending, state.has_ended) = (true, true));
        }
        (queue.clone(), LogGuard(queue))
    }

    /// Lines dropped since the start because the output was too slow.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// Appends a line, or counts it as dropped.
    pub(super) fn push(&self, line: &[u8]) {
        let wake = self.with(|state| {
            if state.has_ended || state.lines.len() + line.len() > WAITING_BYTES_MAX {
                self.0.dropped.fetch_add(1, Relaxed);
                return false;
            }
            state.lines.extend_from_slice(line);
            std::mem::take(&mut state.is_idle)
        });
        if wake {
            self.0.changed.notify_all();
        }
    }

    /// The writer's loop.
    fn write_to(&self, mut output: impl Write) {
        let mut taken = Vec::new();
        loop {
            let is_last = self.take(&mut taken);
            // An error cannot be logged. The lines are lost.
            output.write_all(&taken).and_then(|()| output.flush()).ok();
            taken.clear();
            taken.shrink_to(KEPT_BYTES);
            if is_last {
                break;
            }
        }
        self.with(|state| state.has_ended = true);
        self.0.changed.notify_all();
    }

    /// Waits for lines and swaps them into `taken`. Returns whether they are the last ones.
    fn take(&self, taken: &mut Vec<u8>) -> bool {
        let Inner { state, changed, .. } = &*self.0;
        let Ok(state) = state.lock() else { return true };
        let paused = changed.wait_timeout_while(state, PAUSE, |state| !state.is_ending);
        let Ok((state, _)) = paused else { return true };
        let filled = changed.wait_while(state, |state| {
            state.is_idle = state.lines.is_empty() && !state.is_ending;
            state.is_idle
        });
        let Ok(mut state) = filled else { return true };
        std::mem::swap(&mut state.lines, taken);
        state.is_ending
    }

    /// Nothing panics while it holds the lock, so the lock is never poisoned.
    fn with<T: Default>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        self.0.state.lock().map_or_else(|_| T::default(), |mut state| act(&mut state))
    }
}

/// One write is one line.
impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

/// Writes the remaining lines when it is dropped, for at most a second.
#[must_use = "the log ends when the guard is dropped"]
pub struct LogGuard(LogQueue);

impl Drop for LogGuard {
    fn drop(&mut self) {
        let LogQueue(inner) = &self.0;
        self.0.with(|state| state.is_ending = true);
        inner.changed.notify_all();
        if let Ok(state) = inner.state.lock() {
            let ended =
                inner.changed.wait_timeout_while(state, END_DEADLINE, |state| !state.has_ended);
            drop(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// An output whose every write waits for permission.
    struct Gate {
        open: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.open.recv().map_err(io::Error::other)?;
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (Sender<()>, Arc<Mutex<Vec<u8>>>, Gate) {
        let (open, gate) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        (open, Arc::clone(&written), Gate { open: gate, written })
    }

    #[test]
    fn lines_of_all_threads_are_written_whole_and_the_guard_writes_the_rest() {
        let (open, written, gate) = gate();
        for _ in 0..10_000 {
            open.send(()).unwrap();
        }
        let (queue, guard) = LogQueue::start(gate);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let queue = &queue;
                scope.spawn(move || {
                    for n in 0..1_000 {
                        queue.push(format!("{thread} {n}\n").as_bytes());
                    }
                });
            }
        });
        drop(guard);
        let text = String::from_utf8(std::mem::take(&mut written.lock().unwrap())).unwrap();
        for thread in 0..4 {
            let own = text.lines().filter_map(|line| line.strip_prefix(&format!("{thread} ")));
            let numbers: Vec<u32> = own.map(|n| n.parse().unwrap()).collect();
            assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
        }
        assert_eq!((text.lines().count(), queue.dropped()), (4_000, 0));
    }

    #[test]
    fn a_blocked_output_drops_lines_and_bounds_the_memory_and_the_end() {
        let (open, written, gate) = gate();
        let (queue, guard) = LogQueue::start(gate);
        let line = [b'x'; 1 << 10];
        // Twice what both buffers hold: one blocked in the output, one waiting.
        let pushed = 4 * (WAITING_BYTES_MAX >> 10) as u64;
        for _ in 0..pushed {
            queue.push(&line);
        }
        let dropped = queue.dropped();
        assert!(dropped >= pushed / 2, "{dropped} of {pushed}");
        assert!(queue.with(|state| state.lines.capacity()) <= 2 * WAITING_BYTES_MAX);
        // Ends although the output is blocked.
        drop(guard);
        assert!(written.lock().unwrap().is_empty());
        drop(open);
    }
}
