//! Tests of imported hashes: hashes of other software, bounds, and their way through the engine.

use super::*;
use crate::SOON;
use crate::hashing::tests::{Login, PANICS, Setup, config, start};
use crate::hashing::{HashConfig, HashError, HashPurpose, Password, StoredHash};
use crate::secret::Secret;
use proptest::prelude::*;
use std::time::Duration;
use tokio::time::timeout;

/// The password of the hashes below.
const PASSWORD: &str = "TestPass123!";

const ARGON2ID: &str = "$argon2id$v=19$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$r3LtSBteWTAiTq9c3zLR5iKOchn2M+l350kwZs2YXbs";
const SCRYPT: &str =
    "$scrypt$ln=4,r=8,p=1$c2FsdHNhbHRzYWx0c2FsdA$W+M2HVzHdbjdpcko3Glf5FLovgYLAsMSC1RTJCstM38";
const DJANGO: &str = "pbkdf2_sha256$1000$djangosalt12$EotNsBALWHRCFpdTep6pPFFDiZuoVq3Uz95QgbB4fnY=";
/// Two blocks of SHA-256, as older versions of Keycloak store it.
const PBKDF2_SHA256: &str = "$pbkdf2-sha256$i=1000$EBESExQVFhcYGRobHB0eHw$TyUfrmDq1guPyK3FfriWwDHstB+7G57bOezpZO3HnBbEyaD3XtqGatfbA85yhT0sNc/N307n4Zm2GV/SRclGsA";
const PBKDF2_SHA512: &str = "$pbkdf2-sha512$i=1000$EBESExQVFhcYGRobHB0eHw$KKCBR2sx0ZvHvkD8mMPPfygI70IOYlwH+PkP9j62xrhC9QiF6F9tpiHHZrvgJLzqXpzTkcLropr6cxfDDgNCdA";

/// Made with argon2-cffi 25.1 (`low_level.hash_secret`), passlib 1.7.4 (`hash.scrypt`), Django 5.2
/// (`hashers`) and Python 3.11's `hashlib` (`scrypt`, `pbkdf2_hmac`).
///
/// The salts are `saltsaltsaltsalt`, Django's as shown, and for the last two the bytes 16 to 31.
const IMPORTED: [&str; 11] = [
    ARGON2ID,
    "$argon2id$v=19$m=256,t=3,p=4$c2FsdHNhbHRzYWx0c2FsdA$W8rVA48xRHtRCAYWo/vu96VEN21Oy+BKJxpzz++kcSU",
    "$argon2i$v=19$m=64,t=3,p=2$c2FsdHNhbHRzYWx0c2FsdA$wPmLSrZOdTQfDrt86cuwXQ",
    "argon2$argon2id$v=19$m=64,t=1,p=1$ZGphbmdvc2FsdDEy$igHjZQoB12EYt9Mjxoy8Iakkt09lXia3ozVsPMVT9X4",
    SCRYPT,
    "$scrypt$ln=7,r=4,p=3$c2FsdHNhbHRzYWx0c2FsdA$gGzo9jxKNFZFhqQcPGdlOuT2RodBGtZV5+fVDuklg9g",
    "$scrypt$ln=4,r=8,p=1$c2FsdHNhbHRzYWx0c2FsdA$W+M2HVzHdbjdpcko3Glf5FLovgYLAsMSC1RTJCstM38iqGy6UNwn3bZefbhMABS36n9hXd+Lwxnpq3UUUBqDLA",
    DJANGO,
    "$pbkdf2-sha256$i=27500,l=32$EBESExQVFhcYGRobHB0eHw$J4TBlm8s36o4Df1JLPBeH/yzVuYtjHI0zX8M7oP9s2Q",
    PBKDF2_SHA256,
    PBKDF2_SHA512,
];

fn parse(text: &str) -> Result<ImportedHash, StoredHashError> {
    ImportedHash::parse(text).unwrap_or(Err(StoredHashError::Malformed))
}

