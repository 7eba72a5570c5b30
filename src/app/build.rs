//! The start: every part in order, and the listeners last.

use super::ports::Ports;
use super::{App, Facts, StartError};
use crate::auth::{Auth, AuthParts};
use crate::clock::Clock;
use crate::config::Config;
use crate::counters::Counters;
use crate::hashing::HashEngine;
use crate::http::{self, AppState, Listener, Tls};
use crate::lifecycle::Lifecycle;
use crate::limiter::Limiter;
use crate::postgres::{DataFolder, EmbeddedPostgres, Purpose};
use crate::store::{self, Endpoint, Store};
use crate::telemetry::log::Log;
use crate::telemetry::otlp::Traces;
use crate::telemetry::{Metrics, definitions};
use crate::tokens::Tokens;
use std::sync::Arc;

/// The parts that need nothing else.
struct Base {
    clock: Clock,
    log: Log,
    metrics: Metrics,
    lifecycle: Lifecycle,
    /// `None`: each node counts on its own.
    counters: Option<Counters>,
}

/// The parts that need an open database.
struct Parts {
    state: Arc<AppState>,
    listeners: Vec<Listener>,
    engine: HashEngine,
    facts: Facts,
}

impl App {
    /// Starts every part except serving.
    ///
    /// Connects to the shared counters, binds the ports, opens data folder, database, schema, keys and
    /// hash engine, and listens last.
    ///
    /// # Errors
    /// See [`StartError`]. The parts that had started are stopped again.
    pub async fn build(config: Config, clock: Clock, log: Log) -> Result<Self, StartError> {
        let begun = clock.now();
        // Checked first, because a bad certificate is most often a mistake in the settings.
        config.certificate().map_or(Ok(()), |files| files.check())?;
        let base = build_base(&config, clock, log).await?;
        let ports = Ports::bind(&config)?;
        let url = config.settings.database_url.as_ref();
        let purpose = if url.is_some() { Purpose::Keys } else { Purpose::Database };
        let folder = DataFolder::open(&config.data_dir(), purpose).await?;
        let (embedded, database, described) = open_database(&config, &folder).await?;
        match build_parts(&config, base, ports, &folder, database, described).await {
            Ok(Parts { state, listeners, engine, facts }) => Ok(Self {
                state,
                listeners,
                engine,
                embedded,
                _folder: folder,
                config,
                facts,
                begun,
            }),
            Err(error) => {
                if let Some(server) = embedded {
                    server.stop().await;
                }
                Err(error)
            }
        }
    }
}

/// Starts the embedded PostgreSQL, unless a database URL is set.
///
/// Also returns how to connect, and a description for the start lines.
async fn open_database(
    config: &Config,
    folder: &DataFolder,
) -> Result<(Option<EmbeddedPostgres>, Endpoint, String), StartError> {
    if let Some(url) = &config.settings.database_url {
        let database = store::parse_url(url.expose())?;
        let described = format!("PostgreSQL at {}", store::place(&database));
        return Ok((None, database, described));
    }
    let server = EmbeddedPostgres::start(&config.postgres(), folder.clone()).await?;
    let database = server.connect_config().into();
    let described =
        format!("embedded PostgreSQL {} in {}", server.version(), server.data_dir().display());
    Ok((Some(server), database, described))
}

async fn build_base(config: &Config, clock: Clock, log: Log) -> Result<Base, StartError> {
    let metrics = Metrics::new()
        .map_err(|error| StartError::Part { part: "metrics", source: error.into() })?;
    let lifecycle = Lifecycle::default();
    let counters = match config.counters() {
        Some(counters) => {
            Some(Counters::open(&counters, &metrics, &lifecycle, clock.clone()).await?)
        }
        None => None,
    };
    Ok(Base { clock, log, metrics, lifecycle, counters })
}

async fn build_parts(
    config: &Config,
    base: Base,
    ports: Ports,
    folder: &DataFolder,
    database: Endpoint,
    described: String,
) -> Result<Parts, StartError> {
    let part = |part| move |source| StartError::Part { part, source };
    let Base { clock, log, metrics, lifecycle, counters } = base;
    let traces = match &config.settings.otlp_endpoint {
        Some(endpoint) => Traces::open(endpoint, &metrics).map_err(part("trace export"))?,
        None => Traces::default(),
    };
    store::migrate(&database).await?;
    let store = Store::open(&config.store(database), &metrics, clock.clone()).await?;
    let tokens = Tokens::open(&config.tokens(folder.keys_dir(), ports.address()), clock.clone())?;
    let hashing = config.hashing();
    let engine =
        HashEngine::start(&hashing, &metrics, clock.clone()).map_err(part("hash engine"))?;
    let auth = Auth::new(
        config.auth(),
        AuthParts { store: store.clone(), engine: engine.clone(), tokens, counters },
        metrics.clone(),
        lifecycle.clone(),
        clock.clone(),
    );
    let certificate = config.certificate();
    let tls = certificate.map(|files| Tls::open(files, &metrics)).transpose()?;
    let facts = Facts {
        address: ports.address(),
        tls: tls.is_some(),
        metrics_address: ports.metrics_address(),
        database: described,
        data_dir: folder.path().to_owned(),
        instead_of: folder.instead_of().map(ToOwned::to_owned),
        cost: hashing.cost,
        hash_time: engine.calibration().one_lane().sustained.hash_time(hashing.cost),
        hash_threads: hashing.threads,
        hash_lanes: engine.calibration().chosen.lanes(),
        hashes_per_second: engine.hashes_per_second(),
    };
    let limiter = Limiter::new(&config.limiter(), clock.now());
    set_limit_gauges(config, &limiter, &metrics);
    let state = AppState {
        config: config.http(),
        auth,
        policy_fields: http::PolicyFields::new(&limiter, http::limit_sets()),
        limiter,
        refusal_throttle: http::LogThrottle::default(),
        connection_error_throttle: http::LogThrottle::default(),
        store,
        http_metrics: http::HttpMetrics::new(&metrics),
        metrics_page: http::MetricsPage::default(),
        metrics,
        traces,
        log,
        lifecycle,
        clock,
    };
    // Last: until now the kernel has refused connections.
    let listeners = ports.listen(config, tls)?;
    Ok(Parts { state: Arc::new(state), listeners, engine, facts })
}

/// Sets the gauges that show configured limits.
#[expect(clippy::cast_precision_loss, reason = "counts and times far below 2^52")]
fn set_limit_gauges(config: &Config, limiter: &Limiter, metrics: &Metrics) {
    for (name, value) in [
        (definitions::HTTP_CONNECTIONS_MAX, config.settings.connections_max.0 as f64),
        (definitions::RATE_LIMIT_KEYS_MAX, limiter.keys_max() as f64),
        (definitions::CLEANUP_INTERVAL, config.settings.cleanup_interval.0.as_secs_f64()),
        (definitions::HASH_DEADLINE, config.settings.hash_deadline.0.as_secs_f64()),
    ] {
        metrics.gauge(name, &[]).set(value);
    }
}
