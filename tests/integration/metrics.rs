//! /metrics, and the documentation's tables of settings and metrics.

use crate::support::{PASSWORD, TestApp};
use staunch::config::SETTINGS;
use staunch::telemetry::definitions::{DEFINITIONS, Kind};
use std::collections::BTreeSet;

/// Metrics that dashboards and alerts use.
const CONTRACT: [&str; 20] = [
    "staunch_http_requests_total",
    "staunch_http_request_seconds",
    "staunch_logins_total",
    "staunch_registrations_total",
    "staunch_hash_seconds",
    "staunch_hash_wait_seconds",
    "staunch_hash_queue_depth",
    "staunch_hash_lanes_busy",
    "staunch_hash_lanes",
    "staunch_hash_rejected_total",
    "staunch_hash_cancelled_total",
    "staunch_rate_limited_total",
    "staunch_rate_limit_keys",
    "staunch_db_pool_connections",
    "staunch_db_pool_max",
    "staunch_db_pool_waiting",
    "staunch_db_query_seconds",
    "staunch_cleanup_runs_total",
    "staunch_cleanup_last_success_timestamp_seconds",
    "staunch_build_info",
];

/// A server on which every counted event has occurred.
async fn used() -> TestApp {
    let app = TestApp::builder()
        .set("STAUNCH_LIMIT_REGISTER", "2/min")
        .set("STAUNCH_CLEANUP_INTERVAL", "1s")
        .start()
        .await;
    let tokens = app.registered("ada").await;
    let client = app.anonymous();
    client.login("ada", "wrong password").await.assert_status(401);
    client.me(&tokens.access).await.assert_status(200);
    client.refresh(&tokens.refresh).await.tokens();
    client.register("x", "x", "x").await.assert_status(422);
    client.register("x", "x", "x").await.assert_status(429);
    client.get("/no/such/path").await.assert_status(404);
    crate::support::until("a clean-up ran", crate::support::SOON, async || {
        app.metric(r#"staunch_cleanup_runs_total{result="success"}"#).await >= 1.0
    })
    .await;
    app
}

#[tokio::test]
async fn every_metric_of_the_contract_is_declared_and_rendered_with_its_labels() {
    let app = used().await;
    let reply = app.anonymous().get("/metrics").await;
    let media_type = reply.header("content-type").unwrap();
    assert!(media_type.starts_with("text/plain"), "{media_type}");
    let page = reply.text();
    let declared: BTreeSet<&str> = DEFINITIONS.iter().map(|metric| metric.name).collect();
    for name in CONTRACT {
        assert!(declared.contains(name), "{name} is not declared");
        assert!(page.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    for metric in DEFINITIONS {
        let name = metric.name;
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name}");
        let suffix = if metric.kind == Kind::Histogram { "_count" } else { "" };
        let series = page.lines().find(|line| line.starts_with(&format!("{name}{suffix}{{")));
        for (label, _) in metric.labels {
            if let Some(series) = series {
                assert!(series.contains(&format!("{label}=\"")), "{series}");
            }
        }
    }
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"] {
        assert!(page.contains(&format!("\n{name} ")), "{name}");
    }
}

#[tokio::test]
async fn only_declared_metrics_are_rendered() {
    let app = used().await;
    let reply = app.anonymous().get("/metrics").await;
    for line in reply.text().lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let known = DEFINITIONS.iter().any(|metric| {
            let end = name.strip_prefix(metric.name);
            end == Some("")
                || metric.kind == Kind::Histogram
                    && end.is_some_and(|end| ["_bucket", "_sum", "_count"].contains(&end))
        });
        assert!(known || name.is_empty() || name.starts_with("process_"), "{line}");
    }
}

