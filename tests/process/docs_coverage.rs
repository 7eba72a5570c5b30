//! Every shell block of the pages is run or checked by something, and what needs a production host is
//! checked as far as it can be here.

use crate::docs::{GETTING_STARTED, README, block, blocks, has, shell};
use crate::support::{folder, run};
use std::collections::BTreeSet;
use std::path::Path;

const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const COMPOSE: &str = include_str!("../../grafana/compose.yml");
const COMPOSE_SETTINGS: &str = include_str!("../../grafana/.env.example");
/// The pages that have shell blocks, or may get some.
const PAGES: &[&str] = &[
    README,
    GETTING_STARTED,
    CONFIGURATION,
    include_str!("../../docs/benchmarks.md"),
    include_str!("../../docs/faq.md"),
    include_str!("../../docs/http-api.md"),
    include_str!("../../docs/import-export.md"),
    include_str!("../../docs/integrating.md"),
    include_str!("../../docs/metrics-and-alerts.md"),
    include_str!("../../docs/operations.md"),
    include_str!("../../docs/scaling.md"),
    include_str!("../../docs/security.md"),
    include_str!("../../CONTRIBUTING.md"),
    include_str!("../../grafana/README.md"),
    include_str!("../../loadtest/README.md"),
    include_str!("../../loadtest/chaos/README.md"),
    include_str!("../../loadtest/compare/README.md"),
];
/// A text of each shell block, and what runs the block.
const RUN_BY: &[(&str, &str)] = &[
    ("cargo run", "`.ci/run` builds the program and runs the tests"),
    ("localhost:8080/api/v1/auth/", "docs and docs_commands"),
    ("target/release/staunch calibrate", "docs_commands"),
    ("staunch keys list", "docs_commands"),
    ("staunch user add USERNAME EMAIL", "docs_commands"),
    ("staunch client add", "docs"),
    ("staunch user import", "docs"),
    ("--file=staunch.sql", "docs"),
    ("--file=backup.sql", "docs"),
    ("openssl req", "docs"),
    ("loadtest/", "the self-test of loadtest/harness reads the commands"),
];
/// The blocks that need a Docker engine, or root on a host with systemd. Below are the nearest checks.
const NEEDS_A_HOST: &[&str] = &[
    "docker compose up",
    "docker build -f grafana/Dockerfile",
    "useradd --system",
    "systemctl enable --now staunch",
    "sudo -u staunch staunch user sessions",
];

#[test]
fn every_shell_block_of_the_pages_is_run_or_needs_a_host() {
    let known: Vec<&str> =
        RUN_BY.iter().map(|(part, _)| *part).chain(NEEDS_A_HOST.iter().copied()).collect();
    let mut used = BTreeSet::new();
    for block in PAGES.iter().copied().flat_map(blocks) {
        let parts: Vec<&str> = known.iter().copied().filter(|part| block.contains(part)).collect();
        assert!(!parts.is_empty(), "nothing runs this block; write a test for it:\n{block}");
        used.extend(parts);
    }
    let unused: Vec<&&str> = known.iter().filter(|part| !used.contains(**part)).collect();
    assert!(unused.is_empty(), "no block has {unused:?}");
}

/// The block with a word for each placeholder, such as `<access_token>`.
fn filled_in(block: &str) -> String {
    let mut parts = block.split('<');
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        match part.split_once('>') {
            Some((name, rest))
                if name.chars().all(|c| c.is_ascii_alphabetic() || " _".contains(c)) =>
            {
                text.push_str("word");
                text.push_str(rest);
            }
            _ => {
                text.push('<');
                text.push_str(part);
            }
        }
    }
    text
}

#[tokio::test]
async fn every_shell_block_of_the_pages_is_valid_shell() {
    let top = folder();
    for block in PAGES.iter().copied().flat_map(blocks) {
        let script = format!("set -n\n{}", filled_in(block));
        let ended = run(shell(top.path(), Path::new("/nowhere"), &script)).await;
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{block}");
    }
}

/// The default of a setting, from its row in docs/configuration.md.
fn default_of(setting: &str) -> u64 {
    let row = CONFIGURATION.lines().find(|row| row.starts_with(&format!("| `{setting}` | `")));
    let value = row.unwrap().split('`').nth(3).unwrap();
    value.trim_end_matches('s').parse().unwrap()
}

#[tokio::test]
async fn systemd_accepts_the_unit_and_its_limits_suffice() {
    let unit = GETTING_STARTED.split("```ini\n").nth(1).unwrap().split("```").next().unwrap();
    let value = |name: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.expect(name).parse::<u64>().unwrap()
    };
    assert!(value("TimeoutStopSec") > default_of("STAUNCH_SHUTDOWN_GRACE"));
    let files = default_of("STAUNCH_CONNECTIONS_MAX") + default_of("STAUNCH_DB_POOL_MAX") + 100;
    assert!(value("LimitNOFILE") > files);
    let (install, _) = block(GETTING_STARTED, "useradd --system");
    for path in ["/usr/local/bin/staunch", "/var/lib/staunch"] {
        assert!(unit.contains(path) && install.contains(path), "{path}");
    }

    if !has("systemd-analyze").await {
        return;
    }
    let top = folder();
    let unit = unit.replace("/usr/local/bin/staunch", env!("CARGO_BIN_EXE_staunch"));
    std::fs::write(top.path().join("staunch.service"), unit).unwrap();
    let verify = "systemd-analyze verify ./staunch.service";
    let ended = run(shell(top.path(), Path::new("/nowhere"), verify)).await;
    // A setting that it does not know is a line on standard error, and exit code 0.
    let about_it: Vec<&str> =
        ended.err.lines().filter(|line| line.contains("staunch.service")).collect();
    assert_eq!((ended.code, about_it), (Some(0), Vec::new()), "{}", ended.err);
}

#[test]
fn the_compose_settings_to_copy_name_what_compose_requires() {
    let required: BTreeSet<&str> = COMPOSE
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split_once('}').unwrap().0.split_once(":?"))
        .map(|(name, _)| name)
        .collect();
    let unset: BTreeSet<&str> =
        COMPOSE_SETTINGS.lines().filter_map(|line| line.strip_suffix('=')).collect();
    assert_eq!(unset, required);
    let (start, _) = block(GETTING_STARTED, "docker compose up");
    assert!(start.contains("cp .env.example .env") && start.contains("set the two passwords"));
    assert_eq!(required.len(), 2, "the two passwords");
}
