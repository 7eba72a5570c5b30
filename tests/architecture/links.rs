//! The links between the Markdown files of the repository.

use crate::layout::git;
use crate::tree::root;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The lines of a page outside of code blocks, each with its number.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.push((number, line));
        }
    }
    found
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).into_iter().filter(|(_, line)| line.starts_with('#'));
    headings
        .map(|(_, line)| {
            let heading = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_');
            heading.chars().filter(kept).collect()
        })
        .collect()
}

/// The targets of the links and images of a page that are in this repository.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let links = |(number, line)| {
        str::split(line, "](").skip(1).map(move |rest| (number, rest.split(')').next().unwrap()))
    };
    let found = prose(text).into_iter().flat_map(links);
    found.filter(|(_, target)| !target.contains(':')).collect()
}

/// A path without `.` and `..`; `None` if it leaves the repository.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

/// What is wrong with the target of a link in `page`, if anything.
fn fault(page: &str, target: &str, files: &BTreeSet<PathBuf>) -> Option<&'static str> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if path.is_empty() {
        PathBuf::from(page)
    } else {
        match plain(&Path::new(page).parent().unwrap().join(path)) {
            Some(file) => file,
            None => return Some("it leaves the repository"),
        }
    };
    if !files.contains(&file) {
        return Some("git tracks no such file");
    }
    if anchor.is_empty() {
        return None;
    }
    let text = fs::read_to_string(root().join(file)).unwrap();
    (!anchors(&text).contains(anchor)).then_some("there is no such heading")
}

#[test]
fn links_between_pages_lead_to_tracked_files_and_headings() {
    let Some(listed) = git(root(), &["ls-files"]).filter(|listed| !listed.is_empty()) else {
        eprintln!("skipped: there is no git repository");
        return;
    };
    let files: BTreeSet<PathBuf> = listed.iter().map(PathBuf::from).collect();
    let (mut checked, mut faults) = (0, Vec::new());
    for page in listed.iter().filter(|path| path.ends_with(".md")) {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for (line, target) in targets(&text) {
            checked += 1;
            if let Some(fault) = fault(page, target, &files) {
                faults.push(format!("{page}:{line}: {target}: {fault}"));
            }
        }
    }
    assert!(checked > 50, "{checked} links");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn each_page_of_the_documentation_says_who_it_is_for() {
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("# "), "{}: a title", path.display());
        let said = lines.nth(1).unwrap();
        assert!(said.starts_with("This page is for "), "{}: {said}", path.display());
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 150, "README.md has at most 150 lines");
}

#[test]
fn a_link_without_a_file_or_a_heading_is_found() {
    let files = BTreeSet::from([PathBuf::from("README.md")]);
    assert_eq!(fault("README.md", "README.md", &files), None);
    assert_eq!(fault("docs/a.md", "../README.md#licence", &files), None);
    assert_eq!(fault("README.md", "#licence", &files), None);
    assert!(fault("README.md", "docs/none.md", &files).is_some());
    assert!(fault("README.md", "../README.md", &files).is_some());
    assert!(fault("README.md", "#no-such-heading", &files).is_some());
    assert_eq!(targets("a [b](c.md) ![d](e.png)\n```\n[f](g)\n```\n[h](https://i)").len(), 2);
    assert!(anchors("## Why `bcrypt`, and not argon2?").contains("why-bcrypt-and-not-argon2"));
}
