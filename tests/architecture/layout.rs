//! The entries of the repository's top level that git tracks.

use crate::tree::root;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Entries that git may track at the top level.
const TOP_LEVEL: [&str; 16] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "SECURITY.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "benches",
    "docs",
    "fuzz",
    "grafana",
    "loadtest",
    "migrations",
    "src",
    "tests",
];

/// Output lines of git in a folder; `None` without git or without a repository.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> Option<Vec<String>> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| text.lines().map(str::to_owned).collect())
}

/// The entries of a folder that git tracks; other files are not part of the project. `None` without
/// a repository, as in a source archive.
fn tracked_entries(folder: &Path) -> Option<BTreeSet<String>> {
    let files = git(folder, &["ls-files"])?;
    let entries = files.iter().filter_map(|path| path.split('/').next());
    Some(entries.map(str::to_owned).collect()).filter(|entries: &BTreeSet<_>| !entries.is_empty())
}

#[test]
fn the_top_level_matches_the_layout() {
    match tracked_entries(root()) {
        Some(entries) => {
            for name in entries {
                let known = name.starts_with('.') || TOP_LEVEL.contains(&name.as_str());
                assert!(known, "{name} is not in the layout");
            }
        }
        None => eprintln!("skipped: no git repository to compare with the layout"),
    }
}

// Case F14 of the field list: the documented commands, run in the clone, create top-level files.
#[test]
fn untracked_files_are_not_part_of_the_layout() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(tracked_entries(folder.path()), None, "there is no repository yet");
    if git(folder.path(), &["init"]).is_none() {
        eprintln!("skipped: git is not installed");
        return;
    }
    for name in ["Cargo.toml", "stray", "others.jsonl"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    git(folder.path(), &["add", "Cargo.toml", "stray"]).unwrap();
    let expected = ["Cargo.toml", "stray"].map(str::to_owned);
    assert_eq!(tracked_entries(folder.path()), Some(BTreeSet::from(expected)));
}

// Case F14 of the field list.
#[test]
fn git_ignores_what_the_documented_commands_create_and_nothing_that_is_tracked() {
    if tracked_entries(root()).is_none() {
        eprintln!("skipped: no git repository");
        return;
    }
    let made = [
        "key.pem",
        "cert.pem",
        "accounts.jsonl",
        "accounts.jsonl.rejected",
        "others.jsonl",
        "all.jsonl",
        "accounts.csv",
        "staunch.sql",
        "backup.sql",
        "keys.tar",
        "staunch-data/keys/x",
        "target/x",
        ".env",
    ];
    for path in made {
        assert!(git(root(), &["check-ignore", path]).is_some(), "git does not ignore {path}");
    }
    let hidden = git(root(), &["ls-files", "--cached", "--ignored", "--exclude-standard"]);
    assert_eq!(hidden, Some(Vec::new()), "tracked, but ignored");
}
