//! Every parser that a stranger's octets reach, as a function of octets, with the law that it keeps.
//! One list for the cargo-fuzz targets and for `tests/fuzz.rs`. A broken law is a panic.

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

/// A name, and what is called with the octets.
pub(crate) type Entry = (&'static str, fn(&[u8]));

/// The list.
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

/// What is read, and written as a browser would, is read the same; no name is there twice.
fn form(octets: &[u8]) {
    let Some(fields) = parsers::form(octets) else { return };
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    let written: Vec<String> = pairs.collect();
    assert_eq!(parsers::form(written.join("&").as_bytes()), Some(fields.clone()));
    unique(fields.iter().map(|(name, _)| name));
}

/// The same for JSON; numbers only stay numbers, as their text may be rounded.
fn json(octets: &[u8]) {
    let Some(members) = parsers::json(octets) else { return };
    unique(members.iter().map(|(name, _)| name));
    let object: Map<String, Value> = members.iter().cloned().collect();
    let written = serde_json::to_vec(&object).expect("it was read");
    let again = parsers::json(&written).expect("it was written");
    assert_eq!(again.len(), members.len());
    for (name, value) in &members {
        let other = again.iter().find(|(other, _)| other == name).map(|(_, value)| value);
        let other = other.expect("a member is lost");
        assert_eq!(value.as_str(), other.as_str());
        assert_eq!(std::mem::discriminant(value), std::mem::discriminant(other));
    }
}

/// A header is a bearer token, or a client's id and secret, or neither; each reads back.
fn authorization(octets: &[u8]) {
    let (bearer, basic) = (parsers::bearer(octets), parsers::basic(octets));
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

/// Of an untrusted peer nothing is believed. Of a trusted one, what it added on the right counts,
/// whatever the client wrote before.
fn forwarded(octets: &[u8]) {
    let trusted: TrustedProxies = "10.0.0.0/8,fd00::/8".parse().expect("two networks");
    let [proxy, stranger] = ["10.0.0.1", "192.0.2.7"].map(|text| text.parse().expect("one"));
    for (name, added) in
        [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9;proto=https")]
    {
        let client =
            |peer: IpAddr, value: &[u8]| parsers::client_address(&trusted, peer, name, value);
        let Some(found) = client(proxy, octets) else { return };
        assert_eq!(found, found.to_canonical());
        assert_eq!(client(stranger, octets), Some(stranger));
        let appended = [octets, b", ", added.as_bytes()].concat();
        assert_eq!(client(proxy, &appended), "203.0.113.9".parse().ok());
    }
}

/// A stored hash reads back as it is written, and within the same bounds.
fn hash(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let Ok(hash) = StoredHash::usable(text, COST) else { return };
    let written = hash.to_string();
    let again = StoredHash::usable(&written, COST).expect("it was written");
    assert_eq!(again.to_string(), written);
    assert!(!format!("{hash:?}").contains(&written[written.len() - 20..]), "Debug shows it");
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

/// The token with each pair of octets taken as a place and what stands there instead; and, of an odd
/// number of octets, cut short.
fn altered(token: &str, octets: &[u8]) -> Option<String> {
    let mut altered = token.as_bytes().to_vec();
    for pair in octets.chunks(2) {
        let (place, other) = (usize::from(pair[0]), pair.get(1));
        match other {
            Some(other) => {
                let place = place * altered.len() / 256;
                if let Some(octet) = altered.get_mut(place) {
                    *octet = *other;
                }
            }
            None => altered.truncate(altered.len().saturating_sub(place)),
        }
    }
    String::from_utf8(altered).ok()
}

/// Only what this server sealed is opened, and it is the one text for what it says.
fn refresh(octets: &[u8]) {
    ISSUER.with(|issuer| {
        let altered = altered(&issuer.refresh, octets);
        for text in std::str::from_utf8(octets).ok().into_iter().chain(altered.as_deref()) {
            match issuer.tokens.open_refresh(text) {
                Ok(claims) => assert_eq!(issuer.tokens.seal_refresh(claims).expose(), text),
                Err(_) => assert_ne!(text, issuer.refresh),
            }
        }
    });
}

/// Only the token that was signed is believed, in the one form that it has.
fn jwt(octets: &[u8]) {
    ISSUER.with(|issuer| {
        let altered = altered(&issuer.access, octets);
        for text in std::str::from_utf8(octets).ok().into_iter().chain(altered.as_deref()) {
            let believed = issuer.tokens.verify_access(text).is_ok();
            assert_eq!(believed, text == issuer.access, "{text}");
        }
    });
}

/// Lines of NAME=value: all are read, or each problem names a setting. Limits and networks read back.
fn settings(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
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

/// A line that is imported is the same account when it was exported; of two lines the first may be
/// the columns of CSV. What is said of a bad line is one short line.
fn import(octets: &[u8]) {
    let mut lines = octets.splitn(2, |octet| *octet == b'\n');
    let (first, second) = (lines.next().unwrap_or_default(), lines.next());
    let read = match second {
        None => read_line(None, first, COST),
        Some(second) => read_line(Some(first), second, COST),
    };
    match read {
        Err(said) => assert!(said.len() < 4_096 && !said.contains('\n'), "{said}"),
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

/// Names that are accepted are accepted as they are kept; an id has one form.
fn names(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
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
    assert_eq!(sorted.len(), names.len(), "a name is there twice");
}

/// Calls one of the list, as a fuzz target does.
#[allow(dead_code, reason = "the tests go through the whole list")]
pub(crate) fn run(name: &str, octets: &[u8]) {
    let entry = ENTRIES.iter().find(|(entry, _)| *entry == name);
    entry.expect("it is listed").1(octets);
}
