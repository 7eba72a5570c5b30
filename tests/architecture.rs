//! Rules of the source: which module may use which, and where things belong.
//!
//! Comments, strings and code under `#[cfg(test)]` do not count.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a failed test; clippy exempts only the tests themselves"
)]

mod layout;
mod links;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use tree::{root, rust_files};

/// Modules by rank, highest first. A module uses only lower ranks.
const RANKS: [(u8, &[&str]); 8] = [
    (7, &["main"]),
    (6, &["cli"]),
    (5, &["app"]),
    (4, &["config"]),
    (3, &["http"]),
    (2, &["auth"]),
    (1, &["limiter", "hashing", "tokens", "store", "postgres"]),
    (0, &["identity", "secret", "clock", "lifecycle", "telemetry"]),
];

/// Lines of a source file, with data and tests.
const LINES_MAX: usize = 450;

/// A source file, prepared for searching.
struct Source {
    path: PathBuf,
    /// Relative to src/, with slashes.
    name: String,
    /// The first folder or the file's stem.
    module: String,
    /// Without comments, strings and tests, but with the same line numbers.
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let found = rust_files("src");
    assert!(found.len() > 50, "{} files", found.len());
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
            let first = name.split('/').next().unwrap();
            Source {
                module: first.trim_end_matches(".rs").to_owned(),
                code: without_tests(&bare(&text)),
                lines: text.lines().count(),
                name,
                path,
            }
        })
        // Leaves out files that contain only tests.
        .filter(|source| !source.path.file_stem().unwrap().to_str().unwrap().ends_with("tests"))
        .collect()
}

/// Source text with comments and the contents of strings and characters blanked.
fn bare(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut index = 0;
    let blank = |out: &mut String, c: char| out.push(if c == '\n' { '\n' } else { ' ' });
    while index < chars.len() {
        let c = at(index);
        let raw_hashes = (c == 'r' && !out.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
            .then(|| (index + 1..).take_while(|i| at(*i) == '#').count())
            .filter(|count| at(index + 1 + count) == '"');
        if c == '/' && at(index + 1) == '/' {
            while index < chars.len() && at(index) != '\n' {
                index += 1;
            }
        } else if c == '/' && at(index + 1) == '*' {
            while index < chars.len() && !(at(index) == '*' && at(index + 1) == '/') {
                blank(&mut out, at(index));
                index += 1;
            }
            index += 2;
        } else if let Some(hashes) = raw_hashes {
            let end: String = format!("\"{}", "#".repeat(hashes));
            index += hashes + 2;
            out.push('"');
            while index < chars.len()
                && chars[index..].iter().take(end.len()).collect::<String>() != end
            {
                blank(&mut out, at(index));
                index += 1;
            }
            index += end.len();
            out.push('"');
        } else if c == '"' {
            out.push('"');
            index += 1;
            while index < chars.len() && at(index) != '"' {
                if at(index) == '\\' {
                    blank(&mut out, ' ');
                    index += 1;
                }
                blank(&mut out, at(index));
                index += 1;
            }
            out.push('"');
            index += 1;
        } else if c == '\'' && at(index + 1) == '\\' {
            // A character literal with an escape; lifetimes have no closing quote.
            index += 2;
            while at(index) != '\'' || at(index - 1) == '\\' && at(index + 1) == '\'' {
                index += 1;
            }
            index += 1;
        } else if c == '\'' && at(index + 2) == '\'' {
            index += 3;
        } else {
            out.push(c);
            index += 1;
        }
    }
    out
}

/// Blanks the item after each `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut rest = code;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        out.push_str(before);
        let mut depth = 0;
        let mut end = after.len();
        for (index, c) in after.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && (c == '}' || c == ';') {
                end = index + 1;
                break;
            }
        }
        out.extend(after[..end].chars().filter(|c| *c == '\n'));
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

