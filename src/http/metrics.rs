//! `/metrics`: rendered on request, once for all scrapes at the same time.

use super::Edge;
use super::response::Answer;
use crate::telemetry::definitions;
use bytes::Bytes;
use hyper::StatusCode;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// The Prometheus text exposition format, version 0.0.4.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Shortest time from the start of one rendering to that of the next. One takes a millisecond or two
/// of CPU, so any number of scrapers costs a few percent of a core.
const INTERVAL: Duration = Duration::from_millis(100);

/// The page that was rendered last, and when that began. Held by the request that renders the next.
#[derive(Default)]
pub struct MetricsPage(Mutex<Option<(Instant, Bytes)>>);

impl MetricsPage {
    /// A page whose rendering began after this was called.
    ///
    /// # Cancel safety
    /// The next waiting request takes over.
    async fn rendered(&self, render: impl FnOnce() -> String) -> Bytes {
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((begun, page)) = &*last {
            if *begun >= asked {
                return page.clone();
            }
            sleep_until(*begun + INTERVAL).await;
        }
        let begun = Instant::now();
        let page = Bytes::from(render());
        *last = Some((begun, page.clone()));
        page
    }
}

pub(super) async fn answer(edge: &Edge) -> Answer {
    // The runtime gives the other tasks of this thread to another one meanwhile.
    let render = || tokio::task::block_in_place(|| render(edge));
    Answer::body(StatusCode::OK, MEDIA_TYPE, edge.metrics_page.rendered(render).await)
}

#[expect(clippy::cast_precision_loss, reason = "key caps are far below 2^52")]
fn render(edge: &Edge) -> String {
    let Edge { auth, limiter, meters, metrics, clock, log, .. } = edge;
    auth.observe();
    meters.rate_limited_keys.set(limiter.limited(clock.now()) as f64);
    meters.rate_limit_keys.set(limiter.keys() as f64);
    metrics.counter(definitions::LOG_LINES_DROPPED, &[]).absolute(log.lines_dropped());
    metrics.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use std::sync::atomic::{AtomicU32, Ordering};

    // Case F9 of the field list: 64 connections that ask all the time, a rendering for each answer.
    #[tokio::test]
    async fn scrapes_at_the_same_time_share_a_rendering_that_began_after_them() {
        let (page, renderings) = (MetricsPage::default(), AtomicU32::new(0));
        let render = || renderings.fetch_add(1, Ordering::SeqCst).to_string();
        let begun = Instant::now();
        assert_eq!(page.rendered(render).await, "0");
        let answers = join_all((0..64).map(|_| page.rendered(render))).await;
        assert!(answers.iter().all(|answer| *answer == "1"), "{answers:?}");
        assert_eq!(page.rendered(render).await, "2", "a page is never older than its request");
        assert!(begun.elapsed() >= INTERVAL * 2);
    }

    #[tokio::test]
    async fn a_scraper_that_leaves_does_not_delay_the_others() {
        let page = MetricsPage::default();
        page.rendered(String::new).await;
        let mut leaver = Box::pin(page.rendered(|| "left".to_owned()));
        let mut stayer = Box::pin(page.rendered(|| "stayed".to_owned()));
        assert!((&mut leaver).now_or_never().is_none() && (&mut stayer).now_or_never().is_none());
        drop(leaver);
        assert_eq!(stayer.await, "stayed");
    }
}
