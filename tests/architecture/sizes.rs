//! The size of source files.

use crate::layout::git;
use crate::tree::root;
use std::fs;

/// Lines of a source file, with its tests.
const LINES_MAX: usize = 400;

/// The ends of the names of files that people write. Data and generated files have others.
const SOURCES: [&str; 5] = [".rs", ".py", ".js", ".mjs", ".sh"];

/// Whether a person writes this file: by its name, or a script by its first line.
fn is_source(path: &str, text: &str) -> bool {
    SOURCES.iter().any(|end| path.ends_with(end)) || text.starts_with("#!")
}

#[test]
fn source_files_stay_within_the_line_limit() {
    let Some(tracked) = git(root(), &["ls-files"]).filter(|tracked| !tracked.is_empty()) else {
        eprintln!("skipped: there is no git repository");
        return;
    };
    let mut lengths: Vec<(usize, String)> = tracked
        .into_iter()
        // Not text, or deleted and not committed yet.
        .filter_map(|path| Some((fs::read_to_string(root().join(&path)).ok()?, path)))
        .filter(|(text, path)| is_source(path, text))
        .map(|(text, path)| (text.lines().count(), path))
        .collect();
    lengths.sort_unstable();
    println!("{} files, median {} lines", lengths.len(), lengths[lengths.len() / 2].0);
    assert!(lengths.len() > 300, "{} files", lengths.len());
    let long: Vec<String> = lengths
        .iter()
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines:\n{}", long.join("\n"));
}

#[test]
fn scripts_count_as_source_and_data_does_not() {
    assert!(is_source("a/b.rs", "") && is_source(".ci/run", "#!/usr/bin/env bash\n"));
    assert!(!is_source("grafana/dashboards/staunch.json", "{}") && !is_source("a.md", "# b\n"));
}
