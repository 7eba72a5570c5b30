//! Races for one name: the unique index decides, and every client gets the correct answer.

use crate::support::{PASSWORD, TestApp};

/// Registers `times` accounts concurrently, alternating between the servers; returns the statuses.
async fn register_at_once(
    apps: &[&TestApp],
    times: usize,
    email: impl Fn(usize) -> String,
    username: impl Fn(usize) -> String,
) -> (Vec<u16>, Vec<String>) {
    let tasks: Vec<_> = (0..times)
        .map(|n| {
            let client = apps[n % apps.len()].anonymous();
            let (email, username) = (email(n), username(n));
            tokio::spawn(async move { client.register(&email, &username, PASSWORD).await })
        })
        .collect();
    let (mut statuses, mut kinds) = (Vec::new(), Vec::new());
    for task in tasks {
        let reply = task.await.unwrap();
        if reply.status == 409 {
            kinds.push(reply.json()["type"].as_str().unwrap().to_owned());
        }
        statuses.push(reply.status);
    }
    statuses.sort_unstable();
    kinds.dedup();
    (statuses, kinds)
}

fn one_of(times: usize) -> Vec<u16> {
    let mut statuses = vec![409; times];
    statuses[0] = 201;
    statuses
}

// Reliability: E1.
#[tokio::test]
async fn concurrent_registrations_of_one_email_make_one_account() {
    let app = TestApp::start().await;
    for round in 0..3 {
        let email = |n: usize| match n % 2 {
            0 => format!("same{round}@example.com"),
            _ => format!("SAME{round}@Example.com"),
        };
        let (statuses, kinds) =
            register_at_once(&[&app], 20, email, |n| format!("user{round}.{n}")).await;
        assert_eq!(statuses, one_of(20));
        assert_eq!(kinds, ["urn:staunch:problem:email-taken"]);
    }
    let count = app.db().await.query_one("SELECT count(*) FROM users", &[]).await;
    assert_eq!(count.unwrap().get::<_, i64>(0), 3);
}

// Reliability: E1.
#[tokio::test]
async fn concurrent_registrations_of_one_username_make_one_account() {
    let app = TestApp::start().await;
    for round in 0..3 {
        let username = |n: usize| match n % 2 {
            0 => format!("Same{round}"),
            _ => format!("sAME{round}"),
        };
        let email = |n| format!("user{round}.{n}@example.com");
        let (statuses, kinds) = register_at_once(&[&app], 20, email, username).await;
        assert_eq!(statuses, one_of(20));
        assert_eq!(kinds, ["urn:staunch:problem:username-taken"]);
    }
}

// Reliability: E1.
#[tokio::test]
async fn concurrent_registrations_on_two_servers_make_one_account() {
    let one = TestApp::start().await;
    let other = one.sibling().start().await;
    for round in 0..3 {
        let same = |_| format!("same{round}@example.com");
        let apps = [&one, &other];
        let (statuses, _) = register_at_once(&apps, 20, same, |_| format!("same{round}")).await;
        assert_eq!(statuses, one_of(20));
        one.anonymous().log_in(&format!("same{round}")).await;
        other.anonymous().log_in(&format!("SAME{round}@example.com")).await;
    }
}

#[tokio::test]
async fn a_token_of_one_server_works_on_another() {
    let one = TestApp::start().await;
    let other = one.sibling().start().await;
    let tokens = one.registered("ada").await;
    other.anonymous().me(&tokens.access).await.assert_status(200);
    let next = other.anonymous().refresh(&tokens.refresh).await.tokens();
    one.anonymous().me(&next.access).await.assert_status(200);
}

#[tokio::test]
async fn registrations_of_different_accounts_do_not_conflict() {
    let app = TestApp::builder().long_calls().set("STAUNCH_HASH_DEADLINE", "60s").start().await;
    let (statuses, _) =
        register_at_once(&[&app], 60, |n| format!("user{n}@example.com"), |n| format!("user{n}"))
            .await;
    assert_eq!(statuses, vec![201; 60]);
    let ids = app.db().await.query("SELECT DISTINCT id FROM users", &[]).await;
    assert_eq!(ids.unwrap().len(), 60);
}
