//! `axum-baseline`: a login server as a competent engineer writes it with axum in a day.
//!
//! It calls the bcrypt crate in `spawn_blocking`, uses PostgreSQL through deadpool, and signs access
//! tokens with HS256. Nothing is left out to make it faster, and nothing added to make it slower:
//! prepared statements, one query per call where one suffices, no lock, no log line per request.

mod api;
mod error;
mod store;
mod tokens;

use axum::Router;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use clap::Parser;
use std::error::Error;
use std::sync::Arc;
use store::Store;
use tokens::Signer;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A login server, to compare with.
#[derive(Parser)]
struct Args {
    /// Address and port to listen on
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: String,
    /// PostgreSQL to use
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// bcrypt cost of new password hashes
    #[arg(long, env = "BCRYPT_COST", default_value_t = 12)]
    cost: u32,
    /// Database connections at most
    #[arg(long, default_value_t = 50)]
    pool: usize,
}

/// The state that every call needs.
struct App {
    store: Store,
    signer: Signer,
    cost: u32,
    /// The hash that an unknown account's password is checked against, so that it takes the same time.
    dummy_hash: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let app = Arc::new(App {
        store: Store::open(&args.database_url, args.pool).await?,
        signer: Signer::new(),
        cost: args.cost,
        dummy_hash: bcrypt::hash("no such account", args.cost)?,
    });
    let router = Router::new()
        .route("/health/liveness", get(api::liveness))
        .route("/health/readiness", get(api::readiness))
        .route("/api/v1/auth/register", post(api::register))
        .route("/api/v1/auth/token", post(api::token))
        .route("/api/v1/auth/refresh", post(api::refresh))
        .route("/api/v1/auth/logout", post(api::logout))
        .route("/api/v1/auth/me", get(api::me))
        .with_state(app);
    let listener = TcpListener::bind(&args.listen).await?;
    println!("axum-baseline listening on http://{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        // The first read shows whether the connection is still open.
        let _ = stream.set_nodelay(true);
    });
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
    };
    axum::serve(listener, router).with_graceful_shutdown(stop).await?;
    Ok(())
}
