//! `staunch serve`: runs the server.

use super::source::Source;
use super::{FAILED, Failure, runtime, tell};
use crate::app::{self, App, Facts};
use crate::clock::Clock;
use crate::config::Config;
use crate::http::Tls;
use crate::lifecycle;
use crate::telemetry::log::{Filter, Log};
use crate::tokens::Tokens;
use clap::ArgMatches;
use std::io::IsTerminal;
use std::process::ExitCode;
use tokio::signal::unix::Signal;

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let source = Source::new(matches)?;
    let config = source.config()?;
    let filter = config.settings.log.clone();
    let (log, _guard) = Log::start(config.settings.log_format, &filter);
    log.hold();
    let served = serve(&source, config, &log, &filter);
    // Prints the held lines of a failed start.
    log.release();
    match served {
        // A JSON log carries the reason as a log line.
        Err(failure) if log.is_json() && tracing::enabled!(tracing::Level::ERROR) => {
            tracing::error!(error = failure.message, exit_code = failure.code, "cannot serve");
            Ok(ExitCode::from(failure.code))
        }
        result => result.map(|()| ExitCode::SUCCESS),
    }
}

fn serve(source: &Source<'_>, config: Config, log: &Log, filter: &Filter) -> Result<(), Failure> {
    raise_file_limit();
    let mut warnings = config.warnings();
    let unknown = source.unknown();
    warnings.extend(
        unknown.iter().map(|name| format!("{name} is set, but staunch has no such setting")),
    );
    runtime()?.block_on(async {
        // Handled from the start, so that a ctrl-C while the database starts stops it cleanly.
        let stop = lifecycle::termination();
        let mut stop = std::pin::pin!(stop);
        let hangups = lifecycle::hangups().map_err(no_signals)?;
        let built = tokio::select! {
            built = App::build(config, Clock::system(), log.clone()) => built,
            stopped = &mut stop => return stopped.map_err(no_signals),
        };
        if let Ok(app) = &built {
            announce(app.facts(), log);
            log.release();
        }
        // After the start lines. Also after a failed start, because a warning may explain it.
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let app = built?;
        let (tokens, tls) = (app.tokens(), app.tls());
        let mut result = Ok(());
        let stopped = async {
            tokio::select! {
                stopped = stop => result = stopped,
                () = reload(hangups, source, log, filter, &tokens, tls.as_ref()) => {}
            }
        };
        app.run(stopped).await;
        result.map_err(no_signals)
    })
}

/// Reloads the log filter, the keys and the certificate at each SIGHUP. Never returns.
async fn reload(
    mut hangups: Signal,
    source: &Source<'_>,
    log: &Log,
    at_start: &Filter,
    tokens: &Tokens,
    tls: Option<&Tls>,
) {
    loop {
        if hangups.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        match source.log_filter(at_start) {
            Ok(filter) => {
                // Logged under the old filter, or under the new one if the old one hides it.
                let logged = tracing::enabled!(tracing::Level::WARN);
                if logged {
                    tracing::warn!(%filter, "log level set");
                }
                log.set_filter(&filter);
                if !logged {
                    tracing::warn!(%filter, "log level set");
                }
            }
            Err(error) => {
                tracing::error!(error, "cannot read the log level, keeping the one in use")
            }
        }
        app::reload_keys(tokens.clone()).await;
        if let Some(tls) = tls {
            app::reload_certificate(tls.clone()).await;
        }
    }
}

pub(super) fn no_signals(error: std::io::Error) -> Failure {
    Failure { code: FAILED, message: format!("cannot listen for signals: {error}") }
}

/// Reports the start: a line of the JSON log, and start lines for people.
fn announce(facts: &Facts, log: &Log) {
    if log.is_json() {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            address = %facts.address,
            tls = facts.tls,
            metrics_address = facts.metrics_address.map(tracing::field::display),
            database = facts.database,
            data_dir = %facts.data_dir.display(),
            cost = facts.cost,
            hash_ms = tenths(hash_ms(facts)),
            hashes_per_second = tenths(facts.hashes_per_second),
            threads = facts.hash_threads,
            lanes = facts.hash_lanes,
            "listening"
        );
    }
    // When the log is redirected, the terminal still shows the start lines.
    if !log.is_json() || std::io::stdout().is_terminal() {
        tell(&start_lines(facts));
    }
}

fn start_lines(facts: &Facts) -> Vec<String> {
    let Facts { address, database, cost, hash_threads, hash_lanes, .. } = facts;
    let scheme = if facts.tls { "https" } else { "http" };
    let (ms, rate) = (hash_ms(facts), facts.hashes_per_second);
    let mut lines = vec![
        format!("staunch {} listening on {scheme}://{address}", env!("CARGO_PKG_VERSION")),
        format!("database  {database}"),
    ];
    if let Some(wished) = &facts.instead_of {
        lines.push(format!(
            "data      in {}: the database's user cannot reach {}",
            facts.data_dir.display(),
            wished.display()
        ));
    }
    if let Some(address) = facts.metrics_address {
        lines.push(format!("metrics   http://{address}/metrics"));
    }
    lines.push(format!(
        "bcrypt    cost {cost}: {ms:.0} ms a hash here, {rate:.1} a second with {hash_threads} threads of {hash_lanes} lanes"
    ));
    // The command connects by IP address, which the certificate does not name.
    let trusting = if facts.tls { "--insecure " } else { "" };
    lines.push(format!("try       curl {trusting}{scheme}://{address}/health/readiness"));
    lines
}

fn hash_ms(facts: &Facts) -> f64 {
    facts.hash_time.as_secs_f64() * 1000.0
}

/// Rounds to one decimal place.
fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// Raises the limit of open files to the maximum, because each connection needs one.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}
