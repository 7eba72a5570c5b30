//! The result of a scenario, as JSON and as a table.

use crate::stats::{Stats, Times};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// A scenario's parts: one for each kind of call.
#[derive(Default)]
pub(crate) struct Report {
    parts: Vec<Part>,
}

struct Part {
    name: &'static str,
    stats: Stats,
    /// The time in which its calls were answered.
    seconds: f64,
}

impl Report {
    pub(crate) fn of(name: &'static str, stats: Stats, seconds: f64) -> Self {
        Self::default().and(name, stats, seconds)
    }

    pub(crate) fn and(mut self, name: &'static str, stats: Stats, seconds: f64) -> Self {
        self.parts.push(Part { name, stats, seconds });
        self
    }

    pub(crate) fn json(&self) -> String {
        let parts: Map<_, _> =
            self.parts.iter().map(|part| (part.name.to_owned(), part.json())).collect();
        format!("{:#}", Value::Object(parts))
    }

    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        for (index, part) in self.parts.iter().enumerate() {
            if index == 0 {
                let _ = writeln!(
                    out,
                    "{:<20}{:>9}{:>11}{:>10}{:>10}{:>10}{:>10}{:>10}",
                    "", "calls", "a second", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms"
                );
            }
            part.lines(&mut out);
        }
        out
    }
}

impl Part {
    fn rate(&self) -> f64 {
        self.stats.ok().map_or(0.0, |times| times.len() as f64 / self.seconds)
    }

    fn json(&self) -> Value {
        let outcomes = self.stats.outcomes();
        let statuses: Map<_, _> =
            outcomes.map(|(name, times)| (name.to_owned(), json!(times.len()))).collect();
        let others = self.stats.outcomes().filter(|(name, _)| *name != "200");
        let others: Map<_, _> =
            others.map(|(name, times)| (name.to_owned(), milliseconds(times))).collect();
        json!({
            "seconds": self.seconds,
            "statuses": statuses,
            "ok_per_second": self.rate(),
            "ok_ms": self.stats.ok().map(milliseconds),
            "others_ms": others,
            "lag_ms": self.stats.lag().map(milliseconds),
        })
    }

    fn lines(&self, out: &mut String) {
        if self.stats.ok().is_none() {
            let _ = writeln!(out, "{:<20}{:>9}", self.name, 0);
        }
        for (outcome, times) in self.stats.outcomes() {
            if outcome == "200" {
                line(out, self.name, &format!("{:.1}", self.rate()), times);
            } else {
                line(out, &format!("  {outcome}"), "", times);
            }
        }
        if let Some(lag) = self.stats.lag() {
            line(out, "  of which unsent", "", lag);
        }
    }
}

fn line(out: &mut String, name: &str, rate: &str, times: &Times) {
    let _ = write!(out, "{name:<20}{:>9}{rate:>11}", times.len());
    for quantile in QUANTILES {
        let _ = write!(out, "{:>10.2}", at(times, quantile.1));
    }
    let _ = writeln!(out, "{:>10.2}", at(times, 1.0));
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];

fn milliseconds(times: &Times) -> Value {
    let mut out = Map::new();
    for (name, quantile) in QUANTILES {
        out.insert(name.to_owned(), json!(at(times, quantile)));
    }
    out.insert("max".to_owned(), json!(at(times, 1.0)));
    Value::Object(out)
}

/// The time in milliseconds.
fn at(times: &Times, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1000.0
}
