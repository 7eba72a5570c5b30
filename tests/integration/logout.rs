//! POST /api/v1/auth/logout

use crate::support::TestApp;

#[tokio::test]
async fn a_logout_ends_only_its_own_session_at_once() {
    let app = TestApp::start().await;
    let ended = app.registered("ada").await;
    let kept = app.anonymous().log_in("ada").await;
    let client = app.anonymous();
    client.me(&ended.access).await.assert_status(200);
    client.logout(&ended.refresh).await.assert_status(204);
    client.me(&ended.access).await.assert_problem(401, "token-rejected");
    let reply = client.refresh(&ended.refresh).await;
    reply.assert_problem(401, "refresh-token-rejected");
    client.me(&kept.access).await.assert_status(200);
    client.refresh(&kept.refresh).await.tokens();
    let query = "SELECT revoked_reason FROM refresh_tokens WHERE id = $1 AND revoked";
    let row = app.db().await.query_one(query, &[&ended.session()]).await;
    assert_eq!(row.unwrap().get::<_, String>(0), "logout");
}

#[tokio::test]
async fn a_token_of_any_generation_ends_its_session() {
    let app = TestApp::start().await;
    let first = app.registered("ada").await;
    let client = app.anonymous();
    let second = client.refresh(&first.refresh).await.tokens();
    let third = client.refresh(&second.refresh).await.tokens();
    client.logout(&first.refresh).await.assert_status(204);
    client.refresh(&third.refresh).await.assert_status(401);
    client.me(&third.access).await.assert_status(401);
}

#[tokio::test]
async fn logging_out_with_an_invalid_token_is_204() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let client = app.anonymous();
    for token in ["", "nonsense", "srt_AAAA", tokens.access.as_str()] {
        client.logout(token).await.assert_status(204);
    }
    assert_eq!(app.queries("revoke_session").await, 0.0);
    client.logout(&tokens.refresh).await.assert_status(204);
    client.logout(&tokens.refresh).await.assert_status(204);
}