#[test]
fn hashes_of_other_software_are_verified() {
    for text in IMPORTED {
        let hash = parse(text).unwrap();
        assert_eq!(hash.matches(PASSWORD.as_bytes()), Some(true), "{text}");
        for wrong in ["", "TestPass123", "testpass123!", "TestPass123!x"] {
            assert_eq!(hash.matches(wrong.as_bytes()), Some(false), "{text}");
        }
        assert_eq!(parse(&hash.to_string()).as_ref(), Ok(&hash), "{text}");
    }
    let text = parse(DJANGO).unwrap().to_string();
    assert!(text.starts_with("$pbkdf2-sha256$i=1000$ZGphbmdvc2FsdDEy$EotNs"), "{text}");
    // A longer salt, and a password that is not ASCII.
    let hash =
        "pbkdf2_sha256$600$ZyXwVuTsRqPoNmLkJiHgFe$VFcIUj19Ror+uzTPEYWQASIcmRRX+ORL/Ulo3LwSxh8=";
    assert_eq!(parse(hash).unwrap().matches("pässwörd✓".as_bytes()), Some(true));
}

#[test]
fn recommended_and_default_parameters_are_within_the_bounds() {
    const SALT: &str = "c2FsdHNhbHRzYWx0c2FsdA$r3LtSBteWTAiTq9c3zLR5iKOchn2M+l350kwZs2YXbs";
    for parameters in [
        // OWASP's Password Storage Cheat Sheet.
        "argon2id$v=19$m=47104,t=1,p=1",
        "argon2id$v=19$m=19456,t=2,p=1",
        "argon2id$v=19$m=7168,t=5,p=1",
        "scrypt$ln=17,r=8,p=1",
        "scrypt$ln=16,r=8,p=2",
        "scrypt$ln=15,r=8,p=3",
        "scrypt$ln=14,r=8,p=5",
        "scrypt$ln=13,r=8,p=10",
        "pbkdf2-sha256$i=600000",
        "pbkdf2-sha512$i=210000",
        // RFC 9106 §4 and argon2-cffi; PHP; Django.
        "argon2id$v=19$m=65536,t=3,p=4",
        "argon2id$v=19$m=65536,t=4,p=1",
        "argon2id$v=19$m=102400,t=2,p=8",
        "pbkdf2-sha256$i=1000000",
    ] {
        let hash = parse(&format!("${parameters}${SALT}"));
        assert!(hash.is_ok_and(|hash| hash.rounds() > 100), "{parameters}");
    }
}