#[tokio::test]
async fn labels_contain_no_names_addresses_or_raw_paths() {
    let app = used().await;
    let reply = app.anonymous().get("/metrics").await;
    for secret in ["ada", "example.com", "127.0.0.1", "/no/such/path", PASSWORD] {
        assert!(!reply.text().contains(secret), "{secret}");
    }
    assert!(reply.text().contains(r#"route="unmatched""#));
    let client = app.anonymous();
    let method = hyper::Method::from_bytes(b"MADEUP").unwrap();
    client.send(method, "/metrics", None, "").await.assert_status(405);
    let after = app.anonymous().get("/metrics").await;
    assert!(!after.text().contains("MADEUP"));
    assert!(after.text().contains(r#"method="other""#));
}

#[tokio::test]
async fn buckets_range_from_a_millisecond_to_half_a_minute() {
    let app = used().await;
    let reply = app.anonymous().get("/metrics").await;
    let bounds: Vec<f64> = reply
        .text()
        .lines()
        .filter(|line| line.starts_with("staunch_hash_wait_seconds_bucket"))
        .filter_map(|line| line.split("le=\"").nth(1)?.split('"').next()?.parse().ok())
        .collect();
    assert!(bounds.iter().any(|bound| *bound <= 0.001), "{bounds:?}");
    assert!(bounds.contains(&30.0), "{bounds:?}");
    assert!(bounds.len() >= 12, "{bounds:?}");
}

const SETTINGS_PAGE: &str = "docs/configuration.md";
const METRICS_PAGE: &str = "docs/metrics-and-alerts.md";

/// The rows of a page's tables, cell by cell, without backticks.
fn rows_of(page: &str) -> Vec<Vec<String>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(path).expect("the page exists");
    text.lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The words in backticks that start with `prefix`, without labels.
fn ticked(cell: &str, prefix: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(|word| word.split('{').next().unwrap_or_default().to_owned())
        .filter(|word| word.starts_with(prefix))
        .collect()
}

#[test]
fn the_documented_settings_match_the_code() {
    let rows = rows_of(SETTINGS_PAGE);
    let mut listed = Vec::new();
    for row in &rows {
        let Some(variable) = row.first().and_then(|cell| ticked(cell, "STAUNCH_").pop()) else {
            continue;
        };
        let default = row.get(1).cloned().unwrap_or_default();
        listed.push((variable, default.trim_matches('`').to_owned()));
    }
    let expected: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|setting| {
            let default = if setting.default.is_empty() { "unset" } else { setting.default };
            (setting.variable.to_owned(), default.to_owned())
        })
        .collect();
    for (variable, default) in &expected {
        let row = listed.iter().find(|(listed, _)| listed == variable);
        let (_, said) = row.unwrap_or_else(|| {
            panic!("{SETTINGS_PAGE} lacks the row | `{variable}` | `{default}` | ... |")
        });
        assert_eq!(said, default, "the default of {variable} in {SETTINGS_PAGE}");
    }
    for (variable, _) in &listed {
        let known = expected.iter().any(|(known, _)| known == variable);
        assert!(known, "{SETTINGS_PAGE} lists {variable}, which is not a setting");
    }
}

#[test]
fn the_documented_metrics_match_the_code() {
    let rows = rows_of(METRICS_PAGE);
    let listed: Vec<String> = rows
        .iter()
        .filter_map(|row| row.first())
        .flat_map(|cell| ticked(cell, "staunch_"))
        .collect();
    for metric in DEFINITIONS {
        let name = metric.name;
        assert!(
            listed.iter().any(|listed| listed == name),
            "{METRICS_PAGE} lacks a table row that starts with `{name}`"
        );
    }
    for name in &listed {
        let known = DEFINITIONS.iter().any(|metric| metric.name == name);
        assert!(known, "{METRICS_PAGE} lists {name}, which is not a metric");
    }
}

/// The metric names in a text, without the suffixes of histogram series.
fn names_in(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !is_name(c))
        .filter(|word| word.starts_with("staunch_"))
        .map(|word| {
            let mut bases = DEFINITIONS.iter().filter(|metric| {
                let suffix = word.strip_prefix(metric.name).unwrap_or("-");
                metric.kind == Kind::Histogram && ["_bucket", "_sum", "_count"].contains(&suffix)
            });
            bases.next().map_or(word, |metric| metric.name)
        })
        .collect()
}

#[test]
fn dashboards_and_alerts_show_every_metric_and_no_other() {
    let top = concat!(env!("CARGO_MANIFEST_DIR"), "/grafana");
    let read = |path: &str| std::fs::read_to_string(format!("{top}/{path}")).expect(path);
    let (dashboard, alerts) = (read("dashboards/staunch.json"), read("alerts/staunch.yml"));
    let mut shown = names_in(&dashboard);
    shown.extend(names_in(&alerts));
    let declared: BTreeSet<&str> = DEFINITIONS.iter().map(|metric| metric.name).collect();
    let unknown: Vec<_> = shown.difference(&declared).collect();
    assert!(unknown.is_empty(), "shown but not declared: {unknown:?}");
    let unseen: Vec<_> = declared.difference(&shown).collect();
    assert!(unseen.is_empty(), "declared but not shown anywhere: {unseen:?}");
}
