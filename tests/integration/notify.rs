//! Session changes on one node, seen from another.

use crate::support::{Link, PASSWORD, Proxy, SOON, TestApp, Tokens, until};
use staunch::identity::UserId;
use staunch::store::Admin;
use std::time::Duration;
use tokio::time::Instant;

/// The time within which another node must know of a change.
const LIMIT: Duration = Duration::from_secs(1);
const CONNECTED: &str = "staunch_notify_connected";

async fn pair() -> (TestApp, TestApp) {
    let one = TestApp::start().await;
    let other = one.sibling().start().await;
    one.listening().await;
    other.listening().await;
    (one, other)
}

/// Makes the server cache the session as live.
async fn seen(app: &TestApp, tokens: &Tokens) {
    app.anonymous().me(&tokens.access).await.assert_status(200);
}

/// Waits, with a stopped clock, until the server refuses the session; returns how long it took.
async fn refused(app: &TestApp, tokens: &Tokens) -> Duration {
    let client = app.anonymous();
    until("the server knows", SOON, async || client.me(&tokens.access).await.status == 401).await
}

#[tokio::test]
async fn every_node_learns_of_an_ended_session_within_a_second() {
    let (one, other) = pair().await;
    one.register("ada").await;
    let client = one.anonymous();
    let kept = client.log_in("ada").await;
    seen(&other, &kept).await;
    let mut ended = 0.0;
    for end in ["logout", "session", "reuse"] {
        until("the end is known in time", SOON, async || {
            let tokens = client.log_in("ada").await;
            seen(&other, &tokens).await;
            let (reply, status) = match end {
                "logout" => (client.logout(&tokens.refresh).await, 204),
                "session" => (client.end_session(&kept.access, tokens.session()).await, 204),
                _ => {
                    let second = client.refresh(&tokens.refresh).await.tokens();
                    client.refresh(&second.refresh).await.tokens();
                    (client.refresh(&tokens.refresh).await, 401)
                }
            };
            reply.assert_status(status);
            let took = refused(&other, &tokens).await;
            let asked = other.queries("session_account").await;
            seen(&other, &kept).await;
            let asked_now = other.queries("session_account").await;
            assert_eq!(asked_now, asked, "other sessions stay cached");
            ended += 1.0;
            took < LIMIT
        })
        .await;
    }
    let heard = "staunch_notifications_total{kind=\"session\"}";
    assert_eq!(other.metric(heard).await, ended);
}

#[tokio::test]
async fn every_node_learns_of_a_session_ended_by_the_limit() {
    let one = TestApp::builder().set("STAUNCH_SESSIONS_PER_ACCOUNT", "1").start().await;
    let other = one.sibling().start().await;
    other.listening().await;
    let first = one.registered("ada").await;
    seen(&other, &first).await;
    one.anonymous().log_in("ada").await;
    refused(&other, &first).await;
}

#[tokio::test]
async fn every_node_learns_that_all_sessions_of_an_account_ended() {
    let (one, other) = pair().await;
    let first = one.registered("ada").await;
    let second = one.anonymous().log_in("ada").await;
    let eve = one.registered("eve").await;
    for tokens in [&first, &second, &eve] {
        seen(&other, tokens).await;
    }
    one.anonymous().logout_all(&first.access).await.assert_status(204);
    refused(&other, &first).await;
    refused(&other, &second).await;
    seen(&other, &eve).await;
    let later = one.anonymous().log_in("ada").await;
    seen(&other, &later).await;
    let heard = "staunch_notifications_total{kind=\"account\"}";
    assert_eq!(other.metric(heard).await, 1.0);
}

#[tokio::test]
async fn every_node_learns_of_a_new_password_that_keeps_its_own_session() {
    let (one, other) = pair().await;
    let mine = one.registered("ada").await;
    let second = one.anonymous().log_in("ada").await;
    for tokens in [&mine, &second] {
        seen(&other, tokens).await;
    }
    let new = "Another-Pass-45";
    one.anonymous().change_password(&mine.access, PASSWORD, new).await.assert_status(204);
    refused(&other, &second).await;
    seen(&other, &mine).await;
}

#[tokio::test]
async fn every_node_rejects_a_disabled_account_within_a_second() {
    let (one, other) = pair().await;
    let eve = one.registered("eve").await;
    let mut admin = Admin::open(&one.database.config.clone().into()).await.unwrap();
    let mut accounts = 0;
    until("the account is refused in time", SOON, async || {
        accounts += 1;
        let name = format!("ada{accounts}");
        let id = one.register(&name).await;
        let tokens = one.anonymous().log_in(&name).await;
        for app in [&one, &other] {
            seen(app, &tokens).await;
            seen(app, &eve).await;
        }
        assert_eq!(admin.disable(UserId(id)).await.unwrap(), Some(1));
        let begun = Instant::now();
        for app in [&one, &other] {
            refused(app, &tokens).await;
        }
        let took = begun.elapsed();
        for app in [&one, &other] {
            seen(app, &eve).await;
        }
        took < LIMIT
    })
    .await;
    admin.close().await;
}

/// A server, and a second one that uses its database through a proxy.
async fn behind_proxy() -> (TestApp, TestApp, Proxy) {
    let one = TestApp::start().await;
    let proxy = Proxy::start(&one.database.config).await;
    let url = one.database.url_at(proxy.address);
    let other = one.sibling().set("STAUNCH_DATABASE_URL", url).start().await;
    other.listening().await;
    (one, other, proxy)
}

