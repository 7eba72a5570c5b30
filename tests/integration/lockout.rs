//! Guessing passwords is limited, and the owners can still log in.

use crate::support::{PASSWORD, Reply, TestApp};
use std::time::Duration;

const VERIFIED: &str = r#"staunch_hash_seconds_count{op="verify"}"#;
const LOCKED: &str = r#"staunch_logins_total{result="locked"}"#;
const NAMES: &str = "staunch_lockout_names";
const HOME: &str = "192.0.2.7";

/// A server that trusts the X-Forwarded-For of the tests.
async fn app() -> TestApp {
    TestApp::builder().set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1").start().await
}

async fn guess(app: &TestApp, address: &str, name: &str) -> Reply {
    app.anonymous().from(address).login(name, "Wrong-Pass123").await
}

/// Sends guesses from one address; returns how many were evaluated.
async fn evaluated(app: &TestApp, address: &str, name: &str, guesses: usize) -> usize {
    let mut count = 0;
    for _ in 0..guesses {
        count += usize::from(guess(app, address, name).await.status == 401);
    }
    count
}

// Reliability: F2.
#[tokio::test]
async fn an_address_has_five_guesses_per_name_and_refusals_cost_nothing() {
    let app = app().await;
    app.register("ada").await;
    assert_eq!(evaluated(&app, "203.0.113.1", "ada", 5).await, 5);
    let (queries, hashes) = (app.all_queries().await, app.metric(VERIFIED).await);
    let refused = guess(&app, "203.0.113.1", "Ada").await;
    refused.assert_problem(429, "login-locked");
    assert_eq!(refused.header("retry-after"), Some("30"));
    assert_eq!(refused.header("ratelimit"), None);
    let right = app.anonymous().from("203.0.113.1").login("ada", PASSWORD).await;
    right.assert_problem(429, "login-locked");
    assert_eq!(app.all_queries().await, queries);
    assert_eq!(app.metric(VERIFIED).await, hashes);
    assert_eq!(app.metric(LOCKED).await, 2.0);

    app.clock.advance(Duration::from_millis(29_999));
    guess(&app, "203.0.113.1", "ada").await.assert_status(429);
    app.clock.advance(Duration::from_millis(1));
    guess(&app, "203.0.113.1", "ada").await.assert_status(401);
    assert_eq!(guess(&app, "203.0.113.1", "ada").await.header("retry-after"), Some("60"));
    app.clock.advance(Duration::from_secs(60));
    app.anonymous().from("203.0.113.1").log_in("ada").await;
    assert_eq!(evaluated(&app, "203.0.113.1", "ada", 9).await, 5, "a login resets them");
}

// Reliability: F2.
#[tokio::test]
async fn credential_stuffing_from_one_address_hits_the_address_limit() {
    let app = TestApp::builder()
        .set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1")
        .set("STAUNCH_LIMIT_LOGIN", "10/min")
        .start()
        .await;
    app.register("ada").await;
    let mut evaluated = 0;
    for n in 0..60 {
        let reply = guess(&app, "203.0.113.1", &format!("victim-{n}")).await;
        evaluated += usize::from(reply.status == 401);
    }
    assert_eq!(evaluated, 10);
    assert_eq!(app.metric(NAMES).await, 0.0);
    app.anonymous().from("203.0.113.2").log_in("ada").await;
}

// Reliability: F2.
#[tokio::test]
async fn guesses_from_many_addresses_do_not_lock_out_the_owner() {
    let app = app().await;
    app.register("ada").await;
    app.anonymous().from(HOME).log_in("ada").await;
    let mut evaluated = 0;
    for n in 0..60 {
        let reply = guess(&app, &format!("198.51.100.{n}"), "ada").await;
        evaluated += usize::from(reply.status == 401);
        if reply.status == 429 {
            reply.assert_problem(429, "login-locked");
        }
        // The owner, at the same time, by username or email.
        if n % 20 == 19 {
            app.anonymous().from(HOME).log_in("ada").await;
            app.anonymous().from(HOME).log_in("ada@example.com").await;
        }
    }
    assert_eq!(evaluated, 20);
    assert_eq!(app.metric(NAMES).await, 1.0);
    // The owner's mistakes do not cost the known address, and count nowhere else.
    for _ in 0..4 {
        guess(&app, HOME, "ada").await.assert_status(401);
    }
    app.anonymous().from(HOME).log_in("ada").await;
    let elsewhere = app.anonymous().from("203.0.113.9");
    elsewhere.login("ada", PASSWORD).await.assert_problem(429, "login-locked");
    app.clock.advance(Duration::from_secs(60));
    assert_eq!(app.metric(NAMES).await, 0.0);
    elsewhere.log_in("ada").await;
    // From now on this address is known as well.
    for n in 60..70 {
        guess(&app, &format!("198.51.100.{n}"), "ada").await;
    }
    elsewhere.log_in("ada").await;
}

