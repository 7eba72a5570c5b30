//! Tests of rehashes: when they are offered, displaced and refused.

use super::engine::SPARE_JOBS_MAX;
use super::tests::{LONG, config, start, stored};
use super::*;
use crate::SOON;
use crate::secret::Secret;
use futures_util::FutureExt;
use tokio::time::timeout;

#[tokio::test]
async fn an_outdated_hash_is_offered_for_a_rehash() {
    let setup = start(&config(5, 1, 2));
    let old = bcrypt::hash("password!", 4).unwrap();
    assert!(setup.verify("wrong", Some(&old)).await.unwrap().outdated.is_none());
    let current = bcrypt::hash("password!", 5).unwrap();
    assert!(setup.verify("password!", Some(&current)).await.unwrap().outdated.is_none());
    let password = setup.verify("password!", Some(&old)).await.unwrap().outdated.unwrap();
    let new = setup.engine.rehash(&password).await.unwrap().to_string();
    assert!(new.starts_with("$2b$05$") && bcrypt::verify("password!", &new).unwrap());
}

#[tokio::test]
async fn a_login_displaces_a_rehash() {
    let setup = start(&config(LONG, 1, 1));
    let engine = setup.engine.clone();
    let spare = tokio::spawn(async move {
        engine.rehash(&Password::attempt(Secret::new("spare".into()))).await
    });
    setup.until("busy", |setup| setup.busy() == [1]).await;
    // Without displacement this login would wait for minutes.
    assert!(setup.verify("login", Some(&stored(4))).await.is_ok());
    assert_eq!(timeout(SOON, spare).await.unwrap().unwrap().err(), Some(RehashError::Displaced));
}

#[tokio::test]
async fn a_rehash_is_refused_when_the_rehash_queue_is_full() {
    let setup = start(&config(LONG, 1, 1));
    let running = setup.long();
    setup.until("busy", |setup| setup.busy() == [1]).await;
    let password = Password::attempt(Secret::new("spare".into()));
    // The first poll queues the rehash.
    let rehash = || setup.engine.rehash(&password).now_or_never();
    for _ in 0..SPARE_JOBS_MAX {
        assert!(rehash().is_none(), "it waits");
    }
    assert_eq!(rehash().unwrap().err(), Some(RehashError::QueueFull));
    running.abort();
}
