//! Every parser that reads bytes from strangers, as a function of bytes, with the law that it
//! keeps.
//!
//! One list serves the cargo-fuzz targets and `tests/fuzz.rs`. A broken law is a panic.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use staunch::auth::read_line;
use staunch::clock::Clock;
use staunch::config::Config;
use staunch::hashing::StoredHash;
use staunch::http::{TrustedProxies, parsers};
use staunch::identity::{Email, LoginName, SessionId, UserId, Username};
use staunch::limiter::Limit;
use staunch::telemetry::trace_context::TraceContext;
use staunch::tokens::{Algorithm, RefreshClaims, TokenConfig, Tokens};
use std::net::IpAddr;
use std::time::Duration;
use time::format_description::well_known::Rfc3339;

pub(crate) type Entry = (&'static str, fn(&[u8]));

pub(crate) const ENTRIES: [Entry; 10] = [
    ("form", form),
    ("json", json),
    ("authorization", authorization),
    ("forwarded", forwarded),
    ("hash", hash),
    ("refresh", refresh),
    ("jwt", jwt),
    ("settings", settings),
    ("import", import),
    ("names", names),
];

const COST: u32 = 12;

/// A parsed form, written as a browser would, parses to the same form. Names are unique.
fn form(input: &[u8]) {
    let Some(fields) = parsers::form(input) else { return };
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    let written: Vec<String> = pairs.collect();
    assert_eq!(parsers::form(written.join("&").as_bytes()), Some(fields.clone()));
    unique(fields.iter().map(|(name, _)| name));
}

/// A parsed JSON object, written again, parses to the same object. Names are unique.
///
/// Numbers are only checked to stay numbers, because their text may be rounded.
fn json(input: &[u8]) {
    let Some(members) = parsers::json(input) else { return };
    unique(members.iter().map(|(name, _)| name));
    let object: Map<String, Value> = members.iter().cloned().collect();
    let written = serde_json::to_vec(&object).expect("JSON serialises");
    let again = parsers::json(&written).expect("written JSON parses");
    assert_eq!(again.len(), members.len());
    for (name, value) in &members {
        let other = again.iter().find(|(other, _)| other == name).map(|(_, value)| value);
        let other = other.expect("the same member");
        assert_eq!(value.as_str(), other.as_str());
        assert_eq!(std::mem::discriminant(value), std::mem::discriminant(other));
    }
}

/// A header is a bearer token, or a client's id and secret, or neither. Each reads back.
fn authorization(input: &[u8]) {
    let (bearer, basic) = (parsers::bearer(input), parsers::basic(input));
    assert!(bearer.is_none() || basic.is_none());
    if let Some(token) = bearer {
        assert_eq!(parsers::bearer(format!("Bearer {token}").as_bytes()), Some(token));
    }
    if let Some((id, secret)) = basic {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let text = STANDARD.encode(format!("{}:{}", encode(&id), encode(&secret)));
        assert_eq!(parsers::basic(format!("Basic {text}").as_bytes()), Some((id, secret)));
    }
}

/// The client address comes from headers only if the peer is a trusted proxy.
///
/// The address that a trusted proxy appended on the right counts, whatever the client wrote before.
fn forwarded(input: &[u8]) {
    let trusted: TrustedProxies = "10.0.0.0/8,fd00::/8".parse().expect("two networks");
    let [proxy, stranger] = ["10.0.0.1", "192.0.2.7"].map(|text| text.parse().expect("an address"));
    for (name, added) in
        [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9;proto=https")]
    {
        let client =
            |peer: IpAddr, value: &[u8]| parsers::client_address(&trusted, peer, name, value);
        let Some(found) = client(proxy, input) else { return };
        assert_eq!(found, found.to_canonical());
        assert_eq!(client(stranger, input), Some(stranger));
        let appended = [input, b", ", added.as_bytes()].concat();
        assert_eq!(client(proxy, &appended), "203.0.113.9".parse().ok());
    }
}

/// A stored hash reads back as it was written, and within the same bounds.
fn hash(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(hash) = StoredHash::usable(text, COST) else { return };
    let written = hash.to_string();
    let again = StoredHash::usable(&written, COST).expect("a written hash parses");
    assert_eq!(again.to_string(), written);
    assert!(
        !format!("{hash:?}").contains(&written[written.len() - 20..]),
        "Debug shows the digest"
    );
}

/// Keys that live as long as the thread, and one token of each kind.
struct Issuer {
    tokens: Tokens,
    access: String,
    refresh: String,
    _folder: tempfile::TempDir,
}

thread_local! {
    static ISSUER: Issuer = {
        let folder = tempfile::tempdir().expect("a folder");
        let config = TokenConfig {
            algorithm: Algorithm::EdDsa,
            issuer: "http://localhost:8080".into(),
            audience: "staunch".into(),
            keys_dir: folder.path().join("keys"),
            access_ttl: Duration::from_secs(3_600),
            refresh_ttl: Duration::from_secs(86_400),
        };
        let tokens = Tokens::open(&config, Clock::manual()).expect("new keys");
        let session = SessionId::random();
        let access = tokens.sign_access(UserId(7), session).expect("a key signs");
        let refresh = tokens.seal_refresh(RefreshClaims { session, generation: 3 });
        let [access, refresh] = [access, refresh].map(|token| token.expose().to_owned());
        Issuer { tokens, access, refresh, _folder: folder }
    };
}

/// Returns the token with bytes replaced. Each input pair is a position and its new byte.
///
/// If the number of input bytes is odd, the last one cuts the token short.
fn altered(token: &str, input: &[u8]) -> Option<String> {
    let mut altered = token.as_bytes().to_vec();
    for pair in input.chunks(2) {
        let (place, other) = (usize::from(pair[0]), pair.get(1));
        match other {
            Some(other) => {
                let place = place * altered.len() / 256;
                if let Some(byte) = altered.get_mut(place) {
                    *byte = *other;
                }
            }
            None => altered.truncate(altered.len().saturating_sub(place)),
        }
    }
    String::from_utf8(altered).ok()
}

/// Only a token that this server sealed opens, and its content has no other text.
fn refresh(input: &[u8]) {
    ISSUER.with(|issuer| {
        let altered = altered(&issuer.refresh, input);
        for text in std::str::from_utf8(input).ok().into_iter().chain(altered.as_deref()) {
            match issuer.tokens.open_refresh(text) {
                Ok(claims) => assert_eq!(issuer.tokens.seal_refresh(claims).expose(), text),
                Err(_) => assert_ne!(text, issuer.refresh),
            }
        }
    });
}

/// Only the signed token verifies, and only in its exact form.
fn jwt(input: &[u8]) {
    ISSUER.with(|issuer| {
        let altered = altered(&issuer.access, input);
        for text in std::str::from_utf8(input).ok().into_iter().chain(altered.as_deref()) {
            let accepted = issuer.tokens.verify_access(text).is_ok();
            assert_eq!(accepted, text == issuer.access, "{text}");
        }
    });
}

/// Lines of NAME=value: all parse, or each problem names a setting. Limits and networks read back.
fn settings(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let given: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let read = Config::read(|setting| {
        let found = given.iter().find(|(name, _)| *name == setting.variable);
        found.map(|(_, value)| (*value).to_owned())
    });
    match read {
        Ok(config) => drop(config.warnings()),
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|problem| problem.variable.starts_with("STAUNCH_")));
        }
    }
    for (_, value) in given {
        if let Ok(limit) = value.parse::<Limit>() {
            assert_eq!(limit.to_string().parse(), Ok(limit));
        }
        if let Ok(networks) = value.parse::<TrustedProxies>() {
            assert_eq!(networks.to_string().parse(), Ok(networks));
        }
    }
}