// Reliability: F1.
#[tokio::test]
async fn unknown_and_disabled_accounts_lock_like_known_ones_and_cost_the_same() {
    let app = app().await;
    app.register("known").await;
    app.register("disabled").await;
    let disable = "UPDATE users SET is_active = false WHERE username = 'disabled'";
    app.db().await.execute(disable, &[]).await.unwrap();
    // Interleaved: the same step for each account in order.
    let names = ["known", "nobody", "disabled", "known@example.com", "nobody@example.com"];
    for step in 0..12 {
        let mut first = None;
        for name in names {
            let before = (app.all_queries().await, app.metric(VERIFIED).await);
            // The correct password of the disabled account is rejected like a wrong one.
            let password = if name == "disabled" { PASSWORD } else { "Wrong-Pass123" };
            let reply = app.anonymous().from("203.0.113.1").login(name, password).await;
            assert_eq!(&reply.seen(), first.get_or_insert_with(|| reply.seen()), "{name}");
            let cost = if step < 5 { 1.0 } else { 0.0 };
            let after = (app.all_queries().await, app.metric(VERIFIED).await);
            assert_eq!((after.0 - before.0, after.1 - before.1), (cost, cost), "{name}, {step}");
            assert_eq!(reply.status, if step < 5 { 401 } else { 429 }, "{name}, {step}");
        }
    }
    assert_eq!(app.queries("insert_session").await, 0.0);
}

#[tokio::test]
async fn concurrent_guesses_are_limited_like_sequential_ones() {
    let app = app().await;
    app.register("ada").await;
    let guesses: Vec<_> = (0..60)
        .map(|_| {
            let client = app.anonymous().from("203.0.113.1");
            tokio::spawn(async move { client.login("ada", "Wrong-Pass123").await.status })
        })
        .collect();
    let mut evaluated = 0;
    for guess in guesses {
        let status = guess.await.unwrap();
        assert!([401, 429].contains(&status), "{status}");
        evaluated += usize::from(status == 401);
    }
    assert_eq!(evaluated, 5);
}

// Reliability: F4.
#[tokio::test]
async fn ipv6_owners_and_guessers_are_identified_by_their_64_bit_prefix() {
    let app = app().await;
    app.register("ada").await;
    app.anonymous().from("2001:db8:0:7::1").log_in("ada").await;
    for n in 0..30 {
        guess(&app, &format!("2001:db8:1:{n:x}::1"), "ada").await;
    }
    guess(&app, "2001:db8:2::1", "ada").await.assert_status(429);
    app.anonymous().from("2001:db8:0:7:ffff::2").log_in("ada").await;
    assert_eq!(evaluated(&app, "2001:db8:0:7::3", "ada", 4).await, 4);
    assert_eq!(evaluated(&app, "2001:db8:0:7::4", "ada", 4).await, 1);
}

/// Number of session look-ups for known addresses.
async fn lookups(app: &TestApp) -> f64 {
    app.queries("session_blocks_by_username").await + app.queries("session_blocks_by_email").await
}

// Case F8 of the field list.
#[tokio::test]
async fn known_addresses_of_owners_survive_a_restart() {
    let first = app().await;
    for name in ["ada", "grace"] {
        first.register(name).await;
        for home in [HOME, "2001:db8:0:7::1"] {
            first.anonymous().from(home).log_in(name).await;
        }
    }
    let restart = first.sibling().set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1");
    drop(first);
    let app = restart.start().await;
    for name in ["ada", "nobody", "grace@example.com"] {
        for n in 1..=4 {
            assert_eq!(evaluated(&app, &format!("198.51.100.{n}"), name, 5).await, 5);
        }
    }
    assert_eq!(lookups(&app).await, 0.0);
    app.anonymous().from(HOME).log_in("ada").await;
    assert_eq!(lookups(&app).await, 1.0);
    app.anonymous().from("2001:db8:0:7:ffff::2").log_in("ada").await;
    assert_eq!(lookups(&app).await, 1.0, "one look-up finds all addresses");

    // Other addresses stay locked out, and cost one query per name and lockout, known or unknown.
    for name in ["ada", "nobody", "grace@example.com"] {
        for n in 1..=9 {
            guess(&app, &format!("203.0.113.{n}"), name).await.assert_problem(429, "login-locked");
        }
    }
    assert_eq!(lookups(&app).await, 3.0);
    app.anonymous().from(HOME).log_in("grace@example.com").await;
    assert_eq!(lookups(&app).await, 3.0);
    app.clock.advance(Duration::from_secs(60));
    for name in ["nobody", "NOBODY"] {
        assert_eq!(guess(&app, "203.0.113.1", name).await.status == 401, name == "nobody");
        guess(&app, "203.0.113.2", name).await.assert_status(429);
    }
    assert_eq!(lookups(&app).await, 4.0, "one in the next lockout");
}

#[tokio::test]
async fn ended_sessions_make_no_address_known() {
    let first = app().await;
    first.register("ada").await;
    let session = first.anonymous().from(HOME).log_in("ada").await;
    first.anonymous().logout(&session.refresh).await.assert_status(204);
    let restart = first.sibling().set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1");
    drop(first);
    let app = restart.start().await;
    for n in 1..=20 {
        guess(&app, &format!("198.51.100.{n}"), "ada").await.assert_status(401);
    }
    let home = app.anonymous().from(HOME);
    home.login("ada", PASSWORD).await.assert_problem(429, "login-locked");
}

#[tokio::test]
async fn the_lockout_can_be_turned_off() {
    let app = TestApp::builder().set("STAUNCH_LOCKOUT", "off").start().await;
    app.register("ada").await;
    for _ in 0..8 {
        app.anonymous().login("ada", "Wrong-Pass123").await.assert_status(401);
    }
    app.anonymous().log_in("ada").await;
    assert_eq!(app.metric(LOCKED).await, 0.0);
}