/// The first path segments after `from`, such as `crate::` (also in `crate::{a, b}`), with lines.
fn uses(code: &str, from: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (position, _) in code.match_indices(from) {
        let before = code[..position].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = code[..position].matches('\n').count() + 1;
        let after = &code[position + from.len()..];
        if let Some(list) = after.strip_prefix('{') {
            let mut depth = 1;
            let mut word = String::new();
            let mut at_start = true;
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 1 && (c == ',' || c == ':') || depth == 0 {
                    if at_start && !word.trim().is_empty() {
                        found.push((line, word.trim().to_owned()));
                    }
                    word.clear();
                    at_start = c == ',';
                } else {
                    word.push(c);
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            let word: String =
                after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.push((line, word));
        }
    }
    found
}

/// Counts the `mod name {` blocks that are open at the end of this code.
fn inline_modules(code: &str) -> usize {
    let mut open = Vec::new();
    for (position, c) in code.char_indices() {
        match c {
            '{' => {
                let mut words = code[..position].split_whitespace().rev();
                open.push(words.nth(1) == Some("mod"));
            }
            '}' => drop(open.pop()),
            _ => {}
        }
    }
    open.iter().filter(|module| **module).count()
}

fn rank(module: &str) -> Option<u8> {
    RANKS.iter().find(|(_, modules)| modules.contains(&module)).map(|(rank, _)| *rank)
}

#[test]
fn the_source_reader_skips_comments_strings_and_tests() {
    let code = bare(
        "use a; // crate::x\nlet s = \"crate::y\"; /* crate::z */ let c = '\"'; r#\"crate::w\"#; '\\''; fn f<'a>()",
    );
    assert!(!code.contains("crate"), "{code}");
    assert!(code.contains("fn f<'a>()"), "{code}");
    let tested =
        without_tests("a\n#[cfg(test)]\nmod tests { x { } }\nb\n#[cfg(test)]\nmod more;\nc");
    assert!(!tested.contains('x') && tested.contains('b') && tested.contains('c'), "{tested}");
    let found = uses("use crate::{a::{B, c::D}, e, f as g};\nx(crate::h::i())", "crate::");
    let words: Vec<&str> = found.iter().map(|(_, word)| word.as_str()).collect();
    assert_eq!(words, ["a", "e", "f as g", "h"]);
    assert_eq!(found[3].0, 2);
    assert_eq!(inline_modules("mod a { fn b() { c(); } mod d { use "), 2);
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
        lines: 1,
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

#[test]
fn only_the_store_contains_sql() {
    let verbs = [
        "SELECT ",
        "INSERT INTO",
        "UPDATE ",
        "DELETE FROM",
        "CREATE TABLE",
        "ALTER TABLE",
        "DROP ",
        "LISTEN ",
        "NOTIFY ",
        "BEGIN",
        "COMMIT",
    ];
    for source in sources() {
        // The embedded server sends its first query and creates its database before there is a
        // store.
        if ["store", "postgres"].contains(&source.module.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&source.path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            if code.starts_with("//") {
                continue;
            }
            let in_string = code.split('"').skip(1).step_by(2);
            for part in in_string {
                let sql = verbs.iter().any(|verb| part.trim_start().starts_with(verb));
                assert!(!sql, "src/{}:{}: {line}", source.name, number + 1);
            }
        }
    }
}

/// Fails on each word of `banned` in the code of these modules.
#[track_caller]
fn absent(modules: &[&str], banned: &[&str], why: &str) {
    let mut found = Vec::new();
    for source in sources() {
        if !modules.is_empty() && !modules.contains(&source.module.as_str()) {
            continue;
        }
        for (number, line) in source.code.lines().enumerate() {
            if banned.iter().any(|word| line.contains(word)) {
                found.push(format!("src/{}:{}: {}", source.name, number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{why}:\n{}", found.join("\n"));
}

#[test]
fn lower_layers_use_neither_http_nor_sql() {
    absent(
        &["auth", "limiter", "hashing", "tokens", "identity"],
        &["hyper", "http_body", "StatusCode", "HeaderMap", "HeaderValue", "http::"],
        "only http/ knows HTTP",
    );
    absent(
        &["auth", "http", "limiter", "hashing", "tokens", "identity", "config", "cli"],
        &["tokio_postgres", "deadpool"],
        "only store/ and postgres/ know the driver",
    );
}

#[test]
fn the_hash_engine_uses_nothing_of_tokio_but_sync() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.module == "hashing") {
        for (line, used) in uses(&source.code, "tokio::") {
            if used != "sync" {
                found.push(format!("src/{}:{line}: tokio::{used}", source.name));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn there_are_no_statics() {
    absent(
        &[],
        &["OnceLock", "LazyLock", "OnceCell", "lazy_static", "thread_local!"],
        "no statics",
    );
    for source in sources() {
        // The exceptions: a request's notes belong to its task, as tracing's spans do; and the
        // allocator is global.
        if ["telemetry/trace.rs", "main.rs"].contains(&source.name.as_str()) {
            continue;
        }
        for (number, line) in source.code.lines().enumerate() {
            let code =
                line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            assert!(!code.starts_with("static "), "src/{}:{}: {line}", source.name, number + 1);
        }
    }
}

#[test]
fn unsafe_code_is_in_one_file() {
    let words = ["unsafe ", "unsafe(", "unsafe_code", "asm!"];
    for source in sources() {
        if source.name == "hashing/kernel/assembly.rs" {
            continue;
        }
        for (number, line) in source.code.lines().enumerate() {
            let found = words.iter().any(|word| line.contains(word));
            assert!(!found, "src/{}:{}: {line}", source.name, number + 1);
        }
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"deny\""));
}

#[test]
fn source_files_stay_within_the_line_limit() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| source.lines > LINES_MAX)
        .map(|source| format!("src/{}: {} lines", source.name, source.lines))
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines:\n{}", long.join("\n"));
}

// Case F19 of the field list: `disk is not full.: Permission denied`.
#[test]
fn error_texts_have_no_full_stop_and_do_not_repeat_their_source() {
    let mut wrong = Vec::new();
    for source in sources() {
        let text = fs::read_to_string(&source.path).unwrap();
        for (position, _) in text.match_indices("#[error(") {
            let attribute = text[position..].split(")]\n").next().unwrap();
            let Some(message) = attribute.split('"').nth(1) else { continue };
            if message.ends_with('.') || message.contains("{source}") {
                let line = text[..position].matches('\n').count() + 1;
                wrong.push(format!("src/{}:{line}: {message}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "sources are appended after a colon:\n{}", wrong.join("\n"));
}

#[test]
fn every_migration_is_numbered_and_compiled_in() {
    let list = fs::read_to_string(root().join("src/store/migrations.rs")).unwrap();
    let mut names: Vec<String> = fs::read_dir(root().join("migrations"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for (index, name) in names.iter().enumerate() {
        assert!(name.starts_with(&format!("{:04}_", index + 1)), "{name}");
        assert!(list.contains(name.as_str()), "{name} is not in store/migrations.rs");
    }
}