// Reliability: C7.
#[tokio::test]
async fn a_missed_revocation_takes_effect_after_the_listener_reconnects() {
    let (one, other, proxy) = behind_proxy().await;
    for link in [Link::Cut, Link::Paused] {
        let name = format!("{link:?}").to_lowercase();
        one.register(&name).await;
        until("the disconnect is noticed in time", SOON, async || {
            missed(&one, &other, &proxy, link, &name).await < Duration::from_secs(3)
        })
        .await;
    }
}

/// Ends a session while the other server's listener is cut off; returns the time until the server
/// notices the disconnect.
async fn missed(one: &TestApp, other: &TestApp, proxy: &Proxy, link: Link, name: &str) -> Duration {
    let ended = one.anonymous().log_in(name).await;
    let kept = one.anonymous().log_in(name).await;
    seen(other, &ended).await;
    seen(other, &kept).await;
    proxy.set(link);
    let begun = Instant::now();
    one.anonymous().logout(&ended.refresh).await.assert_status(204);
    until("the break is noticed", SOON, async || other.metric(CONNECTED).await == 0.0).await;
    let noticed = begun.elapsed();
    // The session is trusted for two seconds. Then the server queries the database, which fails.
    seen(other, &ended).await;
    other.clock.advance(Duration::from_secs(2));
    let reply = other.anonymous().me(&ended.access).await;
    reply.assert_problem(503, "unavailable");
    proxy.set(Link::Open);
    other.listening().await;
    until("the database answers", SOON, async || {
        other.anonymous().me(&kept.access).await.status == 200
    })
    .await;
    other.anonymous().me(&ended.access).await.assert_problem(401, "token-rejected");
    // The next notification arrives.
    one.anonymous().logout(&kept.refresh).await.assert_status(204);
    refused(other, &kept).await;
    noticed
}

// Case N2 of the field list: behind a pooler in transaction mode, another node's logout was seen after
// 30 s.
// Reliability: C7.
#[tokio::test]
async fn a_listener_that_receives_nothing_counts_as_disconnected() {
    let one = TestApp::start().await;
    let tokens = one.registered("ada").await;
    let db = one.db().await;
    let last_query = async |pattern: &str| {
        let query = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND query LIKE $1";
        db.query_one(query, &[&pattern]).await.unwrap().get::<_, i64>(0)
    };
    let probed = async || last_query("-- listener%").await == 1;
    until("the first server's listener sends probes", SOON, probed).await;
    let proxy = Proxy::start(&one.database.config).await;
    proxy.set(Link::Deaf);
    let url = format!("{} sslmode=disable", one.database.url_at(proxy.address));
    let other = one.sibling().set("STAUNCH_DATABASE_URL", url).start().await;
    until("the other listens", SOON, async || last_query("LISTEN%").await == 1).await;
    let ended = async || last_query("LISTEN%").await == 0;
    until("it closes the connection or sends a probe", SOON, ended).await;
    assert_eq!(other.metric(CONNECTED).await, 0.0);
    seen(&other, &tokens).await;
    one.anonymous().logout(&tokens.refresh).await.assert_status(204);
    other.clock.advance(Duration::from_secs(2));
    other.anonymous().me(&tokens.access).await.assert_problem(401, "token-rejected");
    // Notifications arrive again. It notices by itself.
    proxy.set(Link::Open);
    other.listening().await;
}

// Reliability: C7.
#[tokio::test]
async fn a_terminated_listener_reconnects() {
    let (one, other) = pair().await;
    let tokens = one.registered("ada").await;
    seen(&other, &tokens).await;
    let db = one.db().await;
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND (query LIKE '-- listener%' OR query LIKE 'LISTEN%')";
    let ended = db.query_one(terminate, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(ended, 2);
    one.anonymous().logout(&tokens.refresh).await.assert_status(204);
    // Either notified, or removed from the cache when the connection broke.
    refused(&other, &tokens).await;
    other.listening().await;
    let next = one.anonymous().log_in("ada").await;
    seen(&other, &next).await;
    one.anonymous().logout(&next.refresh).await.assert_status(204);
    refused(&other, &next).await;
}

#[tokio::test]
async fn unexpected_notifications_are_harmless() {
    let (one, other) = pair().await;
    let tokens = one.registered("ada").await;
    seen(&other, &tokens).await;
    let long = "x".repeat(7_000);
    for payload in ["", "nonsense", "-1", "99999999999999999999", "'; DROP TABLE users; --", &long]
    {
        for channel in ["staunch_session", "staunch_account", "staunch_other"] {
            let notify = "SELECT pg_notify($1, $2)";
            one.db().await.execute(notify, &[&channel, &payload]).await.unwrap();
        }
    }
    let heard = "staunch_notifications_total{kind=\"account\"}";
    until("the id -1 arrives", SOON, async || other.metric(heard).await == 1.0).await;
    assert_eq!(other.metric(CONNECTED).await, 1.0);
    seen(&other, &tokens).await;
    one.anonymous().logout(&tokens.refresh).await.assert_status(204);
    refused(&other, &tokens).await;
}
