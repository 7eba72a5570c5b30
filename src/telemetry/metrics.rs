//! The handle for counting, and the rendered page.

use super::definitions::{self, DEFINITIONS, Kind, MetricDefinition, SECONDS_BUCKETS};
use dashmap::DashMap;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use std::sync::Arc;
use std::time::Duration;

const METADATA: Metadata<'static> = Metadata::new("staunch", Level::INFO, None);

/// One set of metrics. Cheap to clone; all clones share the set.
///
/// Label values are `&'static str`, so that no user name, address or path can become one.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    recorder: metrics_exporter_prometheus::PrometheusRecorder,
    handle: PrometheusHandle,
    process: metrics_process::Collector,
    /// The two handles of each (route, method, status) seen so far, so that a request costs one
    /// look-up instead of two registrations. Bounded, because all three come from fixed sets.
    requests: DashMap<(&'static str, &'static str, u16), (Counter, Histogram)>,
}

impl Metrics {
    /// Creates a set in which every defined metric has its description.
    ///
    /// # Errors
    /// When the bucket list is empty, which it is not.
    pub fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new().set_buckets(&SECONDS_BUCKETS)?.build_recorder();
        for metric in DEFINITIONS {
            let (name, unit, help) = (metric.name.into(), metric.unit, metric.help.trim().into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram => recorder.describe_histogram(name, unit, help),
            }
        }
        let process = metrics_process::Collector::default();
        ::metrics::with_local_recorder(&recorder, || process.describe());
        let handle = recorder.handle();
        let metrics = Self(Arc::new(Inner { recorder, handle, process, requests: DashMap::new() }));
        // A fresh server shows zeros, not gaps.
        for metric in DEFINITIONS {
            match metric.labels {
                [] => metrics.begin(metric, &[]),
                [(label, values)] => {
                    for value in *values {
                        metrics.begin(metric, &[(label, value)]);
                    }
                }
                _ => {}
            }
        }
        metrics.gauge(definitions::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        Ok(metrics)
    }

    /// Returns the counter with this name and these labels. Keep it where it is used often.
    pub fn counter(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Counter {
        self.0.recorder.register_counter(&key(name, labels), &METADATA)
    }

    /// Returns the gauge with this name and these labels.
    pub fn gauge(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Gauge {
        self.0.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    /// Returns the histogram with this name and these labels.
    pub fn histogram(
        &self,
        name: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Histogram {
        self.0.recorder.register_histogram(&key(name, labels), &METADATA)
    }

    /// Returns the counters of a metric with one label, one for each defined value.
    pub fn family(&self, name: &'static str) -> Family {
        let definition = DEFINITIONS.iter().find(|metric| metric.name == name);
        let labels = definition.map_or(&[][..], |metric| metric.labels);
        let counters = labels.iter().flat_map(|(label, values)| {
            values.iter().map(|value| (*value, self.counter(name, &[(label, value)])))
        });
        Family(counters.collect())
    }

    fn begin(&self, metric: &MetricDefinition, labels: &[(&'static str, &'static str)]) {
        match metric.kind {
            Kind::Counter => self.counter(metric.name, labels).increment(0),
            Kind::Gauge => self.gauge(metric.name, labels).increment(0.0),
            Kind::Histogram => drop(self.histogram(metric.name, labels)),
        }
    }

    /// Counts one answered request and its time.
    pub fn request(&self, route: &'static str, method: &'static str, status: u16, took: Duration) {
        let key = (route, method, status);
        if let Some(handles) = self.0.requests.get(&key) {
            let (requests, seconds) = handles.value();
            requests.increment(1);
            seconds.record(took);
            return;
        }
        let labels = vec![
            Label::from_static_parts("route", route),
            Label::from_static_parts("method", method),
            Label::new("status", status.to_string()),
        ];
        let requests = self
            .0
            .recorder
            .register_counter(&Key::from_parts(definitions::HTTP_REQUESTS, labels), &METADATA);
        let seconds = self.histogram(definitions::HTTP_REQUEST_SECONDS, &[("route", route)]);
        requests.increment(1);
        seconds.record(took);
        self.0.requests.insert(key, (requests, seconds));
    }

    /// Renders all metrics, including those of the process, in the Prometheus text format.
    pub fn render(&self) -> String {
        ::metrics::with_local_recorder(&self.0.recorder, || self.0.process.collect());
        self.0.handle.render()
    }

    /// Moves recorded durations into their buckets.
    ///
    /// Until a scrape or this call, they stay in memory. Call it every few seconds, so that a server
    /// without scrapes does not grow.
    pub fn upkeep(&self) {
        self.0.handle.run_upkeep();
    }
}

/// The counters of one metric, by label value. Counting searches a short list.
pub struct Family(Box<[(&'static str, Counter)]>);

impl Family {
    /// Increments the counter of a label value. An undefined value is not counted.
    pub fn increment(&self, value: &str) {
        let counter = self.0.iter().find(|(defined, _)| *defined == value);
        debug_assert!(counter.is_some(), "{value} is not defined");
        if let Some((_, counter)) = counter {
            counter.increment(1);
        }
    }
}

fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|(label, value)| Label::from_static_parts(label, value)).collect();
    Key::from_parts(name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sets_count_separately_and_render_help_texts() {
        let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.request("/health/liveness", "GET", 200, Duration::from_millis(3));
        one.request("/health/liveness", "GET", 200, Duration::from_millis(3));
        let page = one.render();
        let line =
            r#"staunch_http_requests_total{route="/health/liveness",method="GET",status="200"} 2"#;
        assert!(page.contains(line), "{page}");
        assert!(page.contains("# HELP staunch_http_requests_total Requests answered"), "{page}");
        assert!(page.contains(
            r#"staunch_http_request_seconds_bucket{route="/health/liveness",le="0.005"} 2"#
        ));
        assert!(page.contains("process_resident_memory_bytes"), "{page}");
        assert!(!other.render().contains(line));
    }
}