// Reliability: F10.
#[test]
fn parameters_out_of_bounds_are_refused() {
    fn bounds(text: &str) -> (&'static str, u64, u64, u64) {
        match parse(text) {
            Err(StoredHashError::OutOfBounds { parameter, value, least, most, .. }) => {
                (parameter, value, least, most)
            }
            other => panic!("{text}: {:?}", other.err()),
        }
    }
    let argon2 = |parameters: &str| bounds(&ARGON2ID.replace("m=64,t=2,p=1", parameters));
    // 8 GiB.
    assert_eq!(argon2("m=8388608,t=1,p=1"), ("m", 8_388_608, 8, 131_072));
    assert_eq!(argon2("m=131073,t=1,p=1"), ("m", 131_073, 8, 131_072));
    assert_eq!(argon2("m=18446744073709551615,t=1,p=1").0, "m");
    assert_eq!(argon2("m=7,t=1,p=1"), ("m", 7, 8, 131_072));
    assert_eq!(argon2("m=31,t=1,p=4"), ("m", 31, 32, 131_072));
    assert_eq!(argon2("m=131072,t=3,p=1"), ("t", 3, 1, 2));
    assert_eq!(argon2("m=64,t=4294967295,p=1"), ("t", 4_294_967_295, 1, 4_096));
    assert_eq!(argon2("m=64,t=0,p=1"), ("t", 0, 1, 4_096));
    assert_eq!(argon2("m=64,t=1,p=17"), ("p", 17, 1, 16));
    assert_eq!(argon2("m=64,t=1,p=0"), ("p", 0, 1, 16));
    let scrypt = |parameters: &str| bounds(&SCRYPT.replace("ln=4,r=8,p=1", parameters));
    assert_eq!(scrypt("ln=18,r=8,p=1"), ("ln", 18, 1, 17));
    assert_eq!(scrypt("ln=17,r=8,p=2"), ("ln", 17, 1, 16));
    assert_eq!(scrypt("ln=63,r=1,p=1"), ("ln", 63, 1, 20));
    assert_eq!(scrypt("ln=0,r=1,p=1"), ("ln", 0, 1, 20));
    assert_eq!(scrypt("ln=1,r=33,p=1"), ("r", 33, 1, 32));
    assert_eq!(scrypt("ln=1,r=1,p=4294967296"), ("p", 4_294_967_296, 1, 16));
    let pbkdf2 = |text: &str, times: &str| bounds(&text.replace("1000", times));
    assert_eq!(pbkdf2(DJANGO, "2000001"), ("iterations", 2_000_001, 1, 2_000_000));
    assert_eq!(pbkdf2(PBKDF2_SHA512, "700001"), ("iterations", 700_001, 1, 700_000));
    assert_eq!(pbkdf2(PBKDF2_SHA256, "0"), ("iterations", 0, 1, 2_000_000));
    // Salts and digests that are too short or too long.
    for text in [ARGON2ID, SCRYPT, PBKDF2_SHA512] {
        let cut = |keep: usize| text.split('$').take(keep).collect::<Vec<_>>().join("$");
        let all = text.split('$').count();
        let short = format!("{}$c2FsdA", cut(all - 1));
        assert_eq!(bounds(&short), ("digest bytes", 4, 16, 64));
        let long = format!("{}${}", cut(all - 1), text::base64(&[7; 65]));
        assert_eq!(bounds(&long), ("digest bytes", 65, 16, 64));
        let salted = |salt: &[u8]| {
            let digest = text.rsplit('$').next().unwrap();
            bounds(&format!("{}${}${digest}", cut(all - 2), text::base64(salt)))
        };
        assert_eq!(salted(&[7; 7]), ("salt bytes", 7, 8, 64));
        assert_eq!(salted(&[7; 65]), ("salt bytes", 65, 8, 64));
    }
    assert_eq!(bounds(&DJANGO.replace("djangosalt12", "salt")), ("salt bytes", 4, 8, 64));
}

// Reliability: F10.
#[test]
fn damaged_and_unsupported_hashes_are_refused() {
    let damaged = |algorithm| Err(StoredHashError::Damaged(algorithm));
    for (from, to) in [
        ("m=64,t=2,p=1", "t=2,m=64,p=1"),
        ("m=64,t=2,p=1", "m=64,t=2"),
        ("m=64,t=2,p=1", "m=64,t=2,p=1,data=c2FsdA"),
        ("m=64", "m=064"),
        ("m=64", "m=+64"),
        ("m=64", "m="),
        ("m=64", "m=18446744073709551616"),
        ("v=19$", ""),
        ("v=19$", "v=20$"),
        ("$c2Fs", "$c2F%"),
        ("YXbs", "YXbs="),
        ("YXbs", "YXbs$"),
    ] {
        assert_eq!(parse(&ARGON2ID.replace(from, to)), damaged("argon2"), "{to}");
    }
    assert_eq!(parse(&SCRYPT.replace("r=8,", "")), damaged("scrypt"));
    assert_eq!(parse("$scrypt$"), damaged("scrypt"));
    assert_eq!(parse(&PBKDF2_SHA512.replace("i=1000", "1000")), damaged("PBKDF2"), "passlib's");
    assert_eq!(parse(&PBKDF2_SHA512.replace("i=1000", "i=1000,l=32")), damaged("PBKDF2"));
    assert_eq!(parse(&DJANGO.replace("1000", "1e3")), damaged("PBKDF2"));
    let unsupported = |what| Err(StoredHashError::Unsupported(what));
    assert_eq!(parse(&ARGON2ID.replace("2id", "2d")), unsupported("argon2d"));
    assert_eq!(parse(&ARGON2ID.replace("=19", "=16")), unsupported("argon2 of version 1.0"));
    let sha1 = unsupported("PBKDF2 with SHA-1");
    assert_eq!(parse("pbkdf2_sha1$1000$djangosalt12$nbaaGd11qMiYrqIuG2jz3y4vvIE="), sha1);
    assert_eq!(parse(&PBKDF2_SHA512.replace("-sha512", "")), sha1);
    for text in ["", "$", "$$", "argon2", "argon2$", "argon2id$v=19$", "$pbkdf2_sha256$1$", "$2b$"]
    {
        assert!(ImportedHash::parse(text).is_none(), "{text}");
    }
}

