//! `staunch serve`: the server.

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
    // Those of a start that did not end.
    log.release();
    match served {
        // Whoever reads JSON lines reads the reason as one of them.
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
    warnings
        .extend(unknown.iter().map(|name| format!("{name} is set, but there is no such setting")));
    runtime()?.block_on(async {
        // Listened for from the start: a ctrl-C while the database starts stops it in order.
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
        // After the start lines, and also where the start failed, as they may say why.
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

/// Changes which lines are logged, and reads the keys and the certificate anew, at each SIGHUP. Ends never.
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
                // Told by whichever of the two would tell it.
                let told = tracing::enabled!(tracing::Level::WARN);
                if told {
                    tracing::warn!(%filter, "log level set");
                }
                log.set_filter(&filter);
                if !told {
                    tracing::warn!(%filter, "log level set");
                }
            }
            Err(error) => tracing::error!(error, "the log level stays as it was"),
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

/// Says what was started: as one line of a JSON log, and to people in lines of their own.
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
    // A log that goes elsewhere leaves the terminal to people.
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
    // The certificate is for a name; this is for who sits at the machine.
    let trusting = if facts.tls { "--insecure " } else { "" };
    lines.push(format!("try       curl {trusting}{scheme}://{address}/health/readiness"));
    lines
}

fn hash_ms(facts: &Facts) -> f64 {
    facts.hash_time.as_secs_f64() * 1000.0
}

/// Rounded to one digit behind the point.
fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// A connection is a file descriptor: take as many as we are allowed.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
