//! The composition root: the only place that knows every part, the order in which they start and
//! the order in which they stop.

mod database;
mod key_folder;
mod ports;
mod reload;

pub use database::{Database, IfAbsent};
pub use key_folder::key_folder;
pub use reload::{reload_certificate, reload_keys};

use crate::auth::Auth;
use crate::clock::Clock;
use crate::config::Config;
use crate::hashing::HashEngine;
use crate::http::{self, Edge, Listener, Tls, TlsError};
use crate::lifecycle::Lifecycle;
use crate::limiter::Limiter;
use crate::postgres::{DataFolder, EmbeddedPostgres, PostgresError, Purpose};
use crate::store::{self, ConnectError, Endpoint, MigrateError, Store, StoreConfig};
use crate::telemetry::log::Log;
use crate::telemetry::otlp::Traces;
use crate::telemetry::{Metrics, declared};
use crate::tokens::{KeyError, Tokens};
use ports::Ports;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::TaskTracker;

/// How often the pool is looked after.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);
/// How often the limiter, the session cache and the metrics are tidied.
const SWEEP_INTERVAL: Duration = Limiter::SWEEP_INTERVAL;
/// How often the key folder is looked at: a key that another node made is known after that.
const KEYS_INTERVAL: Duration = Duration::from_secs(30);
/// How often the certificate's files are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);
/// The first clean-up comes so long after the start.
const CLEANUP_DELAY: Duration = Duration::from_secs(10);
/// What is kept of the shutdown's grace for telling the last clients that they were too late.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// Why the server did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder or the embedded PostgreSQL.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The database gave no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The schema.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A port.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Threads, random numbers, the metrics recorder, the way to the collector.
    #[error("cannot start the {part}")]
    Part {
        /// Which part.
        part: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A server that is ready to run.
pub struct App {
    edge: Arc<Edge>,
    listeners: Vec<Listener>,
    engine: HashEngine,
    embedded: Option<EmbeddedPostgres>,
    /// Held while we run, so that no other process uses the folder.
    _folder: DataFolder,
    config: Config,
    facts: Facts,
    begun: Instant,
}

/// What the start lines say.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it speaks HTTPS there.
    pub tls: bool,
    /// Where metrics are served, if apart.
    pub metrics_address: Option<SocketAddr>,
    /// Which database, without its password.
    pub database: String,
    /// The data folder.
    pub data_dir: PathBuf,
    /// The folder that was asked for and could not be used.
    pub instead_of: Option<PathBuf>,
    /// bcrypt cost.
    pub cost: u32,
    /// Time of one hash at that cost on this machine, alone in its thread.
    pub hash_time: Duration,
    /// Hashing threads.
    pub hash_threads: usize,
    /// Passwords hashed together in each.
    pub hash_lanes: usize,
    /// Hashes a second of all threads.
    pub hashes_per_second: f64,
}

