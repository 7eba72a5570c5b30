//! Reading the source: files without comments, strings and tests, and the paths that they use.

use crate::tree::{root, rust_files};
use std::fs;
use std::path::PathBuf;

/// A source file, prepared for searching.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// Relative to src/, with slashes.
    pub(crate) name: String,
    /// The first folder or the file's stem.
    pub(crate) module: String,
    /// Without comments, strings and tests, but with the same line numbers.
    pub(crate) code: String,
}

pub(crate) fn sources() -> Vec<Source> {
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
pub(crate) fn uses(code: &str, from: &str) -> Vec<(usize, String)> {
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
pub(crate) fn inline_modules(code: &str) -> usize {
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
