//! What the architecture page and the contributing page name.

use crate::source::sources;
use crate::tree::root;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const PAGE: &str = "src/ARCHITECTURE.md";

/// The entries of the code map: for each folder, such as `src` or `http/api`, the names in it.
fn code_map(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let section = page.split("\n## ").find(|section| section.starts_with("Code map\n")).unwrap();
    let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in section.split("\n- ").skip(1) {
        let mut words = entry.split('`').skip(1).step_by(2).map(str::to_owned);
        let folder = words.next().unwrap();
        map.entry(folder).or_default().extend(words);
    }
    map
}

#[test]
fn the_architecture_page_names_every_module() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let named = code_map(&page);
    let mut wrong = Vec::new();
    for source in sources() {
        let stem = source.name.trim_end_matches(".rs").trim_end_matches("/mod");
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("src", stem));
        // A folder at the top has its own entry.
        let is_folder = source.name.ends_with("/mod.rs");
        if is_folder && !named.contains_key(stem) {
            wrong.push(format!("no entry `{stem}`"));
        }
        // The router and docs/http-api.md list the endpoints.
        let is_listed = named.get(folder).is_some_and(|names| names.contains(name));
        if folder != "http/api" && !(is_folder && folder == "src") && !is_listed {
            wrong.push(format!("`{name}` is not in the entry `{folder}`"));
        }
    }
    for (folder, names) in &named {
        let path = root().join("src").join(folder.trim_start_matches("src"));
        let is_there =
            |name: &&String| path.join(name).is_dir() || path.join(format!("{name}.rs")).is_file();
        for name in names.iter().filter(|name| !is_there(name)) {
            wrong.push(format!("`{name}` in the entry `{folder}` does not exist"));
        }
    }
    assert!(wrong.is_empty(), "{PAGE}:\n{}", wrong.join("\n"));
}

#[test]
fn the_architecture_page_is_short_and_its_paths_lead_to_modules() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    assert!(page.lines().count() <= 150, "{PAGE} has at most 150 lines");
    let paths: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains("::") && !word.contains([' ', '*', '\n']))
        .collect();
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths {
        let file = root().join("src").join(path.replace("::", "/"));
        assert!(file.is_dir() || file.with_extension("rs").is_file(), "{PAGE}: `{path}`");
    }
}

#[test]
fn the_files_that_the_contributing_page_names_exist() {
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let named = page.split('`').skip(1).step_by(2);
    let paths: Vec<&str> = named
        .filter(|word| {
            let is_path = word.contains('/') && !word.contains([' ', '<', '*']);
            // What a build makes is not there in a fresh clone.
            is_path && !word.starts_with('/') && !word.starts_with("target/")
        })
        .collect();
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        assert!(root().join(path).exists(), "CONTRIBUTING.md names {path}, which does not exist");
    }
}
