//! What the architecture page and the contributing page name.

use crate::source::sources;
use crate::tree::root;
use std::collections::BTreeSet;
use std::fs;

#[test]
fn the_architecture_page_names_every_module() {
    let page = fs::read_to_string(root().join("src/ARCHITECTURE.md")).unwrap();
    let mut named = BTreeSet::new();
    for part in page.split('`').skip(1).step_by(2) {
        named.extend(part.split("::").map(|word| word.trim().to_owned()));
    }
    let mut missing = Vec::new();
    for source in sources() {
        let stem = source.path.file_stem().unwrap().to_str().unwrap();
        let folder = source.path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let inside_api = source.name.starts_with("http/api/");
        let name = match stem {
            "lib" => continue,
            "mod" => folder,
            // The router and docs/http-api.md list the endpoints.
            _ if inside_api => "api",
            stem => stem,
        };
        if !named.contains(name) {
            missing.push(format!("src/{}: `{name}`", source.name));
        }
    }
    assert!(missing.is_empty(), "not in src/ARCHITECTURE.md:\n{}", missing.join("\n"));
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