fn schemes() -> impl Strategy<Value = String> {
    let argon2 = ("(id|i)", 1u32..=16, 128u32..=16_384, 1u32..=16)
        .prop_map(|(kind, p, m, t)| format!("argon2{kind}$v=19$m={m},t={t},p={p}"));
    let scrypt = (1u32..=11, 1u32..=32, 1u32..=16)
        .prop_map(|(n, r, p)| format!("scrypt$ln={n},r={r},p={p}"));
    let pbkdf2 =
        ("(256|512)", 1u32..=700_000).prop_map(|(hash, i)| format!("pbkdf2-sha{hash}$i={i}"));
    prop_oneof![argon2, scrypt, pbkdf2]
}

proptest! {
    #[test]
    fn a_written_hash_reads_back(
        scheme in schemes(),
        salt in prop::collection::vec(any::<u8>(), 8..=64),
        digest in prop::collection::vec(any::<u8>(), 16..=64),
    ) {
        let text = format!("${scheme}${}${}", text::base64(&salt), text::base64(&digest));
        let hash = parse(&text).unwrap();
        prop_assert_eq!(&hash.salt, &salt);
        prop_assert_eq!(&hash.digest, &digest);
        prop_assert_eq!(hash.to_string(), text.clone());
        prop_assert_eq!(StoredHash::usable(&text, 4).unwrap().to_string(), text);
    }

    #[test]
    fn hostile_text_never_panics(
        name in "(\\$argon2id\\$|\\$scrypt\\$|\\$pbkdf2-sha256\\$|pbkdf2_sha256\\$|argon2\\$|)",
        more in "(\\PC{0,60}|[$=,mtplnrv0-9A-Za-z+/]{0,80})",
    ) {
        let _ = StoredHash::usable(&format!("{name}{more}"), 4);
    }
}

impl Setup {
    /// Starts a login with such a hash, as a task.
    fn imported(&self, stored: &str) -> Login {
        self.spawn(PASSWORD, stored)
    }

    fn waiting(&self) -> usize {
        self.engine.shared().imported.waiting(HashPurpose::Verify)
    }

