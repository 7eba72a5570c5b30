//! The `/metrics` page, rendered once for all concurrent scrapes.

use super::AppState;
use super::request::Call;
use super::response::Answer;
use super::response::error::ApiError;
use crate::telemetry::definitions;
use bytes::Bytes;
use hyper::StatusCode;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// The Prometheus text exposition format, version 0.0.4.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The minimum time between the starts of two renderings.
///
/// A rendering takes 1 to 2 ms of CPU, so any number of scrapers costs a few percent of a core.
const INTERVAL: Duration = Duration::from_millis(100);

/// The last page and the time at which its rendering began.
///
/// The request that renders the next page holds the lock.
#[derive(Default)]
pub struct MetricsPage(Mutex<Option<(Instant, Bytes)>>);

impl MetricsPage {
    /// Returns a page whose rendering began after this call.
    ///
    /// # Cancel safety
    /// If the rendering request is dropped, the next waiting request renders the page.
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

pub(super) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let app = call.app;
    // Moves the other tasks of this thread to another thread for the time of the rendering.
    let render = || tokio::task::block_in_place(|| render(app));
    Ok(Answer::body(StatusCode::OK, MEDIA_TYPE, app.metrics_page.rendered(render).await))
}

#[expect(clippy::cast_precision_loss, reason = "key caps are far below 2^52")]
fn render(app: &AppState) -> String {
    let AppState { auth, limiter, http_metrics, metrics, clock, log, .. } = app;
    auth.observe();
    http_metrics.rate_limited_keys.set(limiter.limited(clock.now()) as f64);
    http_metrics.rate_limit_keys.set(limiter.keys() as f64);
    metrics.counter(definitions::LOG_LINES_DROPPED, &[]).absolute(log.lines_dropped());
    metrics.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use std::sync::atomic::{AtomicU32, Ordering};

    // Regression: 64 busy connections caused one rendering per response.
    // Case F9 of the field list: 64 connections scrape in a closed loop.
    #[tokio::test]
    async fn concurrent_scrapes_share_one_rendering_that_began_after_them() {
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
    async fn a_disconnected_scraper_does_not_delay_the_others() {
        let page = MetricsPage::default();
        page.rendered(String::new).await;
        let mut leaver = Box::pin(page.rendered(|| "left".to_owned()));
        let mut stayer = Box::pin(page.rendered(|| "stayed".to_owned()));
        assert!((&mut leaver).now_or_never().is_none() && (&mut stayer).now_or_never().is_none());
        drop(leaver);
        assert_eq!(stayer.await, "stayed");
    }
}
