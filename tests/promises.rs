//! The tables of what must hold, RELIABILITY.md and ASVS.md: complete, and naming tests that exist.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a failed test; clippy exempts only the tests themselves"
)]

mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use tree::{root, rust_files};

/// How many lines each part of the list of faults has.
const PARTS: [(char, usize); 6] = [('a', 16), ('b', 7), ('c', 8), ('d', 7), ('e', 7), ('f', 11)];

/// The functions of each source file, by its path from the root.
fn functions() -> BTreeMap<String, BTreeSet<String>> {
    let of = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let names = text.lines().filter_map(|line| {
            let (before, rest) = line.split_once("fn ")?;
            let declared = matches!(before.trim(), "" | "async");
            declared.then(|| rest.split(['(', '<']).next().unwrap_or_default().to_owned())
        });
        (path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), names.collect())
    };
    ["src", "tests"].into_iter().flat_map(rust_files).map(of).collect()
}

/// The rows of a document's tables: first cell, last cell.
fn rows(document: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let cells = |line: &str| -> Option<(String, String)> {
        let mut cells = line.strip_prefix("| ")?.strip_suffix('|')?.split(" | ");
        let first = cells.next()?.trim().to_owned();
        (first != "#").then(|| (first, cells.last().unwrap_or_default().trim().to_owned()))
    };
    text.lines().filter_map(cells).collect()
}

/// The tests that a cell names: `file`: `test`, `test`; `file`: …
fn named(cell: &str, functions: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut names = Vec::new();
    let mut file = None;
    for word in cell.split('`').skip(1).step_by(2) {
        if word.ends_with(".rs") {
            file = functions.get_key_value(word);
            assert!(file.is_some(), "no file {word}");
        } else if word.contains('_')
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            let (path, there) = file.unwrap_or_else(|| panic!("{word} is of no file"));
            assert!(there.contains(word), "no test {word} in {path}");
            names.push(word.to_owned());
        }
    }
    names
}

#[test]
fn every_fault_line_has_a_row_and_every_test_of_it_is_named_there() {
    let functions = functions();
    let rows: BTreeMap<String, String> = rows("tests/RELIABILITY.md").into_iter().collect();
    let mut missing = Vec::new();
    for (part, count) in PARTS {
        for number in 1..=count {
            let line = format!("{part}{number}");
            let Some(cell) = rows.get(&line.to_uppercase()) else {
                missing.push(format!("no row {line}"));
                continue;
            };
            let names = named(cell, &functions);
            let said =
                ["**open**", "Not shown", "not apply"].iter().any(|word| cell.contains(word));
            if names.is_empty() && !said {
                missing.push(format!("{line} names no test and does not say why"));
            }
            let of_it = functions
                .values()
                .flatten()
                .filter(|name| name.strip_prefix(&line).is_some_and(|rest| rest.starts_with('_')));
            for name in of_it {
                if !names.contains(name) {
                    missing.push(format!("{name} is not in the row {line}"));
                }
            }
        }
    }
    let lines: usize = PARTS.iter().map(|(_, count)| count).sum();
    assert_eq!(rows.len(), lines, "rows of no line");
    assert!(missing.is_empty(), "tests/RELIABILITY.md:\n{}", missing.join("\n"));
}

#[test]
fn every_test_that_the_asvs_table_names_is_there() {
    let functions = functions();
    let mut seen = BTreeSet::new();
    for (number, cell) in rows("tests/ASVS.md") {
        let parts: Vec<Option<u8>> = number.split('.').map(|part| part.parse().ok()).collect();
        assert!(parts.len() == 3 && parts.iter().all(Option::is_some), "{number}");
        let said = ["Not met", "In part", "By reading", "**open**"];
        let answered = said.iter().any(|word| cell.contains(word));
        assert!(!named(&cell, &functions).is_empty() || answered, "{number} shows nothing");
        assert!(seen.insert(number.clone()), "{number} is there twice");
    }
    assert!(seen.len() > 50, "{}", seen.len());
}
