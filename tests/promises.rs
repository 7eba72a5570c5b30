//! RELIABILITY.md and ASVS.md are complete, and name tests that exist.

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

/// Number of lines in each part of the fault list.
const PARTS: [(char, usize); 6] = [('a', 16), ('b', 7), ('c', 8), ('d', 7), ('e', 7), ('f', 11)];

/// The functions of a source file, each with its line of the fault list, such as `b2`, if any.
type Functions = BTreeMap<String, Option<String>>;

/// The functions of each source file, by its path from the root.
fn functions() -> BTreeMap<String, Functions> {
    let of = |path: PathBuf| {
        let functions = functions_in(&fs::read_to_string(&path).unwrap());
        (path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), functions)
    };
    ["src", "tests"].into_iter().flat_map(rust_files).map(of).collect()
}

/// Finds functions, and the line that `// Reliability: B2.` above a test assigns to it.
fn functions_in(text: &str) -> Functions {
    let mut found = Functions::new();
    let mut marked = None;
    for line in text.lines().map(str::trim) {
        if let Some(mark) = line.strip_prefix("// Reliability: ") {
            let of_list = mark.strip_suffix('.').map(str::to_lowercase);
            marked = of_list.filter(|of_list| is_line(of_list));
            assert!(marked.is_some(), "not a line of the fault list: {line}");
        } else if let Some((before, rest)) = line.split_once("fn ")
            && matches!(before.trim(), "" | "async")
        {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            found.insert(name.to_owned(), marked.take());
        }
    }
    assert_eq!(marked, None, "a Reliability comment without a test");
    found
}

/// Whether a word is a line of the fault list.
fn is_line(word: &str) -> bool {
    PARTS.iter().any(|(part, count)| {
        word.strip_prefix(*part)
            .and_then(|number| number.parse().ok())
            .is_some_and(|number: usize| (1..=*count).contains(&number))
    })
}

#[test]
fn only_a_comment_assigns_a_test_to_a_line() {
    let functions = functions_in(
        "// Reliability: B2.\n#[test]\nfn work_is_dropped() {}\n    async fn a16_tls() {}",
    );
    let line = |name: &str| functions[name].as_deref();
    assert_eq!(line("work_is_dropped"), Some("b2"));
    assert_eq!(line("a16_tls"), None);
}

#[test]
#[should_panic(expected = "not a line of the fault list")]
fn a_comment_that_names_no_line_of_the_list_is_an_error() {
    functions_in("// Reliability: A17.\nfn f() {}");
}

/// The rows of a document's tables: first and last cell.
fn rows(document: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let cells = |line: &str| -> Option<(String, String)> {
        let mut cells = line.strip_prefix("| ")?.strip_suffix('|')?.split(" | ");
        let first = cells.next()?.trim().to_owned();
        (first != "#").then(|| (first, cells.last().unwrap_or_default().trim().to_owned()))
    };
    text.lines().filter_map(cells).collect()
}

/// The tests named in a cell: `file`: `test`, `test`; `file`: …
fn named(cell: &str, functions: &BTreeMap<String, Functions>) -> Vec<String> {
    let mut names = Vec::new();
    let mut file = None;
    for word in cell.split('`').skip(1).step_by(2) {
        if word.ends_with(".rs") {
            file = functions.get_key_value(word);
            assert!(file.is_some(), "no file {word}");
        } else if word.contains('_')
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            let (path, there) = file.unwrap_or_else(|| panic!("{word} follows no file"));
            assert!(there.contains_key(word), "no test {word} in {path}");
            names.push(word.to_owned());
        }
    }
    names
}

#[test]
fn every_fault_line_has_a_row_that_names_all_its_tests() {
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
                missing.push(format!("{line} names no test and no reason"));
            }
            for (name, of_list) in functions.values().flatten() {
                if of_list.as_ref() == Some(&line) && !names.contains(name) {
                    missing.push(format!("{name} is not in the row {line}"));
                }
            }
        }
    }
    let lines: usize = PARTS.iter().map(|(_, count)| count).sum();
    assert_eq!(rows.len(), lines, "rows without a line");
    assert!(missing.is_empty(), "tests/RELIABILITY.md:\n{}", missing.join("\n"));
}

#[test]
fn every_test_named_in_the_asvs_table_exists() {
    let functions = functions();
    let mut seen = BTreeSet::new();
    for (number, cell) in rows("tests/ASVS.md") {
        let parts: Vec<Option<u8>> = number.split('.').map(|part| part.parse().ok()).collect();
        assert!(parts.len() == 3 && parts.iter().all(Option::is_some), "{number}");
        let said = ["Not met", "In part", "By reading", "**open**"];
        let answered = said.iter().any(|word| cell.contains(word));
        assert!(!named(&cell, &functions).is_empty() || answered, "{number} shows nothing");
        assert!(seen.insert(number.clone()), "{number} occurs twice");
    }
    assert!(seen.len() > 50, "{}", seen.len());
}