impl App {
    /// Starts every part but the serving: it binds the ports, starts data folder, database, schema,
    /// keys and hash engine, and listens last.
    ///
    /// # Errors
    /// See [`StartError`]; what had been started is stopped again.
    pub async fn build(config: Config, clock: Clock, log: Log) -> Result<Self, StartError> {
        let begun = clock.now();
        // Before anything is started: most often it is a mistake in the settings.
        config.certificate().map_or(Ok(()), |files| files.check())?;
        let ports = Ports::bind(&config)?;
        let url = config.settings.database_url.clone();
        let purpose = if url.is_some() { Purpose::Keys } else { Purpose::Database };
        let folder = DataFolder::open(&config.data_dir(), purpose).await?;
        let (embedded, database, described) = match url {
            Some(url) => {
                let database = store::parse_url(url.expose())?;
                let described = format!("PostgreSQL at {}", store::place(&database));
                (None, database, described)
            }
            None => {
                let server = EmbeddedPostgres::start(&config.postgres(), folder.clone()).await?;
                let database = server.connect_config().into();
                let described = format!(
                    "embedded PostgreSQL {} in {}",
                    server.version(),
                    server.data_dir().display()
                );
                (Some(server), database, described)
            }
        };
        match Self::build_on(&config, clock, log, ports, &folder, database, described).await {
            Ok((edge, listeners, engine, facts)) => Ok(Self {
                edge,
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

    #[expect(clippy::cast_precision_loss, reason = "counts and times far below 2^52")]
    async fn build_on(
        config: &Config,
        clock: Clock,
        log: Log,
        ports: Ports,
        folder: &DataFolder,
        database: Endpoint,
        described: String,
    ) -> Result<(Arc<Edge>, Vec<Listener>, HashEngine, Facts), StartError> {
        let part = |part| move |source| StartError::Part { part, source };
        let metrics = Metrics::new().map_err(|error| part("metrics")(error.into()))?;
        let traces = match &config.settings.otlp_endpoint {
            Some(endpoint) => Traces::open(endpoint, &metrics).map_err(part("trace export"))?,
            None => Traces::default(),
        };
        store::migrate(&database).await?;
        let store_config = StoreConfig {
            database,
            pool_min: config.settings.db_pool_min.0,
            pool_max: config.settings.db_pool_max.0,
        };
        let store = Store::open(&store_config, &metrics, clock.clone()).await?;
        let tokens =
            Tokens::open(&config.tokens(folder.keys_dir(), ports.address()), clock.clone())?;
        let hashing = config.hashing();
        let engine =
            HashEngine::start(&hashing, &metrics, clock.clone()).map_err(part("hash engine"))?;
        let lifecycle = Lifecycle::default();
        let auth = Auth::new(
            config.auth(),
            store.clone(),
            engine.clone(),
            tokens,
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
            hash_time: engine.calibration().one_lane().hash_time(hashing.cost),
            hash_threads: hashing.threads,
            hash_lanes: engine.calibration().chosen.lanes,
            hashes_per_second: engine.hashes_per_second(),
        };
        let limiter = Limiter::new(&config.limiter(), clock.now());
        for (name, value) in [
            (declared::HTTP_CONNECTIONS_MAX, config.settings.connections_max.0 as f64),
            (declared::RATE_LIMIT_KEYS_MAX, limiter.keys_max() as f64),
            (declared::CLEANUP_INTERVAL, config.settings.cleanup_interval.0.as_secs_f64()),
            (declared::HASH_DEADLINE, config.settings.hash_deadline.0.as_secs_f64()),
        ] {
            metrics.gauge(name, &[]).set(value);
        }
        let edge = Edge {
            config: config.http(),
            auth,
            policy_fields: http::PolicyFields::new(&limiter),
            limiter,
            refusals: http::Refusals::new(clock.now()),
            connection_lines: http::Refusals::new(clock.now()),
            store,
            meters: http::Meters::new(&metrics),
            metrics_page: http::MetricsPage::default(),
            metrics,
            traces,
            log,
            lifecycle,
            clock,
        };
        // Last: until now the kernel has refused connections.
        let listeners = ports.listen(config, tls)?;
        Ok((Arc::new(edge), listeners, engine, facts))
    }

    /// What was started.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The keys, for who wants them read anew at another time than their own.
    pub fn tokens(&self) -> Tokens {
        self.edge.auth.tokens().clone()
    }

    /// How the main listener speaks TLS, if it does, for who wants its certificate read anew.
    pub fn tls(&self) -> Option<Tls> {
        self.listeners.iter().find_map(|listener| listener.protocol.tls.clone())
    }

    /// Serves until `shutdown` completes, then stops in order: no new connections; requests in
    /// flight finish, up to the grace; the hash engine; the background tasks; the audit log; the
    /// pool; the embedded PostgreSQL last.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let tls = self.tls();
        let Self { edge, listeners, engine, embedded, config, begun, .. } = self;
        let lifecycle = edge.lifecycle.clone();
        // Before the first connection is accepted: the start lines are printed, and whoever asks at
        // once shall hear that we are ready.
        lifecycle.started();
        let startup = edge.clock.now().saturating_duration_since(begun);
        edge.metrics.gauge(declared::STARTUP_SECONDS, &[]).set(startup.as_secs_f64());
        edge.is_ready().await;
        spawn_background(&edge, tls, config.settings.cleanup_interval.0);
        // Not one of them: it has to outlive the last request.
        let (end_audit_log, audit_log_ended) = tokio::sync::oneshot::channel::<()>();
        let auth = edge.auth.clone();
        let audit_log = tokio::spawn(async move {
            auth.write_audit_log(async { drop(audit_log_ended.await) }).await;
        });
        let connections = TaskTracker::new();
        let servers: Vec<_> = listeners
            .into_iter()
            .map(|listener| {
                tokio::spawn(http::serve(Arc::clone(&edge), listener, connections.clone()))
            })
            .collect();
        shutdown.await;

        let grace = config.settings.shutdown_grace.0;
        tracing::info!(grace_s = grace.as_secs(), "draining");
        lifecycle.drain();
        for server in servers {
            server.await.ok();
        }
        connections.close();
        // Most of the grace to finish; the rest to tell those who could not be served.
        let work = grace.saturating_sub(REFUSAL_TIME);
        // The requests first: one that still reads its account has a place in the engine already.
        if tokio::time::timeout(work, connections.wait()).await.is_err() {
            engine.abort();
            if tokio::time::timeout(REFUSAL_TIME.min(grace), connections.wait()).await.is_err() {
                tracing::warn!(
                    connections = connections.len(),
                    "closing connections that are still open"
                );
            }
        }
        lifecycle.background_ended().await;
        engine.drain().await;
        drop(end_audit_log);
        audit_log.await.ok();
        edge.traces.clone().close().await;
        edge.store.close();
        if let Some(server) = embedded {
            server.stop().await;
        }
        tracing::info!("stopped");
    }
}

/// Starts what runs beside the requests; all of it ends when draining begins.
fn spawn_background(edge: &Arc<Edge>, tls: Option<Tls>, cleanup_interval: Duration) {
    let auth = edge.auth.clone();
    edge.lifecycle.spawn(async move { auth.follow_notices().await });
    spawn_every(edge, MAINTENANCE_INTERVAL, MAINTENANCE_INTERVAL, |edge| async move {
        edge.store.maintain();
        edge.is_ready().await;
    });
    spawn_every(edge, SWEEP_INTERVAL, SWEEP_INTERVAL, |edge| async move {
        edge.limiter.sweep(edge.clock.now());
        edge.auth.sweep();
        edge.metrics.upkeep();
    });
    spawn_every(edge, KEYS_INTERVAL, KEYS_INTERVAL, |edge| async move {
        reload_keys(edge.auth.tokens().clone()).await;
    });
    if let Some(tls) = tls {
        spawn_every(edge, CERTIFICATE_INTERVAL, CERTIFICATE_INTERVAL, move |_| {
            reload::follow_certificate(tls.clone())
        });
    }
    spawn_every(edge, cleanup_interval, CLEANUP_DELAY.min(cleanup_interval), clean_up);
}

/// Runs a task at that interval, for the first time after `delay`.
fn spawn_every<T>(
    edge: &Arc<Edge>,
    interval: Duration,
    delay: Duration,
    task: impl Fn(Arc<Edge>) -> T + Send + 'static,
) where
    T: Future<Output = ()> + Send + 'static,
{
    let edge_of_task = Arc::clone(edge);
    edge.lifecycle.spawn(async move {
        tokio::time::sleep(delay).await;
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            task(Arc::clone(&edge_of_task)).await;
        }
    });
}

async fn clean_up(edge: Arc<Edge>) {
    match edge.auth.clean_up(edge.clock.unix_s()).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "ended sessions removed"),
        Err(error) => tracing::warn!(%error, "clean-up failed, trying again next time"),
    }
}
