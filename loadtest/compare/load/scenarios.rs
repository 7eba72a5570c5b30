//! The scenarios: each one prepares, then runs its loops over one window.

use crate::accounts::Accounts;
use crate::api::Tokens;
use crate::client::{Answer, Call, Client, Target};
use crate::closed::{self, Window};
use crate::open::{self, Connections, Schedule};
use crate::report::Report;
use crate::stats::Stats;
use crate::{Fallible, Time};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Barrier, Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Connections that an open loop opens in advance; more are opened when calls need them.
const READY: usize = 16;
/// From the decision to begin to the first call.
const SOON: Duration = Duration::from_millis(200);

pub(crate) async fn logins(
    accounts: &Arc<Accounts>,
    clients: usize,
    time: Time,
) -> Fallible<Report> {
    let window = Window::after(Duration::from_secs(time.warmup), time.seconds);
    let ((), stats) = tokio::join!(window.mark(), login_clients(accounts, clients, window));
    Ok(Report::of("logins", stats, window.seconds()))
}

pub(crate) async fn me(accounts: &Arc<Accounts>, clients: usize, time: Time) -> Fallible<Report> {
    let sessions = accounts.sessions(clients).await?;
    let calls = sessions.iter().map(|tokens| {
        let call = accounts.target.me(&tokens.access);
        move |_: Option<&Answer>| call.clone()
    });
    let window = Window::after(Duration::from_secs(time.warmup), time.seconds);
    let clients = closed::run(&accounts.target, calls.collect(), window);
    let ((), stats) = tokio::join!(window.mark(), clients);
    Ok(Report::of("me", stats, window.seconds()))
}

/// Each client refreshes its own session, with the token of the answer before.
pub(crate) async fn refresh(
    accounts: &Arc<Accounts>,
    clients: usize,
    time: Time,
) -> Fallible<Report> {
    let sessions = accounts.sessions(clients).await?;
    let calls = sessions.into_iter().map(|mut tokens| {
        let target = Arc::clone(&accounts.target);
        move |last: Option<&Answer>| {
            if let Some(next) = last.and_then(Tokens::of) {
                tokens = next;
            }
            target.refresh(&tokens.refresh)
        }
    });
    let window = Window::after(Duration::from_secs(time.warmup), time.seconds);
    let clients = closed::run(&accounts.target, calls.collect(), window);
    let ((), stats) = tokio::join!(window.mark(), clients);
    Ok(Report::of("refresh", stats, window.seconds()))
}

/// What `mixed` sends in addition to the logins.
pub(crate) struct Paced {
    /// Calls per second of each kind.
    pub(crate) rate: f64,
    pub(crate) sessions: usize,
}

pub(crate) async fn mixed(
    accounts: &Arc<Accounts>,
    clients: usize,
    paced: Paced,
    time: Time,
) -> Fallible<Report> {
    let sessions = accounts.sessions(paced.sessions).await?;
    let window = Window::after(Duration::from_secs(time.warmup), time.seconds);
    // The kinds alternate, a third of the period apart.
    let turn = |third: f64| {
        let from = window.from + Duration::from_secs_f64(third / 3.0 / paced.rate);
        Schedule::new(from, paced.rate, time.seconds)
    };
    let target = &accounts.target;
    let (access, refresh): (Vec<_>, Vec<_>) =
        sessions.into_iter().map(|tokens| (target.me(&tokens.access), tokens.refresh)).unzip();
    // Separate tasks, so that none delays another.
    let liveness = tokio::spawn(paced_liveness(Arc::clone(target), turn(0.0)));
    let me = tokio::spawn(paced_me(Arc::clone(target), turn(1.0), access));
    let refresh = tokio::spawn(paced_refresh(Arc::clone(target), turn(2.0), refresh));
    let ((), logins) = tokio::join!(window.mark(), login_clients(accounts, clients, window));
    let seconds = window.seconds();
    Ok(Report::of("logins", logins, seconds)
        .and("liveness", liveness.await?, seconds)
        .and("me", me.await?, seconds)
        .and("refresh", refresh.await?, seconds))
}

pub(crate) async fn open_logins(
    accounts: &Arc<Accounts>,
    rate: f64,
    seconds: u64,
) -> Fallible<Report> {
    let connections = Connections::new(&accounts.target, READY).await;
    let window = Window::after(SOON, seconds);
    let logins = open::run(Schedule::new(window.from, rate, seconds), || {
        let (connections, call) = (Arc::clone(&connections), accounts.login());
        async move { connections.send(call).await }
    });
    let ((), stats) = tokio::join!(window.mark(), logins);
    // Answers also come after the window, so the rate covers the time until the last one.
    Ok(Report::of("open-logins", stats, window.from.elapsed().as_secs_f64()))
}

pub(crate) async fn burst(accounts: &Arc<Accounts>, count: usize) -> Fallible<Report> {
    let ready = Arc::new(Barrier::new(count + 1));
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let (mut client, call) = (Client::new(&accounts.target), accounts.login());
        let ready = Arc::clone(&ready);
        calls.spawn(async move {
            ready.wait().await;
            let outcome = client.call(call).await;
            (outcome, Instant::now())
        });
    }
    eprintln!("load: measuring");
    // All have the same begin, so that the wait before a login is sent counts.
    let begun = Instant::now();
    ready.wait().await;
    let mut stats = Stats::default();
    while let Some(call) = calls.join_next().await {
        let (outcome, ended) = call?;
        stats.add(&outcome, ended - begun);
    }
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("load: measured");
    Ok(Report::of("burst", stats, seconds))
}

async fn login_clients(accounts: &Arc<Accounts>, clients: usize, window: Window) -> Stats {
    let calls = (0..clients).map(|_| {
        let accounts = Arc::clone(accounts);
        move |_: Option<&Answer>| accounts.login()
    });
    closed::run(&accounts.target, calls.collect(), window).await
}

async fn paced_liveness(target: Arc<Target>, schedule: Schedule) -> Stats {
    let connections = Connections::new(&target, READY).await;
    open::run(schedule, || {
        let (connections, call) = (Arc::clone(&connections), target.liveness());
        async move { connections.send(call).await }
    })
    .await
}

async fn paced_me(target: Arc<Target>, schedule: Schedule, calls: Vec<Call>) -> Stats {
    let connections = Connections::new(&target, READY).await;
    let mut calls = calls.iter().cycle();
    open::run(schedule, || {
        // There is at least one session.
        let call = calls.next().cloned().unwrap_or_default();
        let connections = Arc::clone(&connections);
        async move { connections.send(call).await }
    })
    .await
}

/// Refreshes the session that was refreshed longest ago, and keeps its successor.
///
/// If no session is free, the call waits for one, which is part of its time.
async fn paced_refresh(target: Arc<Target>, schedule: Schedule, sessions: Vec<String>) -> Stats {
    let connections = Connections::new(&target, READY).await;
    let (free, taken) = mpsc::unbounded_channel();
    for token in sessions {
        // The receiver lives as long as this function.
        let _ = free.send(token);
    }
    let taken = Arc::new(Mutex::new(taken));
    open::run(schedule, || {
        let (connections, target) = (Arc::clone(&connections), Arc::clone(&target));
        let (free, taken) = (free.clone(), Arc::clone(&taken));
        async move {
            let begun = Instant::now();
            let token = taken.lock().await.recv().await.unwrap_or_default();
            let (sent, next) = connections
                .send_and(target.refresh(&token), |outcome| Tokens::of(outcome.as_ref().ok()?))
                .await;
            let _ = free.send(next.map_or(token, |tokens| tokens.refresh));
            sent.since(begun)
        }
    })
    .await
}