/// An imported line is the same account after an export. An error message is one short line.
///
/// Of two lines, the first may be the column names of a CSV file.
fn import(input: &[u8]) {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let (first, second) = (lines.next().unwrap_or_default(), lines.next());
    let read = match second {
        None => read_line(None, first, COST),
        Some(second) => read_line(Some(first), second, COST),
    };
    match read {
        Err(message) => assert!(message.len() < 4_096 && !message.contains('\n'), "{message}"),
        Ok(user) => {
            let created_at = user.created_at.map(|time| time.format(&Rfc3339).expect("a year"));
            let line = serde_json::json!({
                "email": user.email.as_str(),
                "username": user.username.as_str(),
                "password_hash": user.password_hash,
                "is_active": user.is_active,
                "created_at": created_at,
            });
            let again = read_line(None, line.to_string().as_bytes(), COST).expect("an export");
            assert_eq!(again.email, user.email);
            assert_eq!(again.username, user.username);
            assert_eq!(again.password_hash, user.password_hash);
            assert_eq!(again.is_active, user.is_active);
            assert_eq!(again.created_at, user.created_at);
        }
    }
}

/// An accepted name is accepted again in its stored form. An id has one form.
fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(email) = Email::parse(text) {
        assert_eq!(Email::parse(email.as_str()).ok(), Some(email));
    }
    if let Ok(username) = Username::parse(text) {
        assert!(!username.as_str().contains('@'));
        assert_eq!(Username::parse(username.as_str()).ok(), Some(username));
    }
    LoginName::parse(text);
    if let Some(id) = SessionId::parse_canonical(text) {
        assert_eq!(id.to_string(), text);
    }
    let (parent, state) = text.split_once('\n').unwrap_or((text, ""));
    TraceContext::of(Some(parent), Some(state), true);
}

fn unique<'a>(names: impl Iterator<Item = &'a String>) {
    let names: Vec<&String> = names.collect();
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), names.len(), "a name is repeated");
}

/// Runs one entry, as a fuzz target does.
#[allow(dead_code, reason = "tests use the whole list instead")]
pub(crate) fn run(name: &str, input: &[u8]) {
    let entry = ENTRIES.iter().find(|(entry, _)| *entry == name);
    entry.expect("an entry of that name").1(input);
}
