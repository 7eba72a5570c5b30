//! Runs the parsers of `fuzz/entries.rs` on stable Rust over the corpus and mutations of it.
//!
//! `cargo test` tries 10,000 mutations per entry, always the same ones. `cargo xfuzz` mutates each
//! for a minute (`FUZZ_SECONDS`) from another seed, and prints inputs that break a property.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a failed test; clippy exempts only the tests themselves"
)]

#[path = "../fuzz/entries.rs"]
mod entries;

use entries::{ENTRIES, Entry};
use staunch::clock::Clock;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MUTATIONS: usize = 10_000;
const OCTETS_MAX: usize = 4_096;

/// Inputs that often break parsers.
const ODD: [&[u8]; 24] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\"",
    b"\\",
    b"%",
    b"%00",
    b"%zz",
    b"&",
    b"=",
    b"+",
    b"$",
    b"$$",
    b",",
    b":",
    b"..",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xc3\xa9",
    b"\\ud800",
    b"1e999",
    b"-1",
    b"18446744073709551616",
    b"[[[[[[[[[[[[[[[[",
];

/// Sebastiano Vigna's splitmix64: good enough to choose inputs, and reproducible.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end.max(1) as u64).unwrap()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The corpus of an entry, in order of file names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = root().join("fuzz/corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!((1..=30).contains(&paths.len()), "{name}: {} files", paths.len());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(input.len() + 1);
        let to = (at + dice.below(16)).min(input.len());
        match dice.below(7) {
            0 if at < input.len() => input[at] ^= 1 << dice.below(8),
            1 => drop(input.drain(at..to)),
            2 => {
                let odd = ODD[dice.below(ODD.len())];
                input.splice(at..at, odd.iter().copied());
            }
            3 => {
                let odd = ODD[dice.below(ODD.len())];
                input.splice(at..to, odd.iter().copied());
            }
            4 => {
                let part = input[at..to].to_vec();
                input.splice(at..at, part);
            }
            5 => {
                // Appends the end of another input.
                let other = &corpus[dice.below(corpus.len())];
                let from = dice.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let byte = u8::try_from(dice.below(256)).unwrap();
                input.insert(at, byte);
            }
        }
        input.truncate(OCTETS_MAX);
    }
}

/// Runs an entry, and prints the input if it panics.
fn check((name, run): Entry, input: &[u8]) {
    let ended = catch_unwind(AssertUnwindSafe(|| run(input)));
    assert!(ended.is_ok(), "{name} of b\"{}\"", input.escape_ascii());
}

fn check_mutations(entry: Entry, seed: u64, mut goes_on: impl FnMut(usize) -> bool) -> usize {
    let corpus = corpus(entry.0);
    corpus.iter().for_each(|input| check(entry, input));
    let mut dice = Dice(seed);
    let mut count = 0;
    while goes_on(count) {
        let mut input = corpus[dice.below(corpus.len())].clone();
        mutate(&mut input, &corpus, &mut dice);
        check(entry, &input);
        count += 1;
    }
    count
}

#[test]
fn every_parser_keeps_its_properties_over_corpus_and_mutations() {
    std::thread::scope(|scope| {
        for entry in ENTRIES {
            scope.spawn(move || check_mutations(entry, 0, |count| count < MUTATIONS));
        }
    });
}

#[test]
fn targets_corpus_and_entries_match() {
    let entries: BTreeSet<String> = ENTRIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stems = |folder: &str| -> BTreeSet<String> {
        let files = fs::read_dir(root().join(folder)).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        files.map(|entry| stem(entry.unwrap().path())).collect()
    };
    assert_eq!(stems("fuzz/targets"), entries);
    assert_eq!(stems("fuzz/corpus"), entries);
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    for name in entries {
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
    }
}

#[test]
fn the_corpus_has_accepted_and_rejected_inputs() {
    let accepted = |name: &str, is: &dyn Fn(&[u8]) -> bool| {
        let corpus = corpus(name);
        let count = corpus.iter().filter(|input| is(input)).count();
        assert!(count > 0 && count < corpus.len(), "{name}: {count} of {}", corpus.len());
    };
    accepted("form", &|input| staunch::http::parsers::form(input).is_some());
    accepted("json", &|input| staunch::http::parsers::json(input).is_some());
    accepted("authorization", &|input| staunch::http::parsers::basic(input).is_some());
    accepted("hash", &|input| {
        let text = std::str::from_utf8(input);
        text.is_ok_and(|text| staunch::hashing::StoredHash::usable(text, 12).is_ok())
    });
    accepted("import", &|input| {
        let mut lines = input.splitn(2, |byte| *byte == b'\n');
        let (first, second) = (lines.next().unwrap(), lines.next());
        match second {
            None => staunch::auth::read_line(None, first, 12).is_ok(),
            Some(second) => staunch::auth::read_line(Some(first), second, 12).is_ok(),
        }
    });
}

#[test]
#[ignore = "takes a minute per entry: cargo xfuzz"]
fn every_parser_keeps_its_properties_for_a_minute() {
    let seconds = std::env::var("FUZZ_SECONDS").map_or(60, |text| text.parse().unwrap());
    let clock = Clock::system();
    let seed = clock.unix_s();
    for entry in ENTRIES {
        let end = clock.now() + Duration::from_secs(seconds);
        let count =
            check_mutations(entry, seed, |count| !count.is_multiple_of(64) || clock.now() < end);
        println!("{}: {count} mutations, seed {seed}", entry.0);
    }
}
