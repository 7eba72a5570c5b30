//! Database queries per request, as docs/benchmarks.md lists them.

use crate::support::{PASSWORD, Reply, SOON, TestApp, until};

/// Sends a request; returns the status and the number of queries.
async fn cost(app: &TestApp, send: impl AsyncFnOnce() -> Reply) -> (u16, f64) {
    let before = app.all_queries().await;
    let reply = send().await;
    (reply.status, app.all_queries().await - before)
}

/// Waits until the server has received that many account notifications. Their invalidations would
/// cost a query later.
async fn notified(app: &TestApp, accounts: f64) {
    let series = "staunch_notifications_total{kind=\"account\"}";
    until("the notification arrives", SOON, async || app.metric(series).await == accounts).await;
}

#[tokio::test]
async fn each_request_costs_the_documented_queries() {
    let app = TestApp::start().await;
    app.listening().await;
    let client = app.anonymous();
    let register = cost(&app, async || client.register("a@example.com", "ada", PASSWORD).await);
    assert_eq!(register.await, (201, 1.0));
    assert_eq!(cost(&app, async || client.login("ada", PASSWORD).await).await, (200, 2.0));
    assert_eq!(cost(&app, async || client.login("ada", "wrong").await).await, (401, 1.0));
    assert_eq!(cost(&app, async || client.login("nobody", "x").await).await, (401, 1.0));

    let mine = client.log_in("ada").await;
    let other = client.log_in("ada").await;
    let third = client.log_in("ada").await;
    assert_eq!(cost(&app, async || client.me(&mine.access).await).await, (200, 1.0));
    assert_eq!(cost(&app, async || client.me(&mine.access).await).await, (200, 0.0));
    assert_eq!(cost(&app, async || client.me("nonsense").await).await, (401, 0.0));
    let refreshed = cost(&app, async || client.refresh(&mine.refresh).await).await;
    assert_eq!(refreshed, (200, 1.0));
    assert_eq!(cost(&app, async || client.me(&mine.access).await).await, (200, 0.0));
    assert_eq!(cost(&app, async || client.refresh("nonsense").await).await, (401, 0.0));

    assert_eq!(cost(&app, async || client.sessions(&mine.access).await).await, (200, 1.0));
    assert_eq!(cost(&app, async || client.sessions(&other.access).await).await, (200, 2.0));
    let id = third.session();
    let ended = cost(&app, async || client.end_session(&mine.access, id).await).await;
    assert_eq!(ended, (204, 1.0));
    let ended = cost(&app, async || client.end_session(&mine.access, id).await).await;
    assert_eq!(ended, (404, 1.0));

    let new = "Another-Pass-45";
    let change = async |current| client.change_password(&mine.access, current, new).await;
    assert_eq!(cost(&app, async || change("wrong password").await).await, (401, 1.0));
    assert_eq!(cost(&app, async || change(PASSWORD).await).await, (204, 3.0));
    notified(&app, 1.0).await;
    let seldom = cost(&app, async || client.change_password(&mine.access, "wrong", new).await);
    assert_eq!(seldom.await, (401, 2.0));

    let made = app.oauth_client().await;
    let (id, secret) = (made.id.to_string(), made.secret.expose().to_owned());
    let ask = async |path: &str, token: &str| {
        let fields = [("token", token), ("client_id", &id), ("client_secret", &secret)];
        client.post_form(&format!("/api/v1/auth/{path}"), &fields).await
    };
    assert_eq!(cost(&app, async || ask("introspect", &mine.access).await).await, (200, 1.0));
    assert_eq!(cost(&app, async || ask("introspect", &mine.access).await).await, (200, 0.0));
    assert_eq!(cost(&app, async || ask("introspect", &mine.refresh).await).await, (200, 1.0));
    assert_eq!(cost(&app, async || ask("introspect", "nonsense").await).await, (200, 0.0));
    assert_eq!(cost(&app, async || ask("revoke", "nonsense").await).await, (200, 0.0));
    let last = client.login("ada", new).await.tokens();
    assert_eq!(cost(&app, async || ask("introspect", &last.access).await).await, (200, 1.0));
    assert_eq!(cost(&app, async || ask("revoke", &last.access).await).await, (200, 1.0));

    let last = client.login("ada", new).await.tokens();
    assert_eq!(cost(&app, async || client.logout(&last.refresh).await).await, (204, 1.0));
    assert_eq!(cost(&app, async || client.logout("nonsense").await).await, (204, 0.0));

    assert_eq!(cost(&app, async || client.me(&mine.access).await).await, (200, 0.0));
    for _ in 0..5 {
        change("wrong password").await.assert_status(401);
    }
    assert_eq!(cost(&app, async || change("wrong password").await).await, (429, 0.0));
    assert_eq!(cost(&app, async || client.login("ada", new).await).await, (429, 0.0));
    assert_eq!(cost(&app, async || client.logout_all(&mine.access).await).await, (204, 2.0));
}
