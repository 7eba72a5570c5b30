//! What a module must not contain, and what its texts look like.

use crate::source::{sources, uses};
use crate::tree::root;
use std::fs;

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
    absent(
        &["auth", "http", "limiter", "hashing", "tokens", "identity", "config", "cli", "app"],
        &["redis::"],
        "only counters/ knows the store of the shared counters",
    );
}

#[test]
fn only_auth_builds_passwords() {
    absent(
        &["app", "cli", "config", "http", "store"],
        &["Password::new(", "Password::attempt("],
        "only auth/ builds a password from text",
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
