//! Types of setting values, with their ranges, and parsers.

use crate::http::TrustedProxies;
use crate::limiter::Limit;
use crate::secret::Secret;
use crate::store::ConnectError;
use crate::telemetry::log::{Filter, Format};
use crate::tokens::Algorithm;
use std::fmt;
use std::net::SocketAddr;
use std::num::ParseIntError;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A type that describes the values it allows.
pub(super) trait Allowed {
    /// The allowed values for the help page; empty if the setting's help text names them.
    fn allowed() -> String;
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<T, const MIN: u32, const MAX: u32>(pub T);

impl<T: FromStr<Err = ParseIntError> + Into<u64> + Copy, const MIN: u32, const MAX: u32>
    Count<T, MIN, MAX>
{
    fn parse(text: &str) -> Option<T> {
        let value: T = text.parse().ok()?;
        (u64::from(MIN)..=u64::from(MAX)).contains(&value.into()).then_some(value)
    }
}

impl<const MIN: u32, const MAX: u32> FromStr for Count<u32, MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
            .map(Self)
            .ok_or_else(|| format!("must be a whole number from {}", Self::allowed()))
    }
}

impl<const MIN: u32, const MAX: u32> FromStr for Count<usize, MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value: Count<u32, MIN, MAX> = text.parse()?;
        usize::try_from(value.0).map(Self).map_err(|_| "is too large for this machine".into())
    }
}

impl<T, const MIN: u32, const MAX: u32> Allowed for Count<T, MIN, MAX> {
    fn allowed() -> String {
        format!("{MIN} to {MAX}")
    }
}

/// A duration from `MIN_MS` to `MAX_S`, written like `1500ms`, `30s`, `10m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<const MIN_MS: u64, const MAX_S: u64>(pub Duration);

impl<const MIN_MS: u64, const MAX_S: u64> FromStr for Span<MIN_MS, MAX_S> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = (Duration::from_millis(MIN_MS), Duration::from_secs(MAX_S));
        let span = humantime::parse_duration(text).ok().filter(|span| (min..=max).contains(span));
        span.map(Self).ok_or_else(|| {
            let allowed = Self::allowed();
            format!("must be a duration like 1500ms, 30s, 10m, 1h or 7d, from {allowed}")
        })
    }
}

impl<const MIN_MS: u64, const MAX_S: u64> Allowed for Span<MIN_MS, MAX_S> {
    fn allowed() -> String {
        let (min, max) = (Duration::from_millis(MIN_MS), Duration::from_secs(MAX_S));
        format!("{} to {}", short(min), short(max))
    }
}

impl<const MIN_MS: u64, const MAX_S: u64> fmt::Display for Span<MIN_MS, MAX_S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// Formats a duration in its largest whole unit, as settings are written: `366d`, not `1year 18h`.
fn short(span: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let seconds = span.as_secs();
    if span.subsec_millis() != 0 {
        return format!("{}ms", span.as_millis());
    }
    let unit =
        UNITS.into_iter().find(|(length, _)| seconds >= *length && seconds.is_multiple_of(*length));
    unit.map_or_else(|| "0s".to_owned(), |(length, name)| format!("{}{name}", seconds / length))
}

impl Allowed for bool {
    fn allowed() -> String {
        "on or off".into()
    }
}

impl Allowed for Limit {
    fn allowed() -> String {
        "like 10/min or 5/s,100/h, or off".into()
    }
}

impl<T: Allowed> Allowed for Option<T> {
    fn allowed() -> String {
        T::allowed()
    }
}

macro_rules! described_in_help {
    ($($kind:ty),*) => {
        $(impl Allowed for $kind {
            fn allowed() -> String {
                String::new()
            }
        })*
    };
}

described_in_help!(SocketAddr, PathBuf, Secret, String, Algorithm, TrustedProxies, Filter, Format);

/// Parses `on` or `off`, `true` or `false`, `yes` or `no`, `1` or `0`.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be on or off".into()),
    }
}

/// Parses a `FromStr` type. The error says what is allowed.
pub(super) fn parsed<T: FromStr>(allowed: &'static str) -> impl Fn(&str) -> Result<T, String> {
    move |text| text.parse().map_err(|_| format!("must be {allowed}"))
}

/// Parses a `FromStr` type whose error already says what is allowed.
pub(super) fn own<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// Checks a database URL. It may hold a password, so it becomes a [`Secret`].
pub(super) fn url(text: &str) -> Result<Secret, String> {
    crate::store::parse_url(text).map_err(|error| match error {
        // Only the reason, because the setting's name precedes it.
        ConnectError::Url(reason) => reason,
        ConnectError::Refused { .. } => error.to_string(),
    })?;
    Ok(Secret::new(text.to_owned()))
}

/// Checks the URL of the shared counters. It may hold a password, so it becomes a [`Secret`].
pub(super) fn redis_url(text: &str) -> Result<Secret, String> {
    crate::counters::check_url(text)?;
    Ok(Secret::new(text.to_owned()))
}

/// Checks the start of keys.
pub(super) fn key_prefix(text: &str) -> Result<String, String> {
    crate::counters::check_prefix(text)?;
    Ok(text.to_owned())
}

/// Checks the URL of an HTTP server.
pub(super) fn http_url(text: &str) -> Result<String, String> {
    let uri: Option<hyper::Uri> = text.parse().ok();
    let is_http = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    is_http
        .then(|| text.to_owned())
        .ok_or_else(|| "must be a URL like http://127.0.0.1:4318".into())
}

/// Parses a value; an empty text is `None`.
pub(super) fn optional<T>(
    parse: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| {
        if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
    }
}

/// Parses a value; `auto` is `None`.
pub(super) fn auto<T>(
    parse: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| match text {
        "auto" => Ok(None),
        text => parse(text).map(Some).map_err(|message| format!("{message}, or auto")),
    }
}

/// Checks a text of 1 to 256 characters without control characters.
pub(super) fn line(text: &str) -> Result<String, String> {
    let fits = (1..=256).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("must be one line of 1 to 256 characters".into()) }
}