    fn verified(&self) -> u64 {
        self.counter(r#"staunch_hash_seconds_count{op="foreign"}"#)
    }
}

#[tokio::test]
async fn an_imported_hash_is_verified_and_offered_for_a_rehash() {
    let setup = start(&config(4, 1, 2));
    for text in IMPORTED {
        let wrong = setup.verify("wrong", Some(text)).await.unwrap();
        assert!(!wrong.matches && wrong.outdated.is_none(), "{text}");
        let right = setup.verify(PASSWORD, Some(text)).await.unwrap();
        assert!(right.matches, "{text}");
        let new = setup.engine.rehash(&right.outdated.unwrap()).await.unwrap().to_string();
        assert!(new.starts_with("$2b$04$") && bcrypt::verify(PASSWORD, &new).unwrap());
    }
    assert_eq!(setup.verified(), 22);
    assert_eq!(setup.counter(r#"staunch_hash_seconds_count{op="verify"}"#), 0);
}

// Reliability: F7.
#[tokio::test]
async fn a_password_that_bcrypt_cannot_represent_keeps_its_imported_hash() {
    // Made with argon2-cffi, of "long " twenty times and of "nul", NUL, "inside".
    let long = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$oAb2u8+dAuYXuLORAP7oDoJDSHneeYtfMEZBT95ViVY";
    let nul = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$3N0bgdGdEw99goTsyM9mTdKayFLeSIyaa6yXz4xeW8g";
    let setup = start(&config(4, 1, 2));
    for (password, stored) in [("long ".repeat(20), long), ("nul\0inside".into(), nul)] {
        let verdict = setup.verify(&password, Some(stored)).await.unwrap();
        assert!(verdict.matches && verdict.outdated.is_none());
        assert!(
            !setup.verify(&password[..password.len() - 1], Some(stored)).await.unwrap().matches
        );
    }
    assert!(!setup.verify(&"x".repeat(10_000), Some(long)).await.unwrap().matches);
}

// Reliability: F10.
#[tokio::test]
async fn an_imported_hash_out_of_bounds_is_not_computed() {
    let setup = start(&config(4, 1, 1));
    for text in [
        ARGON2ID.replace("m=64", "m=8388608"),
        SCRYPT.replace("ln=4", "ln=30"),
        DJANGO.replace("1000", "4294967295"),
        ARGON2ID.replace("2id", "2d"),
        ARGON2ID.replace("m=64", "m=x"),
    ] {
        let refused = setup.verify(PASSWORD, Some(&text)).await;
        assert!(matches!(refused, Err(HashError::Stored(_))), "{text}: {refused:?}");
    }
    assert_eq!(setup.verified(), 0);
    // One dummy hash each, as for an account that does not exist.
    assert_eq!(setup.counter(r#"staunch_hash_seconds_count{op="verify"}"#), 5);
}

#[tokio::test]
async fn bcrypt_logins_continue_while_an_imported_hash_is_verified() {
    let setup = start(&config(4, 1, 1));
    let (held, gate) = setup.held(ARGON2ID).await;
    let ours = bcrypt::hash(PASSWORD, 4).unwrap();
    for _ in 0..3 {
        assert!(setup.verify(PASSWORD, Some(&ours)).await.unwrap().matches);
    }
    assert!(!held.is_finished(), "the imported hash is still being verified");
    drop(gate);
    assert!(!held.await.unwrap().unwrap().matches);
}

#[tokio::test]
async fn a_waiting_imported_job_can_expire_or_be_abandoned() {
    let setup = start(&config(4, 1, 1));
    let (running, gate) = setup.held(ARGON2ID).await;
    let (late, left) = (setup.imported(ARGON2ID), setup.imported(ARGON2ID));
    setup.until("both wait", |setup| setup.waiting() == 2).await;
    left.abort();
    setup.clock.advance(Duration::from_secs(31));
    drop(gate);
    assert!(running.await.unwrap().is_ok());
    let late = timeout(SOON, late).await.unwrap().unwrap();
    assert!(matches!(late, Err(HashError::Expired { .. })), "{late:?}");
    setup.until("dropped", |setup| setup.counter("staunch_hash_cancelled_total ") == 1).await;
    assert_eq!(setup.counter(r#"staunch_hash_rejected_total{reason="expired"}"#), 1);
    assert_eq!((setup.verified(), setup.waiting()), (1, 0));
}

#[tokio::test]
async fn imported_hashes_have_a_separate_queue() {
    let setup = start(&HashConfig { queue: 4, ..config(4, 1, 1) });
    let (running, gate) = setup.held(ARGON2ID).await;
    let jobs = [running, setup.imported(ARGON2ID), setup.imported(ARGON2ID)];
    setup.until("both places are taken", |setup| setup.waiting() == 2).await;
    let refused = setup.verify(PASSWORD, Some(ARGON2ID)).await.err();
    assert!(matches!(refused, Some(HashError::QueueFull { .. })), "{refused:?}");
    assert!(
        !setup.verify("a login", None).await.unwrap().matches,
        "bcrypt logins have their own places"
    );
    drop(gate);
    for job in jobs {
        assert!(job.await.unwrap().is_ok());
    }
}

// Reliability: D4.
#[tokio::test]
async fn a_panic_fails_only_its_own_imported_job() {
    let setup = start(&config(4, 1, 1));
    for _ in 0..2 {
        assert_eq!(setup.verify(PANICS, Some(SCRYPT)).await.err(), Some(HashError::Panicked));
        assert!(setup.verify(PASSWORD, Some(SCRYPT)).await.unwrap().matches);
    }
    assert_eq!(setup.counter("staunch_hash_panics_total "), 2);
}

// Case F13 of the field list: it passes next to a compiler, because little is hashed.
#[tokio::test]
async fn a_drain_finishes_imported_jobs_and_an_aborted_drain_refuses_them() {
    let setup = start(&config(4, 2, 2));
    let jobs = [setup.imported(ARGON2ID), setup.imported(DJANGO), setup.imported(SCRYPT)];
    setup.engine.drain().await;
    for job in jobs {
        assert!(matches!(job.await.unwrap(), Ok(verdict) if verdict.matches));
    }
    let setup = start(&config(4, 1, 1));
    let (running, gate) = setup.held(ARGON2ID).await;
    let waiting = setup.imported(ARGON2ID);
    setup.until("one waits", |setup| setup.waiting() == 1).await;
    setup.engine.abort();
    drop(gate);
    assert!(timeout(SOON, setup.engine.drain()).await.is_ok());
    assert!(running.await.unwrap().is_ok());
    assert_eq!(waiting.await.unwrap().err(), Some(HashError::ShuttingDown));
}

// Reliability: E7.
#[tokio::test(flavor = "multi_thread")]
async fn mixed_imported_and_bcrypt_jobs_all_end() {
    const JOBS: usize = 300;
    let setup = start(&HashConfig { queue: 60, ..config(4, 2, 3) });
    let ours = bcrypt::hash(PASSWORD, 4).unwrap();
    let kinds = [ours.as_str(), ARGON2ID, DJANGO, ours.as_str(), SCRYPT];
    let mut jobs = Vec::new();
    let mut refused = 0;
    for number in 0..JOBS {
        let Ok(permit) = setup.engine.reserve(HashPurpose::Verify) else {
            refused += 1;
            tokio::task::yield_now().await;
            continue;
        };
        let (engine, stored) = (setup.engine.clone(), kinds[number % kinds.len()].to_owned());
        let text = if number % 17 == 0 { PANICS } else { PASSWORD };
        let password = Password::attempt(Secret::new(text.to_owned()));
        let job = tokio::spawn(async move { engine.verify(permit, password, &stored).await });
        if number % 7 == 0 {
            tokio::task::yield_now().await;
            job.abort();
        }
        jobs.push(job);
    }
    for job in jobs {
        match timeout(SOON, job).await.expect("no job hangs") {
            Ok(Ok(verdict)) => assert!(verdict.matches),
            Ok(Err(HashError::Panicked | HashError::QueueFull { .. })) | Err(_) => {}
            Ok(Err(error)) => panic!("{error}"),
        }
    }
    setup.engine.drain().await;
    assert!(refused < JOBS);
    let admission = &setup.engine.shared().admission;
    assert_eq!(
        (setup.waiting(), admission.waiting(HashPurpose::Verify)),
        (0, 0),
        "every place is free again"
    );
    assert_eq!(setup.engine.shared().imported.predicted_wait(HashPurpose::Verify), Duration::ZERO);
}
