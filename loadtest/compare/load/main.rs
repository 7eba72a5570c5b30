//! `load`: sends logins and other calls of the login API to a server, and reports the results.
//!
//! `load seed` creates the accounts, and every other scenario logs in to them. The report counts only
//! answers inside the measured window. A line on standard error marks its begin and its end, for a
//! caller that watches the server meanwhile.

mod accounts;
mod api;
mod client;
mod closed;
mod open;
mod report;
mod scenarios;
mod stats;

use accounts::Accounts;
use clap::{Args, Parser, Subcommand};
use client::Target;
use report::Report;
use scenarios::Paced;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// A failure before or after the measured window. Inside it, failures are counted.
type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Load generator for servers of the login API.
#[derive(Parser)]
struct Cli {
    /// URL of the server
    #[arg(long, global = true, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Print the report as JSON on standard output, and the table on standard error
    #[arg(long, global = true)]
    json: bool,
    /// Accounts that logins are spread over
    #[arg(long, global = true, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// Seconds after which a call without an answer counts as `timeout`
    #[arg(long, global = true, default_value_t = 60)]
    timeout: u64,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Register the accounts; existing ones are fine
    Seed,
    /// Logins in a closed loop
    Logins {
        /// Clients, each with one login in flight
        #[arg(long, default_value_t = 16)]
        clients: usize,
        #[command(flatten)]
        time: Time,
    },
    /// GET /me in a closed loop
    Me {
        /// Clients, each with its own session
        #[arg(long, default_value_t = 32)]
        clients: usize,
        #[command(flatten)]
        time: Time,
    },
    /// Refreshes in a closed loop, each client with its own session
    Refresh {
        /// Clients, each with one refresh in flight
        #[arg(long, default_value_t = 64)]
        clients: usize,
        #[command(flatten)]
        time: Time,
    },
    /// Logins in a closed loop; meanwhile liveness, /me and refresh at a fixed rate
    Mixed {
        /// Clients that log in, enough to keep every core hashing
        #[arg(long, default_value_t = 64)]
        clients: usize,
        /// Calls per second of each of the three other kinds
        #[arg(long, default_value_t = 100.0, value_parser = rate)]
        rate: f64,
        /// Sessions that /me and refresh are spread over
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
        sessions: u32,
        #[command(flatten)]
        time: Time,
    },
    /// Logins at a fixed rate, however long the answers take
    OpenLogins {
        /// Logins per second
        #[arg(long, value_parser = rate)]
        rate: f64,
        /// Seconds that are measured
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// Logins all at once, each on its own connection
    Burst {
        /// Number of logins
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
    },
}

#[derive(Args, Clone, Copy)]
struct Time {
    /// Seconds that are measured
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds of warm-up before them
    #[arg(long, default_value_t = 2)]
    warmup: u64,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 100_000.0 => Ok(rate),
        _ => Err("a number above 0 and at most 100000".into()),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Fallible<()> {
    let target = Arc::new(Target::new(&cli.url, Duration::from_secs(cli.timeout))?);
    let accounts = Arc::new(Accounts::new(target, cli.users as usize));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(measure(&accounts, cli.scenario))?;
    if cli.json {
        println!("{}", report.json());
        eprint!("{}", report.table());
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

async fn measure(accounts: &Arc<Accounts>, scenario: Scenario) -> Fallible<Report> {
    match scenario {
        Scenario::Seed => {
            accounts.seed().await?;
            Ok(Report::default())
        }
        Scenario::Logins { clients, time } => scenarios::logins(accounts, clients, time).await,
        Scenario::Me { clients, time } => scenarios::me(accounts, clients, time).await,
        Scenario::Refresh { clients, time } => scenarios::refresh(accounts, clients, time).await,
        Scenario::Mixed { clients, rate, sessions, time } => {
            let paced = Paced { rate, sessions: sessions as usize };
            scenarios::mixed(accounts, clients, paced, time).await
        }
        Scenario::OpenLogins { rate, seconds } => {
            scenarios::open_logins(accounts, rate, seconds).await
        }
        Scenario::Burst { count } => scenarios::burst(accounts, count as usize).await,
    }
}
