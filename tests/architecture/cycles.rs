//! Import cycles between the files of a folder.

use crate::source::{Source, sources, uses};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Code with each chain of `super::` replaced by a path from the crate's root.
fn absolute(source: &Source) -> String {
    let stem = source.name.trim_end_matches(".rs").trim_end_matches("/mod");
    let own: Vec<&str> = stem.split('/').collect();
    let mut out = String::new();
    let mut rest = source.code.as_str();
    while let Some((before, after)) = rest.split_once("super::") {
        let climbs = 1 + after.split("super::").take_while(|part| part.is_empty()).count();
        out.push_str(before);
        out.push_str("crate::");
        for part in own.iter().take(own.len().saturating_sub(climbs)) {
            out.push_str(part);
            out.push_str("::");
        }
        rest = &after["super::".len() * (climbs - 1)..];
    }
    out.push_str(rest);
    out
}

/// The names that a `mod.rs` re-exports or imports from its files, each with its file.
fn re_exports(code: &str) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    for statement in code.split(';') {
        let Some((_, path)) = statement.rsplit_once("use ") else { continue };
        let Some((file, names)) = path.split_once("::") else { continue };
        for name in names.split(['{', '}', ',']).map(str::trim) {
            let name = name.rsplit([' ', ':']).next().unwrap_or_default();
            found.insert(name, file);
        }
    }
    found
}

/// For each file or subfolder of a folder in src/, the others that it imports.
fn imports<'a>(folder: &str, sources: &'a [Source]) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let inside = |source: &'a Source| source.name.strip_prefix(folder)?.strip_prefix('/');
    let node = |name: &'a str| name.split('/').next().unwrap().trim_end_matches(".rs");
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources {
        if let Some(name) = inside(source).filter(|name| *name != "mod.rs") {
            graph.entry(node(name)).or_default();
        }
    }
    let index = sources.iter().find(|source| inside(source) == Some("mod.rs"));
    let names = index.map(|source| re_exports(&source.code)).unwrap_or_default();
    let prefix = format!("crate::{}::", folder.replace('/', "::"));
    for source in sources {
        let Some(name) = inside(source).filter(|name| *name != "mod.rs") else { continue };
        for (_, used) in uses(&absolute(source), &prefix) {
            let used = used.split(' ').next().unwrap_or_default();
            let used = names.get(used).copied().unwrap_or(used);
            let found = graph.keys().copied().find(|other| *other == used);
            if let Some(other) = found.filter(|other| *other != node(name)) {
                graph.get_mut(node(name)).unwrap().insert(other);
            }
        }
    }
    graph
}

/// The files of a graph that are on a cycle or between two cycles: those that remain after files
/// that import nothing, or that no file imports, are removed repeatedly.
fn cyclic<'a>(mut graph: BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<&'a str> {
    loop {
        let before = graph.len();
        let left: BTreeSet<&str> = graph.keys().copied().collect();
        let imported: BTreeSet<&str> = graph.values().flatten().copied().collect();
        graph.retain(|file, imports| imported.contains(file) && !imports.is_disjoint(&left));
        if graph.len() == before {
            return graph.into_keys().collect();
        }
    }
}

#[test]
fn import_cycles_are_found_through_super_and_through_re_exports() {
    let source = |name: &str, code: &str| Source {
        path: PathBuf::new(),
        name: name.to_owned(),
        module: "a".to_owned(),
        code: code.to_owned(),
    };
    let sources = [
        source("a/mod.rs", "mod b; pub use b::{B, x::Y as Z}; mod c; pub use c::C;"),
        source("a/b.rs", "use super::d::D;"),
        source("a/c.rs", "use crate::a::Z;"),
        source("a/d/mod.rs", "use super::{e::E, C};"),
        source("a/d/f.rs", "use super::super::C; use super::G;"),
        source("a/e.rs", "use crate::other::b::B;"),
    ];
    let graph = imports("a", &sources);
    assert_eq!(graph["b"], BTreeSet::from(["d"]));
    assert_eq!(graph["c"], BTreeSet::from(["b"]));
    assert_eq!(graph["d"], BTreeSet::from(["c", "e"]));
    assert_eq!(cyclic(graph), ["b", "c", "d"]);
}

#[test]
fn files_of_a_folder_have_no_import_cycles() {
    let sources = sources();
    let folders: BTreeSet<&str> = sources
        .iter()
        .filter_map(|source| source.name.rsplit_once('/').map(|(folder, _)| folder))
        .collect();
    assert!(folders.contains("hashing") && folders.contains("hashing/kernel"));
    let wrong: Vec<String> = folders
        .into_iter()
        .map(|folder| (folder, cyclic(imports(folder, &sources))))
        .filter(|(_, files)| !files.is_empty())
        .map(|(folder, files)| format!("src/{folder}: {}", files.join(", ")))
        .collect();
    assert!(wrong.is_empty(), "files on import cycles:\n{}", wrong.join("\n"));
}
