//! `staunch check-config`: prints the settings in effect, or every error in them. Starts nothing.

use super::source::Source;
use super::{BAD_SETTING, Failure, tell};
use crate::config::SETTINGS;
use crate::counters;
use crate::store;
use crate::telemetry::with_causes;
use clap::ArgMatches;

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let source = Source::new(matches)?;
    let config = source.config()?;
    if let Some(files) = config.certificate() {
        let message = |error| with_causes(&error);
        files.check().map_err(|error| Failure { code: BAD_SETTING, message: message(error) })?;
    }
    let mut lines = Vec::new();
    for setting in SETTINGS {
        let (text, origin) =
            source.given(setting).unwrap_or_else(|| (setting.default.to_owned(), "default"));
        let shown = match &config.settings.database_url {
            Some(url) if setting.variable == "STAUNCH_DATABASE_URL" => masked(url.expose()),
            _ if setting.variable == "STAUNCH_REDIS_URL" && !text.is_empty() => {
                format!("***@{}", counters::place(&text))
            }
            _ if setting.variable == "STAUNCH_JWT_ISSUER" => config.issuer(config.settings.listen),
            _ => text,
        };
        let name = format!("{}=", setting.variable);
        lines.push(format!("{name:<34}{shown:<28} # {origin}"));
    }
    lines.extend(config.memory_lines());
    lines.extend(config.warnings().iter().map(|warning| format!("warning: {warning}")));
    for name in source.unknown() {
        lines.push(format!("warning: {name} is set, but staunch has no such setting"));
    }
    tell(&lines);
    Ok(())
}

/// A database URL without its user and password.
fn masked(url: &str) -> String {
    store::parse_url(url)
        .map_or_else(|_| "***".to_owned(), |config| format!("***@{}", store::place(&config)))
}
