//! `staunch migrate`: updates the database schema and exits, for deployments that migrate before they serve.

use super::source::Source;
use super::{BAD_SETTING, Failure, UNAVAILABLE, runtime, tell};
use crate::store;
use crate::telemetry::log::Log;
use crate::telemetry::with_causes;
use clap::ArgMatches;

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let config = Source::new(matches)?.config()?;
    let (_log, _guard) = Log::start(config.settings.log_format, &config.settings.log);
    let Some(url) = &config.settings.database_url else {
        let message = "STAUNCH_DATABASE_URL: must be set; `serve` migrates an embedded database";
        return Err(Failure { code: BAD_SETTING, message: message.into() });
    };
    let unavailable = |message: String| Failure { code: UNAVAILABLE, message };
    let database =
        store::parse_url(url.expose()).map_err(|error| unavailable(error.to_string()))?;
    let migrated = runtime()?.block_on(store::migrate(&database));
    let applied = migrated.map_err(|error| unavailable(with_causes(&error)))?;
    tell(&[format!("{applied} migrations applied to {}", store::place(&database))]);
    Ok(())
}
