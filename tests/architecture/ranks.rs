//! The ranks: a module uses only modules of a lower rank.

use crate::source::{inline_modules, sources, uses};
use std::collections::BTreeSet;

/// Modules by rank, highest first. A module uses only lower ranks.
const RANKS: [(u8, &[&str]); 8] = [
    (7, &["main"]),
    (6, &["cli"]),
    (5, &["app"]),
    (4, &["config"]),
    (3, &["http"]),
    (2, &["auth"]),
    (1, &["counters", "limiter", "hashing", "tokens", "store", "postgres"]),
    (0, &["cells", "identity", "secret", "clock", "cpu_limit", "lifecycle", "telemetry"]),
];

fn rank(module: &str) -> Option<u8> {
    RANKS.iter().find(|(_, modules)| modules.contains(&module)).map(|(rank, _)| *rank)
}

#[test]
fn modules_use_only_lower_ranks() {
    let mut wrong = Vec::new();
    for source in sources() {
        if source.module == "lib" {
            continue;
        }
        let own = rank(&source.module)
            .unwrap_or_else(|| panic!("src/{} has no rank: add one", source.name));
        let from = if source.module == "main" { "staunch::" } else { "crate::" };
        for (line, used) in uses(&source.code, from) {
            let used = used.split(' ').next().unwrap_or_default().to_owned();
            let Some(other) = rank(&used) else {
                // An item of the crate's root, which has none.
                wrong.push(format!("src/{}:{line}: {used} is not a module", source.name));
                continue;
            };
            if used != source.module && other >= own {
                wrong.push(format!(
                    "src/{}:{line}: {} (rank {own}) uses {used} (rank {other})",
                    source.name, source.module
                ));
            }
        }
        // Paths that leave their top-level module through `super` would be missed above.
        let depth =
            source.name.matches('/').count() + usize::from(!source.name.ends_with("mod.rs"));
        for (position, _) in source.code.match_indices("super::") {
            let before = &source.code[..position];
            let after = &source.code[position..];
            let climbs = after.split("super::").take_while(|part| part.is_empty()).count();
            if !before.ends_with("super::") && climbs >= depth.max(1) + inline_modules(before) {
                let line = before.matches('\n').count() + 1;
                wrong.push(format!("src/{}:{line}: super:: leaves the module", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lib_rs_lists_modules_and_contains_no_logic() {
    let lib = sources().into_iter().find(|source| source.name == "lib.rs").unwrap();
    let mut listed = Vec::new();
    for line in lib.code.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with("#!") {
            continue;
        }
        let module = line
            .strip_prefix("pub mod ")
            .and_then(|rest| rest.strip_suffix(';'))
            .unwrap_or_else(|| panic!("src/lib.rs: {line}"));
        listed.push(rank(module).unwrap());
    }
    assert!(listed.is_sorted_by(|a, b| a >= b), "not in rank order, highest first");
}

#[test]
fn every_module_has_a_rank() {
    let expected: BTreeSet<&str> =
        RANKS.iter().flat_map(|(_, modules)| *modules).copied().collect();
    let found = sources();
    let modules: BTreeSet<&str> = found
        .iter()
        .map(|source| source.module.as_str())
        .filter(|module| *module != "lib")
        .collect();
    assert_eq!(modules, expected);
}
