//! `staunch check-config`: says what is in force, or everything that is wrong. Starts nothing.

use super::Failure;
use super::source::Source;
use crate::config::SETTINGS;
use crate::store;
use clap::ArgMatches;

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let source = Source::new(matches)?;
    let config = source.config()?;
    for setting in SETTINGS {
        let (text, origin) =
            source.given(setting).unwrap_or_else(|| (setting.default.to_owned(), "default"));
        let shown = match &config.settings.database_url {
            Some(url) if setting.variable == "STAUNCH_DATABASE_URL" => masked(url.expose()),
            _ => text,
        };
        println!("{:<34}{:<28} # {origin}", format!("{}=", setting.variable), shown);
    }
    for warning in config.warnings() {
        println!("warning: {warning}");
    }
    for name in source.unknown() {
        println!("warning: {name} is set, but there is no such setting");
    }
    Ok(())
}

/// Host and database; user and password are left out.
fn masked(url: &str) -> String {
    store::parse_url(url)
        .map_or_else(|_| "***".to_owned(), |config| format!("***@{}", store::place(&config)))
}
