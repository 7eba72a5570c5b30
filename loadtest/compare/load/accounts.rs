//! The accounts that a run logs in to, and sessions opened before it.

use crate::Fallible;
use crate::api::Tokens;
use crate::client::{Answer, Call, Client, Target};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;

const PASSWORD: &str = "Load-Test-Pass-7391!";
/// Calls in flight while accounts and sessions are created.
const AT_ONCE: usize = 16;
/// How often a call to a busy server is repeated, half a second apart.
const ATTEMPTS: usize = 40;

pub(crate) struct Accounts {
    pub(crate) target: Arc<Target>,
    count: usize,
    next: AtomicUsize,
}

impl Accounts {
    pub(crate) fn new(target: Arc<Target>, count: usize) -> Self {
        Self { target, count, next: AtomicUsize::new(0) }
    }

    /// A login to the next account.
    pub(crate) fn login(&self) -> Call {
        self.target.login(&self.name(self.next.fetch_add(1, Relaxed)), PASSWORD)
    }

    /// Registers all accounts.
    pub(crate) async fn seed(self: &Arc<Self>) -> Fallible<()> {
        self.each(self.count, |accounts, index| {
            let name = accounts.name(index);
            accounts.target.register(&format!("{name}@example.com"), &name, PASSWORD)
        })
        .await?;
        Ok(())
    }

    /// Opens sessions by logging in.
    pub(crate) async fn sessions(self: &Arc<Self>, count: usize) -> Fallible<Vec<Tokens>> {
        let answers = self.each(count, |accounts, _| accounts.login()).await?;
        let sessions: Option<Vec<_>> = answers.iter().map(Tokens::of).collect();
        Ok(sessions.ok_or("a login was answered without tokens")?)
    }

    fn name(&self, index: usize) -> String {
        format!("load_{}", index % self.count)
    }

    /// Makes `count` calls, [`AT_ONCE`] at a time, all of which must succeed.
    async fn each(
        self: &Arc<Self>,
        count: usize,
        call: fn(&Self, usize) -> Call,
    ) -> Fallible<Vec<Answer>> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..AT_ONCE.min(count) {
            let (accounts, next) = (Arc::clone(self), Arc::clone(&next));
            workers.spawn(async move {
                let mut client = Client::new(&accounts.target);
                let mut answers = Vec::new();
                loop {
                    let index = next.fetch_add(1, Relaxed);
                    if index >= count {
                        return Ok(answers);
                    }
                    answers.push(insist(&mut client, || call(&accounts, index)).await?);
                }
            });
        }
        let mut all = Vec::with_capacity(count);
        while let Some(worker) = workers.join_next().await {
            let answers: Fallible<Vec<Answer>> = worker?;
            all.extend(answers?);
        }
        Ok(all)
    }
}

/// Repeats a call until it is answered 2xx, or 409 (the account exists already).
async fn insist(client: &mut Client, call: impl Fn() -> Call) -> Fallible<Answer> {
    for _ in 0..ATTEMPTS {
        let request = call();
        let path = request.uri().path().to_owned();
        let answer = client.call(request).await.map_err(|failure| failure.name())?;
        match answer.status {
            200 | 201 | 409 => return Ok(answer),
            503 => tokio::time::sleep(Duration::from_millis(500)).await,
            401 => return Err("a login was refused (401): run `load seed` first".into()),
            429 => return Err("the server's rate limits are on (429)".into()),
            status => {
                let body = String::from_utf8_lossy(&answer.body);
                return Err(format!("{path} was answered {status}: {body}").into());
            }
        }
    }
    Err("the server stayed busy (503)".into())
}
