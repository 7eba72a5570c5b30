//! Refreshes that arrive together share a statement, and each still gets its own answer.

use crate::support::{Client, SOON, TestApp, Tokens, until};

const WAITING: &str = "staunch_db_refreshes_waiting";
/// Refreshes that each get a statement before others have to wait.
const ALONE: usize = 4;

async fn log_in(client: &Client, sessions: usize) -> Vec<Tokens> {
    let mut all = Vec::new();
    for _ in 0..sessions {
        all.push(client.log_in("ada").await);
    }
    all
}

fn send(
    client: &Client,
    tokens: &[&Tokens],
) -> Vec<tokio::task::JoinHandle<crate::support::Reply>> {
    let one = |tokens: &&Tokens| {
        let (client, token) = (client.clone(), tokens.refresh.clone());
        tokio::spawn(async move { client.refresh(&token).await })
    };
    tokens.iter().map(one).collect()
}

#[tokio::test]
async fn refreshes_that_wait_share_a_statement_and_each_gets_its_own_answer() {
    let app = TestApp::builder().long_calls().start().await;
    app.register("ada").await;
    let client = app.anonymous();
    let (first, others) = (log_in(&client, ALONE).await, log_in(&client, 20).await);
    let (ended, stolen) = (client.log_in("ada").await, client.log_in("ada").await);
    client.logout(&ended.refresh).await.assert_status(204);
    let next = client.refresh(&stolen.refresh).await.tokens();
    let newest = client.refresh(&next.refresh).await.tokens();
    let count =
        async || (app.queries("refresh_session").await, app.queries("refresh_sessions").await);
    let before = count().await;

    let db = app.db().await;
    db.batch_execute("BEGIN; SELECT 1 FROM refresh_tokens FOR UPDATE").await.unwrap();
    let running = send(&client, &first.iter().collect::<Vec<_>>());
    app.database.until_blocked(ALONE as i64).await;
    let mut late: Vec<&Tokens> = others.iter().collect();
    late.extend([&others[0], &ended, &stolen]);
    let waiting = send(&client, &late);
    let all = waiting.len() as f64;
    until("all wait", SOON, async || app.metric(WAITING).await == all).await;
    db.batch_execute("COMMIT").await.unwrap();

    for reply in running {
        reply.await.unwrap().tokens();
    }
    let mut replies = Vec::new();
    for reply in waiting {
        replies.push(reply.await.unwrap());
    }
    let successors: Vec<String> =
        replies[..=others.len()].iter().map(|reply| reply.tokens().refresh).collect();
    assert_eq!(successors[0], successors[others.len()], "a repeat gets the same successor");
    for rejected in &replies[others.len() + 1..] {
        rejected.assert_problem(401, "refresh-token-rejected");
    }
    client.refresh(&newest.refresh).await.assert_problem(401, "refresh-token-rejected");
    for token in &successors[..others.len()] {
        client.refresh(token).await.tokens();
    }
    // Alone: the first four, the repeat, the ended session, the newest token, and each successor. Shared: one.
    let (alone, shared) = count().await;
    assert_eq!(shared - before.1, 1.0);
    assert_eq!(alone - before.0, (ALONE + 3 + others.len()) as f64);
    assert_eq!(app.metric(r#"staunch_refreshes_total{result="reuse"}"#).await, 1.0);
}

/// A statement that waited for a row while it holds others could deadlock with one that ends all sessions of
/// an account.
#[tokio::test]
async fn a_locked_session_is_refreshed_alone_and_does_not_delay_the_others() {
    let app = TestApp::builder().long_calls().start().await;
    app.register("ada").await;
    let client = app.anonymous();
    let sessions = log_in(&client, ALONE + 10).await;
    let (first, others) = sessions.split_at(ALONE);
    let lock = async |tokens: &[Tokens]| {
        let db = app.db().await;
        db.batch_execute("BEGIN").await.unwrap();
        for tokens in tokens {
            let lock = "SELECT 1 FROM refresh_tokens WHERE id = $1 FOR UPDATE";
            assert_eq!(db.execute(lock, &[&tokens.session()]).await.unwrap(), 1);
        }
        db
    };
    let (running, locked) = (lock(first).await, lock(&others[..1]).await);
    let alone = send(&client, &first.iter().collect::<Vec<_>>());
    app.database.until_blocked(ALONE as i64).await;
    let mut waiting = send(&client, &others.iter().collect::<Vec<_>>());
    let all = waiting.len() as f64;
    until("all wait", SOON, async || app.metric(WAITING).await == all).await;
    running.batch_execute("COMMIT").await.unwrap();
    for reply in alone.into_iter().chain(waiting.drain(1..)) {
        reply.await.unwrap().tokens();
    }
    app.database.until_blocked(1).await;
    locked.batch_execute("COMMIT").await.unwrap();
    waiting.remove(0).await.unwrap().tokens();
}

#[tokio::test]
async fn a_statement_that_fails_fails_its_refreshes_and_a_repeat_succeeds() {
    let app = TestApp::start().await;
    app.register("ada").await;
    let client = app.anonymous();
    let sessions = log_in(&client, ALONE + 3).await;
    let db = app.db().await;
    db.batch_execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = '53100'; END $$;
         CREATE TRIGGER fail BEFORE UPDATE ON refresh_tokens
             FOR EACH ROW EXECUTE FUNCTION fail()",
    )
    .await
    .unwrap();
    let all: Vec<&Tokens> = sessions.iter().collect();
    for reply in send(&client, &all) {
        reply.await.unwrap().assert_problem(503, "unavailable");
    }
    db.batch_execute("DROP TRIGGER fail ON refresh_tokens").await.unwrap();
    for reply in send(&client, &all) {
        reply.await.unwrap().tokens();
    }
}
