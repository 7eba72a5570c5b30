//! Refreshes that the database has lost.

use crate::support::TestApp;

const REUSE: &str = r#"staunch_refreshes_total{result="reuse"}"#;

/// After a failover to a standby that had not received everything, the database can be behind the
/// clients. A lost refresh must not count as theft.
#[tokio::test]
async fn a_token_whose_refreshes_the_database_lost_continues_the_session() {
    let app = TestApp::start().await;
    let first = app.registered("ada").await;
    let client = app.anonymous();
    let second = client.refresh(&first.refresh).await.tokens();
    let third = client.refresh(&second.refresh).await.tokens();
    let db = app.db().await;
    let lost =
        "UPDATE refresh_tokens SET generation = 0, rotated_at = rotated_at - interval '1 hour'";
    db.execute(lost, &[]).await.unwrap();
    let next = client.refresh(&third.refresh).await.tokens();
    assert_eq!(client.refresh(&third.refresh).await.tokens().refresh, next.refresh, "a repeat");
    client.me(&next.access).await.assert_status(200);
    assert_eq!(app.metric(REUSE).await, 0.0);
    // The client with an older token holds a copy.
    let rejected = async |token: &str| {
        client.refresh(token).await.assert_problem(401, "refresh-token-rejected");
    };
    rejected(&first.refresh).await;
    assert_eq!(app.metric(REUSE).await, 1.0);
    rejected(&next.refresh).await;
}
